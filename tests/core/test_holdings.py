"""What a part holds, and weights that rest between its turns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from referee.contract import Loss, Prompt, Views
from referee.holdings import holdings, lent, send_home
from referee.inversion import Step, invert
from referee.judging import Judge
from referee.play import generate, parts_of, score
from referee.result import Result
from referee.rules import Rules
from referee.seat import Seat
from referee.testing import ToyPrior, ToyReferee


class Linear(ToyReferee):
    """Scores by a linear layer, which it keeps in a list; and notes which weights it was asked with."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = {"scores": [nn.Linear(3, 1, dtype=torch.float64).requires_grad_(False)]}
        self.scale = torch.ones(1)
        self.seen: list[Tensor] = []

    def read(self, prompt: Prompt) -> Loss:
        (layer,) = self.layers["scores"]

        def loss(views: Views) -> Tensor:
            self.seen.append(layer.weight)
            return (self.scale * layer(views.mean((2, 3)).double())[:, 0]).square()

        return loss


class Parts:
    """As plug-ins are: modules in attributes, tables, lists and slots, some of them twice."""

    __slots__ = ("also", "table")

    def __init__(self) -> None:
        tied = nn.Linear(2, 2, bias=False)
        other = nn.Linear(2, 2, bias=False)
        other.weight = tied.weight
        self.table: dict[str, Any] = {"a": [tied], "b": (other, torch.zeros(3)), "name": "x"}
        self.also = nn.Sequential(tied, nn.BatchNorm1d(2))


def test_holdings_are_found_however_deep_and_once() -> None:
    parts = Parts()
    found = list(holdings(parts))
    assert len(found) == len({id(each) for each in found})
    assert {type(each) for each in found} == {nn.Linear, nn.Sequential, Tensor}
    assert sum(isinstance(each, nn.Linear) for each in found) == 2


def test_weights_are_lent_and_come_back_the_same() -> None:
    parts = Parts()
    modules = [m for each in holdings(parts) if isinstance(each, nn.Module) for m in each.modules()]

    def tensors() -> list[Tensor]:
        return [t for m in modules for t in (*m.parameters(), *m.buffers())]

    before = tensors()
    with lent(parts, "meta"):
        assert all(t.device.type == "meta" for t in tensors())
        assert parts.table["a"][0].weight is parts.table["b"][0].weight is parts.also[0].weight
        assert not parts.also[0].weight.requires_grad
        assert parts.table["b"][1].device.type == "cpu"
    assert all(a is b for a, b in zip(before, tensors(), strict=True))
    with pytest.raises(RuntimeError, match="within"), lent(parts, "meta"):
        raise RuntimeError("within")
    assert all(a is b for a, b in zip(before, tensors(), strict=True))


def test_what_cannot_be_lent_whole_comes_back_whole() -> None:
    parts = Parts()
    before = parts.also[1].weight
    with pytest.raises(RuntimeError), lent(parts, "nowhere"):
        pass
    assert parts.also[1].weight is before


def test_send_home_moves_modules_alone() -> None:
    referee = Linear()
    referee.layers["scores"] = [nn.Linear(3, 1, device="meta").to_empty(device="cpu")]
    send_home(referee)
    assert referee.layers["scores"][0].weight.device.type == "cpu"


@pytest.mark.parametrize("space", ["latent", "image"])
def test_a_referee_that_rests_plays_the_same(space: Any) -> None:
    torch.manual_seed(0)
    referee = Linear()
    (layer,) = referee.layers["scores"]
    home, rules = layer.weight, Rules(steps=4, tail=0, prior_weight=0, lr=0.1, views=1)

    def run(*, offload: bool) -> list[Step]:
        referee.seen.clear()
        seats = [Seat("a", referee, offload=offload), Seat("b", ToyReferee())]
        return list(invert("red", seats, ToyPrior(), rules=rules, size=(8, 8), space=space))

    there = run(offload=False)
    assert all(weight is home for weight in referee.seen)
    rested = run(offload=True)
    assert len(referee.seen) == 4
    assert all(weight is not home for weight in referee.seen)
    assert layer.weight is home
    assert all(torch.equal(a.z, b.z) for a, b in zip(there, rested, strict=True))


def test_a_judge_that_rests_says_the_same() -> None:
    torch.manual_seed(0)
    referee = Linear()
    (layer,) = referee.layers["scores"]
    home, rules = layer.weight, Rules(steps=4, tail=0, prior_weight=0.1, lr=0.1, views=1)

    def run(*, offload: bool) -> Result:
        judge = Judge("j", referee, every=2, offload=offload)
        return generate("red", parts_of(ToyPrior(), [ToyReferee()], rules=rules, size=(8, 8), judge=judge))

    there, rested = run(offload=False), run(offload=True)
    assert [weight is home for weight in referee.seen] == [True, True, False, False]
    assert layer.weight is home
    assert there.judged == rested.judged
    assert torch.equal(there.images, rested.images)


def test_a_score_lends_too() -> None:
    referee = Linear()
    (layer,) = referee.layers["scores"]
    x = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert score(x, "red", [Seat("a", referee)]) == score(x, "red", [Seat("a", referee, offload=True)])
    assert referee.seen[0] is layer.weight
    assert referee.seen[1] is not layer.weight


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_memory_of_a_device_is_given_back() -> None:
    layer = nn.Linear(1024, 1024)
    before = torch.cuda.memory_allocated()
    with lent([layer], "cuda"):
        assert torch.cuda.memory_allocated() >= before + 4 * 1024 * 1024
    assert torch.cuda.memory_allocated() == before
