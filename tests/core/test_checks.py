"""Every check can fail: each kind's toy passes them all, and a part with one fault fails the one that looks for it."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor, nn

from referee import balance
from referee.contract import Image, Latent, Loss, Progress, Prompt, Pull, Views
from referee.errors import OptionError, PromptError, WeightsError
from referee.hooks import Checkpoint, NoOptions, Place, Spec, ZooFile, ZooSpec, hookimpl
from referee.plugins import Registry
from referee.testing import (
    CheckFailed,
    Outcome,
    ToyAugmentation,
    ToyPrior,
    ToyReferee,
    augmentations,
    balancers,
    check_augmentation,
    check_balancer,
    check_prior,
    check_referee,
    check_zoo,
    priors,
    referees,
    zoos,
)
from referee.testing.checks import examine, examine_zoo
from referee.testing.probe import apart, in_double, modules_in, pictures

pytest_plugins = ["referee.testing.fixtures"]

EXAMINED: dict[str, Any] = {
    "referee": (referees, ToyReferee), "prior": (priors, ToyPrior), "augmentation": (augmentations, ToyAugmentation),
    "balancer": (balancers, lambda: balance.norm),
}  # fmt: skip
CALLED_FROM_HERE = ["imports_nothing_heavy"]  # this module imports torch, and all of it


def spec(make: Callable[[], Any], options: type[BaseModel] = NoOptions) -> Spec:
    return Spec("part", "", lambda chosen, place: make(), options)


def outcomes(kind: Any, made: Spec, **asked: Any) -> dict[str, Outcome]:
    found = examine(kind, made, asked.pop("options", {}), **{"skip": CALLED_FROM_HERE, **asked})
    return {outcome.check: outcome for outcome in found}


@pytest.mark.parametrize("kind", EXAMINED)
def test_the_toys_pass(kind: str) -> None:
    module, make = EXAMINED[kind]
    found = outcomes(kind, spec(make))
    assert [outcome for outcome in found.values() if outcome.status == "failed"] == []
    assert list(found) == [check.__name__ for check in module.CHECKS]
    skipped = {name for name, outcome in found.items() if outcome.status == "skipped"}
    # As asked; and no toy has a model or a way of its own to look at pictures.
    assert skipped - {"views_whole_pictures"} == {"imports_nothing_heavy", "is_frozen"}


# --- a fault for every check ---


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
def test_a_referee_with_a_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, says, make = REFEREES[fault]
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        found = outcomes("referee", spec(make))
    assert found[check].status == "failed", found[check]
    with pytest.raises(AssertionError, match=f"(?s){says}"):
        raise AssertionError(found[check].says)


def test_a_whole_model_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = outcomes("referee", spec(lambda: Says(lambda model, views: model(views), frozen(Small(norm=True)))))
    assert [outcome for outcome in found.values() if outcome.status == "failed"] == []
    assert found["is_frozen"].status == "ok"
    assert found["gradient_is_the_slope"].says == "in float64"
    assert "ms" in found["costs"].says


@pytest.mark.parametrize(
    ("view", "status"),
    [
        (lambda x: nn.functional.interpolate(x, (8, 8)), "ok"),
        (lambda x: x[..., :8, :6], "failed"),
        (lambda x: nn.functional.interpolate(x, (8, 8)).detach(), "failed"),
    ],
)
def test_a_view_of_its_own_is_looked_at(view: Callable[[Tensor], Tensor], status: str) -> None:
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


def test_another_type_must_agree_or_be_refused() -> None:
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


def test_a_prompt_that_is_refused_is_no_fault() -> None:
    class Red(ToyReferee):
        def read(self, prompt: Prompt) -> Loss:
            if "red" not in prompt.text:
                raise PromptError("red alone")
            return super().read(prompt)

    found = outcomes("referee", spec(Red))["keeps_prompts_apart"]
    assert (found.status, "red alone" in found.says) == ("skipped", True)


def test_a_part_that_raises_is_caught_with_its_place() -> None:
    def fails(views: Tensor) -> Tensor:
        raise KeyError("text")

    found = outcomes("referee", spec(calls(fails)))["gives_one_number_per_view"]
    assert found.status == "failed"
    assert found.says.startswith("It raised KeyError: 'text' (test_checks.py, line ")


# --- options and imports, for all kinds ---


class Loose(BaseModel):
    model_config = ConfigDict(frozen=True)


class Soft(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Odd(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    a: int = 1


class Once(BaseModel):
    """Comes back from a dump as another."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    how: Any = Field(default=print, description="not data")
    what: Any = Field(default_factory=lambda: lambda x: x, description="not data")


