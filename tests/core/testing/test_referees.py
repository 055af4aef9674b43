"""Every check of a referee can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from referee.contract import Image, Loss, Prompt, Views
from referee.errors import OptionError, PromptError
from referee.hooks import Place, Spec
from referee.testing import (
    Outcome,
    ToyReferee,
)

Outcomes = Callable[..., dict[str, Outcome]]
Make = Callable[..., Spec]


class Small(nn.Module):
    """A convolution whose mean is the loss; with BatchNorm if asked."""

    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 4, 3)
        self.norm: nn.Module = nn.BatchNorm2d(4) if norm else nn.Identity()

    def forward(self, views: Tensor) -> Tensor:
        out: Tensor = self.norm(self.first(views)).tanh().square().mean((1, 2, 3))
        return out


class Says:
    """A referee whose loss is any function of (model, views)."""

    input_size = 8

    def __init__(self, score: Callable[[Any, Views], Any], model: Any = None) -> None:
        self.score, self.model = score, model

    def read(self, prompt: Prompt) -> Loss:
        return lambda views: self.score(self.model, views)


def frozen(model: nn.Module) -> nn.Module:
    return model.eval().requires_grad_(False)


def bright(views: Views) -> Tensor:
    return (1 - views).square().mean((1, 2, 3))


class Cut(torch.autograd.Function):
    """The identity, with a gradient of the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return -g


class Forgetful(ToyReferee):
    """Keeps the words in itself."""

    def read(self, prompt: Prompt) -> Loss:
        self.inner = super().read(prompt)
        return lambda views: self.inner(views)


class Growing(ToyReferee):
    """Reads the same prompt another way each time."""

    count = 0

    def read(self, prompt: Prompt) -> Loss:
        self.count += 1
        inner, share = super().read(prompt), self.count
        return lambda views: inner(views) * share


def half(model: Any, views: Views) -> Tensor:
    return bright(views[..., :4]) + bright(views[..., 4:].detach())


def noisy(model: Any, views: Views) -> Tensor:
    return bright(views + 0.1 * torch.randn(views.shape))


def numpys(model: Any, views: Views) -> Tensor:
    return bright(views) + 0 * np.random.rand()  # noqa: NPY002


def pythons(model: Any, views: Views) -> Tensor:
    return bright(views) + 0 * random.random()


def writes(model: Any, views: Views) -> Tensor:
    Path("views.txt").write_text("seen")
    return bright(views)


def seeded() -> Any:
    torch.manual_seed(0)
    return ToyReferee()


def calls(function: Callable[[Tensor], Tensor]) -> Callable[[], Any]:
    return lambda: Says(lambda model, views: function(views))


REFEREES: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "no referee": ("keeps_the_contract", "is no referee: it needs `input_size`", lambda: object()),
    "size": ("keeps_the_contract", "input_size is 0", lambda: ToyReferee(0)),
    "mean over views": ("gives_one_number_per_view", r"gave torch.float32 \(\); expected", calls(lambda v: v.mean())),
    "a number": ("gives_one_number_per_view", "gave float", lambda: Says(lambda model, v: float(v.detach().mean()))),
    "no gradient": ("gradient_reaches_the_pixels", "carries no gradient.*PIL", calls(lambda v: bright(v.detach()))),
    "other gradient": (
        "gradient_reaches_the_pixels",
        "does not depend on the views",
        calls(lambda v: torch.ones(len(v), requires_grad=True) * bright(v.detach())),
    ),
    "floor": ("gradient_reaches_the_pixels", "exactly 0.*a clamp, a hinge", calls(lambda v: bright(v).clamp_min(9))),
    "nan": (
        "gradient_reaches_the_pixels",
        "NaN or infinity",
        calls(lambda v: bright(v) + (v - v).square().sum((1, 2, 3)).sqrt()),
    ),
    "detached half": ("gradient_is_the_slope", "A part of the way is cut off", lambda: Says(half)),
    "straight through": ("gradient_is_the_slope", "not the slope", calls(lambda v: bright(v + (v * 2 - v).detach()))),
    "batch norm": (
        "scores_each_view_alone",
        "BatchNorm in training mode",
        lambda: Says(lambda m, v: m(v), Small(norm=True).requires_grad_(False)),
    ),
    "batch mean": (
        "scores_each_view_alone",
        "depends on what it is batched with",
        calls(lambda v: bright(v) / bright(v).mean()),
    ),
    "order": ("scores_each_view_alone", "depends on", calls(lambda v: bright(v) * (1 + torch.arange(len(v)) / len(v)))),
    "gradient's batch": (
        "scores_each_view_alone",
        "gradient depends on what it is batched with",
        calls(lambda v: bright(v) + (bright(v).sum() - bright(v).sum().detach())),
    ),
    "forgetful": ("keeps_prompts_apart", "the words are kept in the referee itself", Forgetful),
    "growing": ("keeps_prompts_apart", "the same prompt gives another loss", Growing),
    "deviation": (
        "bears_black_white_and_noise",
        "On a black view",
        calls(lambda v: bright(v) + v.flatten(1).var(1).sqrt()),
    ),
    "logarithm": (
        "bears_black_white_and_noise",
        "On a noisy view",
        calls(lambda v: (0.3 + v.mean((1, 2, 3)) + v.flatten(1).amin(1)).log()),
    ),
    "dropout": ("repeats_itself", "dropout", calls(lambda v: bright(nn.functional.dropout(v)))),
    "draws": ("repeats_itself", "global generator", lambda: Says(noisy)),
    "torch's seed": ("leaves_global_seeds_alone", "It draws from the global generator", lambda: Says(noisy)),
    "numpy's seed": ("leaves_global_seeds_alone", "numpy", lambda: Says(numpys)),
    "random's seed": ("leaves_global_seeds_alone", "random", lambda: Says(pythons)),
    "factory's seed": ("leaves_global_seeds_alone", "Its factory calls torch.manual_seed", seeded),
    "writes": ("writes_nothing", "changes the working directory: views.txt", lambda: Says(writes)),
    "wants gradients": (
        "is_frozen",
        "Conv2d.weight wants a gradient|first.weight wants a gradient",
        lambda: Says(lambda m, v: m(v), Small().eval()),
    ),
    "training": ("is_frozen", "in training mode", lambda: Says(lambda m, v: m(v), Small().requires_grad_(False))),
    "score": ("loss_falls", "lower must be better", calls(lambda v: bright(Cut.apply(v)))),
}


