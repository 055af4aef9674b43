"""The loop's state: a run that goes on from it is the unbroken one, bit for bit, wherever it is cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from referee import balance
from referee.contract import Latent, Memory, Progress, Prompt, Pull
from referee.errors import OptionError, PluginError
from referee.inversion import Seat, State, Step, invert
from referee.result import numbers
from referee.rules import Rules
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

RULES: dict[str, Any] = {
    "steps": 12, "tail": 3, "prior_weight": 0.1, "lr": 0.2, "views": 3, "micro_batch": 4, "restart_from": 4,
    "restart_every": 3, "ema_decay": 0.6, "gradient_noise": 0.1,
}  # fmt: skip


@dataclass(frozen=True)
class Wavering:
    """A balancer that remembers: it adds what it said before."""

    memory: Memory = field(default_factory=dict)

    def with_memory(self, memory: Memory) -> Wavering:
        return replace(self, memory=memory)

    def __call__(self, rows: Mapping[str, Latent], weights: Mapping[str, Tensor], pull: Latent | None) -> Latent:
        now = balance.norm(rows, weights, pull)
        before = self.memory.get("balancer/said", torch.zeros_like(now))
        self.memory["balancer/said"] = now.to(memory_format=torch.channels_last)  # as some libraries lay theirs out
        return now + 0.5 * before


def play(state: State | None = None, n: int = 2, **over: Any) -> list[tuple[Step, State]]:
    seats = [Seat("a", ToyReferee()), Seat("b", ToyReferee(6), every=5), Seat("c", ToyReferee(4), until=0.4)]
    steps = invert(
        "red", seats, ToyPrior(), rules=Rules(**{**RULES, **over}), augmentation=ToyAugmentation(),
        balancer=Wavering(), seeds=range(3, 3 + n), size=(8, 8), state=state,
    )  # fmt: skip
    return [(step, step.state()) for step in steps if step.state]


def through_a_file(state: State) -> State:
    return State.from_tensors(safetensors.torch.load(safetensors.torch.save(state.to_tensors())))


def same(one: Step, other: Step) -> bool:
    maps = one.maps.keys() == other.maps.keys() and all(torch.equal(one.maps[m], other.maps[m]) for m in one.maps)
    latents = torch.equal(one.z, other.z) and torch.equal(one.image, other.image)
    return latents and maps and numbers(one) == numbers(other)


@pytest.mark.parametrize("update", ["adam", "sgd"])
def test_a_run_goes_on_bit_for_bit_from_any_step(update: str) -> None:
    """Restarts after steps 4 and 7 (from 1) lie between, and a tail of three."""
    whole = play(update=update)
    assert [step.maps.keys() for step, _ in whole if step.maps] == [{"a", "b", "c", "prior"}]  # each one's last map
    for cut, (_, state) in enumerate(whole, 1):
        rest = play(through_a_file(state), update=update)
        assert [step.k for step, _ in rest] == list(range(cut, 12))
        assert all(same(step, other) for (step, _), (other, _) in zip(rest, whole[cut:], strict=True)), cut


def test_each_part_of_the_state_counts() -> None:
    """Without any one of them the run would be another: so the test above looks at all."""
    whole = play()
    state, last = whole[5][1], whole[-1][0]
    assert set(state.moments) == {"step", "exp_avg", "exp_avg_sq"}
    assert set(state.memory) == {"panel/b", "balancer/said"}
    rows, said = ({name: t for name, t in state.memory.items() if name.startswith(who)} for who in ("panel", "bal"))
    for lacking in (
        replace(state, z=state.ema), replace(state, ema=state.z), replace(state, moments={}),
        replace(state, memory=rows), replace(state, memory=said),
    ):  # fmt: skip
        assert not torch.equal(play(lacking)[-1][0].z, last.z)


def test_a_state_is_a_copy_and_is_not_written_to() -> None:
    whole = play()
    before = {name: t.clone() for name, t in whole[3][1].to_tensors().items()}
    play(whole[3][1])
    after = whole[3][1].to_tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_another_micro_batch_changes_rounding_alone() -> None:
    whole = play()
    rest = play(whole[5][1], micro_batch=1)
    assert torch.allclose(rest[-1][0].z, whole[-1][0].z, atol=1e-4)


def test_a_finished_state_has_no_step_left() -> None:
    assert play(play()[-1][1]) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"k": 13}, "lies after step 13; this run has 12"),
        ({"k": -1}, "lies after step -1"),
        ({"z": torch.zeros(2, 3, 5, 4)}, r"z is \(2, 3, 5, 4\) torch.float32; this run needs \(2, 3, 4, 4\)"),
        ({"ema": torch.zeros(2, 3, 4, 4).double()}, "ema is .* torch.float64"),
        ({"moments": {"exp_avg": torch.zeros(3)}}, "moment 'exp_avg' is not of the latent's shape"),
    ],
)
def test_a_state_of_another_run_is_refused(change: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=text):
        play(replace(play()[2][1], **change))


def test_a_table_that_is_no_state_is_refused() -> None:
    with pytest.raises(OptionError, match="has no 'ema'"):
        State.from_tensors({"k": torch.tensor(1), "z": torch.zeros(1)})


class Blind(ToyPrior):
    """Decodes to no numbers at all at the steps 2 and 3: its second and third call with a graph."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def decode(self, z: Latent) -> Tensor:
        self.calls += z.requires_grad and torch.is_grad_enabled()
        return super().decode(z) * (torch.nan if self.calls in (3, 4) else 1)


def test_a_picture_without_numbers_makes_everybody_sit_out() -> None:
    steps = list(invert("red", [Seat("a", ToyReferee())], Blind(), rules=Rules(**RULES), size=(8, 8)))
    assert [bool(step.sat_out["a"].all()) for step in steps[:6]] == [False, False, True, True, False, False]
    assert all(step.z.isfinite().all() for step in steps)


class Fails(ToyReferee):
    """Fails at its second call, in the way that it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error, self.calls = error, 0

    def read(self, prompt: Prompt) -> Any:
        plain = super().read(prompt)

        def loss(views: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 2:
                raise self.error
            return plain(views)

        return loss


class Lost(ToyPrior):
    def read(self, prompt: Prompt) -> Pull:
        def pull(z: Latent, progress: Progress, generators: Any) -> Latent:
            raise IndexError("no such timestep")

        return pull


def fail(error: BaseException) -> list[Step]:
    return list(invert("red", [Seat("toy", Fails(error))], ToyPrior(), rules=Rules(**RULES), size=(8, 8)))


@pytest.mark.parametrize("error", [KeyError("tokens"), SystemExit(0), RuntimeError("CUDA error: an illegal access")])
def test_who_fails_at_a_step_is_named(error: BaseException) -> None:
    with pytest.raises(PluginError, match=rf"'toy' failed at step 1: {type(error).__name__}: .* \(test_state.py, "):
        fail(error)
    with pytest.raises(PluginError, match="'prior' failed at step 0: IndexError: no such timestep"):
        list(invert("red", [], Lost(), rules=Rules(**RULES), size=(8, 8)))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OptionError("x")])
def test_what_is_nobodys_fault_is_left_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)):
        fail(error)