OPTIONS: dict[str, tuple[type[BaseModel], str, str]] = {
    "extra": (Loose, "options_are_strict", "a misspelt one would do nothing"),
    "mutable": (Soft, "options_are_strict", "can be changed after it was checked"),
    "bare": (Odd, "options_are_described", "a: no description"),
    "no data": (Once, "options_round_trip", r"do not come back from model_dump\(mode='json'\)"),
}


@pytest.mark.parametrize("fault", OPTIONS)
@pytest.mark.parametrize("kind", EXAMINED)
def test_options_with_a_fault_are_caught(kind: str, fault: str) -> None:
    model, check, says = OPTIONS[fault]
    found = outcomes(kind, spec(EXAMINED[kind][1], model))[check]
    assert found.status == "failed"
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)


def test_options_that_cannot_be_pickled_are_caught() -> None:
    class Local(BaseModel):  # pickle finds classes by their place in a module
        model_config = ConfigDict(extra="forbid", frozen=True)
        a: int = Field(1, description="a")

    found = outcomes("referee", spec(ToyReferee, Local))["options_round_trip"]
    assert "cannot be pickled for another process" in found.says


def plugin_file(folder: Path, line: str, monkeypatch: pytest.MonkeyPatch) -> Spec:
    """The spec of a plug-in in a module of its own, which begins with that line."""
    code = f"{line}\n\ndef make(options, place):\n    from referee.testing import ToyReferee\n    return ToyReferee()\n"
    (folder / "stranger_checked.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stranger_checked", raising=False)
    return Spec("part", "", importlib.import_module("stranger_checked").make)


def test_heavy_imports_are_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heavy = outcomes("referee", plugin_file(tmp_path, "import torch", monkeypatch), skip=[])["imports_nothing_heavy"]
    assert heavy.status == "failed"
    assert "Importing stranger_checked imports numpy, torch: every start" in heavy.says
    light = outcomes("referee", plugin_file(tmp_path, "import json", monkeypatch), skip=[])["imports_nothing_heavy"]
    assert light.status == "ok"
    assert "ms beyond referee's own" in light.says
    broken = plugin_file(tmp_path, "import json", monkeypatch)
    (tmp_path / "stranger_checked.py").write_text("import no_such_library_at_all")
    found = outcomes("referee", broken, skip=[])["imports_nothing_heavy"]
    assert "cannot be imported alone: ModuleNotFoundError: No module named 'no_such_library_at_all'" in found.says


# --- priors ---


class Bad(ToyPrior):
    """A toy prior with one thing done otherwise."""

    def __init__(self, **otherwise: Any) -> None:
        super().__init__()
        self.otherwise = otherwise

    def latent_shape(self, height: int, width: int) -> Any:
        return self.otherwise.get("shape", super().latent_shape)(height, width)

    def decode(self, z: Latent) -> Image:
        return self.otherwise["decode"](super().decode(z)) if "decode" in self.otherwise else super().decode(z)

    def encode(self, x: Image) -> Latent:
        return self.otherwise["encode"](super().encode(x)) if "encode" in self.otherwise else super().encode(x)

    def read(self, prompt: Prompt) -> Pull:
        inner = super().read(prompt)

        def pull(z: Latent, progress: Progress, generators: Sequence[Generator]) -> Latent:
            given = inner(z, progress, generators)
            return self.otherwise["pull"](given, z, progress, generators) if "pull" in self.otherwise else given

        return pull


def in_place(pull: Tensor, z: Tensor, progress: Progress, generators: Any) -> Tensor:
    z += 1
    return pull