@pytest.mark.parametrize("fault", REFEREES)
def test_a_referee_with_a_fault_is_caught(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Make, outcomes: Outcomes
) -> None:
    check, says, make = REFEREES[fault]
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        found = outcomes("referee", spec(make))
    assert found[check].status == "failed", found[check]
    with pytest.raises(AssertionError, match=f"(?s){says}"):
        raise AssertionError(found[check].says)


def test_a_whole_model_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Make, outcomes: Outcomes) -> None:
    monkeypatch.chdir(tmp_path)
    found = outcomes("referee", spec(lambda: Says(lambda model, views: model(views), frozen(Small(norm=True)))))
    assert [outcome for outcome in found.values() if outcome.status == "failed"] == []
    assert found["is_frozen"].status == "ok"
    assert found["gradient_is_the_slope"].says == "in float64"
    assert re.fullmatch(
        r"loss on black [\d.]+, white [\d.]+, noise [\d.]+, noisy [\d.]+", found["bears_black_white_and_noise"].says
    )
    assert "ms" in found["costs"].says


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (lambda x: nn.functional.interpolate(x, (8, 8)), "ok"),
        (lambda x: x[..., :8, :6], "failed"),
        (lambda x: nn.functional.interpolate(x, (8, 8)).detach(), "failed"),
    ],
)
def test_a_view_of_its_own_is_looked_at(
    view: Callable[[Tensor], Tensor], status: str, spec: Make, outcomes: Outcomes
) -> None:
    class Viewing(ToyReferee):
        def view(self, image: Image) -> Views:
            return view(image)

    assert outcomes("referee", spec(Viewing))["views_whole_pictures"].status == status


class Half:
    """What computes in the place's type, badly: its loss is rounded to whole numbers there."""

    input_size = 8

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype

    def read(self, prompt: Prompt) -> Loss:
        if self.dtype == "float32":
            return bright
        return lambda views: bright(views) * 2 + 1


def test_another_type_must_agree_or_be_refused(spec: Make, outcomes: Outcomes) -> None:
    def refuse(options: Any, place: Place) -> Any:
        if place.dtype != "float32":
            raise OptionError("float32 alone")
        return ToyReferee()

    worse = outcomes("referee", Spec("part", "", lambda options, place: Half(place.dtype)))
    assert worse["agrees_in_bfloat16"].status == "failed"
    refused = outcomes("referee", Spec("part", "", refuse))["agrees_in_bfloat16"]
    assert (refused.status, refused.says) == ("skipped", "it refuses bfloat16: float32 alone")
    already = outcomes("referee", spec(ToyReferee), place=Place("cpu", "bfloat16"))["agrees_in_bfloat16"]
    assert already.status == "skipped"


def test_a_prompt_that_is_refused_is_no_fault(spec: Make, outcomes: Outcomes) -> None:
    class Red(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            if "red" not in prompt.text:
                raise PromptError("red alone")
            return super().read(prompt)

    found = outcomes("referee", spec(Red))["keeps_prompts_apart"]
    assert (found.status, "red alone" in found.says) == ("skipped", True)


def test_a_part_that_raises_is_caught_with_its_place(spec: Make, outcomes: Outcomes) -> None:
    def fails(views: Tensor) -> Tensor:
        raise KeyError("text")

    found = outcomes("referee", spec(calls(fails)))["gives_one_number_per_view"]
    assert found.status == "failed"
    assert found.says.startswith("It raised KeyError: 'text' (test_referees.py, line ")