PRIORS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "no prior": ("keeps_the_contract", "is no prior: it needs latent_shape", None),
    "two numbers": ("latent_shape_fits", "three ints above 0", {"shape": lambda h, w: (h // 2, w // 2)}),
    "takes all": ("latent_shape_fits", "takes the size 65 x 67 and draws", {"shape": lambda h, w: (3, h // 2, w // 2)}),
    "any error": (
        "latent_shape_fits",
        "ends in ZeroDivisionError",
        {"shape": lambda h, w: (3, 32, 32) if (h, w) == (64, 64) else 1 // 0},
    ),
    "range": ("decodes_images", r"expected is \[0, 1\]", {"decode": lambda x: x * 2 - 1}),
    "grey": (
        "decodes_images",
        r"expected is torch.float32 \(3, 3, 64, 64\)",
        {"decode": lambda x: x.mean(1, keepdim=True)},
    ),
    "detached": ("decode_has_a_gradient", "carries no gradient", {"decode": lambda x: x.detach()}),
    "rounded": ("decode_has_a_gradient", "zero or not finite", {"decode": lambda x: (x * 255).round() / 255}),
    "encoded shape": ("encodes_latents", "An image is encoded to", {"encode": lambda z: z[:, :2]}),
    "encoded draw": ("encodes_latents", "take the mean, do not sample", {"encode": lambda z: z + torch.randn(z.shape)}),
    "one draw": (
        "rows_stand_alone",
        "The pull of a row depends on its batch",
        {"pull": lambda p, z, k, g: p + torch.randn(z.shape, generator=g[0])},
    ),
    "batch's mean": ("rows_stand_alone", "The image of a row depends", {"decode": lambda x: (x + x.mean(0)) / 2}),
    "batch's latent": ("rows_stand_alone", "The latent of a row depends", {"encode": lambda z: z - z.mean(0)}),
    "pull's shape": ("pull_is_a_detached_gradient", "The pull has the shape", {"pull": lambda p, z, k, g: p[:, :2]}),
    "pull's graph": ("pull_is_a_detached_gradient", "carries a graph", {"pull": lambda p, z, k, g: p.requires_grad_()}),
    "pull's end": ("pull_is_a_detached_gradient", "At step 9 of 10", {"pull": lambda p, z, k, g: p / (9 - k.k)}),
    "in place": ("pull_is_a_detached_gradient", "changes z in place", {"pull": in_place}),
    "global draw": ("leaves_global_seeds_alone", "It draws", {"pull": lambda p, z, k, g: p + torch.randn(z.shape)}),
    "no repetition": ("repeats_itself", "Two calls", {"pull": lambda p, z, k, g: p + torch.randn(z.shape)}),
}


@pytest.mark.parametrize("fault", PRIORS)
def test_a_prior_with_a_fault_is_caught(fault: str) -> None:
    check, says, otherwise = PRIORS[fault]
    found = outcomes("prior", spec(object if otherwise is None else lambda: Bad(**otherwise)))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)


# --- augmentations ---


def each(function: Callable[[Image, Sequence[Generator]], Views]) -> Callable[[], Any]:
    return lambda: function


def drawn(x: Image, generator: Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator)


AUGMENTATIONS: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "not callable": ("keeps_the_contract", "is no augmentation", object),
    "resized": ("keeps_shape_and_type", "of the same size", each(lambda x, g: x[..., :32, :32])),
    "type": ("keeps_shape_and_type", "same size, type", each(lambda x, g: x.double())),
    "in place": (
        "keeps_shape_and_type",
        "changes the image in place",
        each(lambda x, g: x.mul_(0.5) if not x.requires_grad else x * 0.5),
    ),
    "normalised": ("stays_in_range", "Normalising is the referee's own business", each(lambda x, g: (x - 0.5) / 0.2)),
    "nan": ("stays_in_range", "NaN", each(lambda x, g: x / 0 - x / 0)),
    "one generator": ("row_draws_from_its_own_generator", "batched with", each(lambda x, g: x + drawn(x, g[0]))),
    "batch": ("row_draws_from_its_own_generator", "batched with", each(lambda x, g: x - x.mean(0))),
    "threshold": ("gradient_reaches_the_image", "zero or not finite", each(lambda x, g: x.round())),
    "detached": ("gradient_reaches_the_image", "carry no gradient", each(lambda x, g: x.detach() * 1)),
    "no repetition": ("repeats_itself", "Two calls", each(lambda x, g: x + torch.randn(x.shape))),
    "global draw": ("leaves_global_seeds_alone", "It draws", each(lambda x, g: x + torch.randn(x.shape))),
}


@pytest.mark.parametrize("fault", AUGMENTATIONS)
def test_an_augmentation_with_a_fault_is_caught(fault: str) -> None:
    check, says, make = AUGMENTATIONS[fault]
    found = outcomes("augmentation", spec(make))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)


# --- balancers ---

Rows = Mapping[str, Tensor]


def weighted(rows: Rows, weights: Rows) -> Tensor:
    return torch.stack([weights[name][:, None, None, None] * g for name, g in rows.items()]).sum(0)


def first(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return next(iter(rows.values())) * 1


def batch_length(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    push = balance.mean_direction(rows, weights)
    return push / push.norm()


def unweighted(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return balance.norm(rows, {name: torch.ones(len(g)) for name, g in rows.items()}, pull)


def shouting(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return weighted(rows, weights)


def unguarded(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    push = weighted({n: torch.where(g.isfinite(), g, 0.0) for n, g in rows.items()}, weights)
    return push / push.flatten(1).norm(dim=1)[:, None, None, None]


def consuming(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    for g in rows.values():
        g.mul_(2)
    return balance.norm(rows, weights, pull)


BALANCERS: dict[str, tuple[str, str, Any]] = {
    "not callable": ("keeps_the_contract", "is no balancer", 3),
    "shape": ("keeps_the_contract", "The push has the shape", lambda rows, w, p: next(iter(rows.values()))[:1]),
    "in place": ("keeps_the_contract", "changes the gradients in place", consuming),
    "infinite": ("keeps_the_contract", "not finite", lambda rows, w, p: first(rows, w, p) / 0),
    "order": ("order_does_not_matter", "Named in another order", first),
    "sign": ("one_referee_is_followed", "cosine of -1.000", lambda rows, w, p: -balance.norm(rows, w, p)),
    "batch": ("samples_stand_alone", "per sample", batch_length),
    "weights": ("weight_0_is_absence", "A referee of weight 0 moves the push", unweighted),
    "nan": ("bears_bad_rows", "NaN gradient of weight 0", shouting),
    "length": ("bears_bad_rows", "all zero make the push not finite", unguarded),
    "global draw": ("leaves_global_seeds_alone", "It draws", lambda r, w, p: shouting(r, w, p) + torch.randn(())),
    "no repetition": ("repeats_itself", "Two calls", lambda r, w, p: shouting(r, w, p) + torch.randn(())),
}


@pytest.mark.parametrize("fault", BALANCERS)
def test_a_balancer_with_a_fault_is_caught(fault: str) -> None:
    check, says, rule = BALANCERS[fault]
    found = outcomes("balancer", spec(lambda: rule))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)


# --- zoos ---


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = Field("", description="a folder")


PRESET = 'height = 16\nwidth = 16\n[prior]\nname = "toy"\n[[referees]]\nname = "toy"\n'


def shelf(part: str = "toy", file: str = "test_checks.py", **options: str) -> Callable[[], tuple[Checkpoint, ...]]:
    one = Checkpoint("toy", Path(__file__).parent, (ZooFile(file),) if file else (), {part: options}, mend="Fetch it.")
    return lambda: (one,)


ZOO = ZooSpec("toys", "", "toys", shelf(model="here"), {"toys": PRESET})


@pytest.fixture
def table() -> Registry:
    class Toys:
        @hookimpl
        def referee_referees(self, register: Any) -> None:
            def look(options: Model) -> None:
                if options.model == "cut":
                    raise WeightsError("model.safetensors is cut short.")

            register(Spec("toy", "", lambda o, p: ToyReferee(), Model, look))

        @hookimpl
        def referee_priors(self, register: Any) -> None:
            register(Spec("toy", "", lambda o, p: ToyPrior(), Model))

    registry = Registry()
    assert registry.add(Toys(), "toys").status == "active"
    return registry


def offered(registry: Registry, zoo: ZooSpec) -> ZooSpec:
    class Zoo:
        @hookimpl
        def referee_zoos(self, register: Any) -> None:
            register(zoo)

    assert registry.add(Zoo(), "zoo").status == "active"
    return zoo


def nothing(prompt: str) -> None:
    raise PromptError("draws nothing")


ZOOS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "files": ("files_are_whole", "failed", "is missing", {"checkpoints": shelf(file="no.bin", model="x")}),
    "no files": ("files_are_whole", "skipped", "list no files", {"checkpoints": shelf(file="")}),
    "no mend": (
        "files_are_whole",
        "failed",
        "says no mend",
        {"checkpoints": lambda: (replace(shelf()()[0], mend=""),)},
    ),
    "preset": ("presets_are_settings", "failed", "There is no preset 'other'", {"preset": "other"}),
    "toml": ("presets_are_settings", "failed", "'bad' cannot be used", {"presets": {"toys": PRESET, "bad": "a = "}}),
    "setting": ("presets_are_settings", "failed", "no 'stepz'", {"presets": {"toys": PRESET, "bad": "stepz = 1"}}),
    "part": ("checkpoints_fit_parts", "failed", "which no plug-in offers", {"checkpoints": shelf("no")}),
    "option": ("checkpoints_fit_parts", "failed", "there is no 'folder'", {"checkpoints": shelf(folder="x")}),
    "cut": ("checkpoints_fit_parts", "failed", "cut short", {"checkpoints": shelf(model="cut")}),
    "start": ("a_run_would_start", "failed", "cut short", {"checkpoints": shelf(model="cut")}),
    "words": ("a_run_would_start", "skipped", "draws nothing", {"check_prompt": nothing}),
}


def test_a_whole_zoo_passes(table: Registry) -> None:
    assert {outcome.status for outcome in check_zoo(offered(table, ZOO), table)} == {"ok"}
    assert [check.__name__ for check in zoos.CHECKS] == [outcome.check for outcome in examine_zoo(ZOO, table)]


@pytest.mark.parametrize("fault", ZOOS)
def test_a_zoo_with_a_fault_is_caught(fault: str, table: Registry) -> None:
    check, status, says, changes = ZOOS[fault]
    found = {outcome.check: outcome for outcome in examine_zoo(offered(table, replace(ZOO, **changes)), table)}[check]
    assert found.status == status
    assert says in found.says
    if status == "failed":
        with pytest.raises(CheckFailed, match=says):
            check_zoo(replace(ZOO, **changes), table)


# --- the doors ---


def test_the_doors_raise_with_all_that_failed() -> None:
    with pytest.raises(CheckFailed) as caught:
        check_referee(spec(lambda: Says(noisy)), skip=CALLED_FROM_HERE)
    assert "repeats_itself: " in str(caught.value)
    assert "\n\nleaves_global_seeds_alone: " in str(caught.value)
    with pytest.raises(CheckFailed, match="stays_in_range"):
        check_augmentation(spec(AUGMENTATIONS["normalised"][2]), skip=CALLED_FROM_HERE)
    with pytest.raises(CheckFailed, match="order_does_not_matter"):
        check_balancer(spec(lambda: first), skip=CALLED_FROM_HERE)
    with pytest.raises(CheckFailed, match="decodes_images"):
        check_prior(spec(lambda: Bad(decode=lambda x: x - 1)), skip=CALLED_FROM_HERE)


def test_the_doors_take_options_and_refuse_wrong_ones() -> None:
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        input_size: int = Field(8, description="pixels")

    def look(options: Options) -> None:
        if options.input_size > 100:
            raise OptionError("too large")

    made = Spec("toy", "", lambda o, p: ToyReferee(o.input_size), Options, look)
    found = check_referee(made, {"input_size": 12}, skip=[*CALLED_FROM_HERE, "options_round_trip"])
    assert "views of 12 x 12 pixels" in [outcome.says for outcome in found]
    with pytest.raises(OptionError, match="referee 'toy': there is no 'input_sise'"):
        check_referee(made, {"input_sise": 12})
    with pytest.raises(OptionError, match="too large"):
        check_referee(made, {"input_size": 120})
    with pytest.raises(OptionError, match=r"no check 'cost' to skip\. Did you mean 'costs'"):
        check_referee(made, skip=["cost"])


# --- what they look with ---


def test_models_are_found_wherever_they_are_held() -> None:
    model = nn.Linear(1, 1)

    class Slotted:
        __slots__ = ("inner",)

        def __init__(self) -> None:
            self.inner = {"deep": [model]}

    assert modules_in(Slotted()) == [model]
    assert modules_in(lambda x: model(x)) == [model]
    assert modules_in(model.forward) == [model]
    assert modules_in(ToyReferee()) == []
    library = nn

    def uses_a_library() -> Any:
        return library

    assert modules_in(uses_a_library) == []  # its imports are not its own


def test_models_come_back_from_double_with_the_same_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with in_double([model]):
        assert model[0].weight.dtype == torch.float64
        assert model.eval()(torch.zeros(2, 3).double()).dtype == torch.float64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.dtype == torch.float32


def test_pictures_are_pictures() -> None:
    x = pictures(2, 16, 24)
    assert x.shape == (2, 3, 16, 24)
    assert x.min() >= 0.05
    assert x.max() <= 0.95
    assert x.std() > 0.1
    assert torch.equal(x, pictures(2, 16, 24))
    assert apart(x, x) == 0
    assert apart(x, x[:1]) == float("inf")


def test_fixtures(registry: Registry, toy_prior: ToyPrior, toy_image: Tensor) -> None:
    assert registry.plugins == []
    assert toy_prior.encode(toy_image).shape == (1, *toy_prior.latent_shape(64, 64))
