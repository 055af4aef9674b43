"""What a run would cost, told beforehand and without weights: per part parameters, FLOPs and memory, and of the whole.

The parts are built as their configurations say, without weights (`referee.hooks.Place.weights`), and each call of
Algorithm 1 is made once under a `referee.planning.meter.Meter`: the decoder forward and backward, the prior's pull,
each referee forward and backward on a micro-batch of views.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from referee import zoos
from referee.contract import Prior, Progress, Referee
from referee.errors import NothingToJudge, OptionError, PluginError, RefereeError, where
from referee.gradients import ViewPlan, resize
from referee.hooks import Checkpoint, Place, ZooSpec
from referee.parts import Order, make, ordered
from referee.planning.meter import Meter, no_numbers, weights
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.randomness import generators
from referee.seat import is_turn
from referee.settings import JudgePart, RefereePart, Settings


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one part.

    Attributes:
        name: at the table; "prior" of the prior.
        kind: "prior", "referee" or "judge".
        numbers: parameters and buffers.
        weights: their bytes.
        flop: what it computes in a step at which it is asked, by call: "decode", "backward", "pull", "views",
            "verdict".
        peak: bytes that its largest call needs at a time beside weights and ``kept``.
        kept: bytes of the decoder's graph, which lives while referees play; of the prior alone.
        rests: its weights lie in the CPU's memory between its turns.
    """

    name: str
    kind: str
    numbers: int
    weights: int
    flop: dict[str, int]
    peak: int
    kept: int = 0
    rests: bool = False


@dataclass(frozen=True, slots=True)
class Forecast:
    """What settings cost.

    Attributes:
        settings: for which it holds.
        parts: the prior, then the referees in their order, then the judge.
        step: FLOPs of a step at which everybody plays.
        run: FLOPs of all steps.
    """

    settings: Settings
    parts: tuple[Cost, ...]
    step: int
    run: int

    @property
    def weights(self) -> int:
        """Bytes of all weights."""
        return sum(part.weights for part in self.parts)

    @property
    def at_once(self) -> int:
        """Bytes of the weights on a device with a memory of its own: of those that rest, one part's at a time."""
        resting = [part.weights for part in self.parts if part.rests]
        return self.weights - sum(resting) + max(resting, default=0)

    def need(self, apart: bool) -> int:
        """Bytes of weights and of the rest of a step at its worst; ``apart``: on a memory that is not the CPU's."""
        return (self.at_once if apart else self.weights) + self.activations

    @property
    def activations(self) -> int:
        """Bytes beside the weights at the worst moment: one call's, on top of the decoder's graph."""
        return self.parts[0].kept + max(part.peak for part in self.parts)


class Scales:
    """Weighs settings; remembers what it has weighed, so that trying others is cheap.

    Args:
        registry: the plug-ins.
        prompt: as long as the run's.
        zoo: of the settings.
        shelf: its checkpoints, see `outlined`.
    """

    def __init__(self, registry: Registry, prompt: Prompt, zoo: ZooSpec | None, shelf: Sequence[Checkpoint]) -> None:
        self._registry, self._prompt, self._zoo, self.shelf = registry, prompt, zoo, shelf
        self._made: dict[str, Any] = {}
        self._found: dict[str, Cost] = {}

    def weigh(self, settings: Settings) -> Forecast:
        """The cost of settings.

        Raises:
            OptionError: there is no prior.
            PluginError: a part is unknown, or cannot be weighed.
            WeightsError: a part's configuration is not there.
        """
        if settings.prior is None:
            raise OptionError("No prior is named, and it owns the latent space: add --prior NAME or a preset with one.")
        plan = ordered(settings, self._registry, self.shelf, self._zoo)
        assert plan.prior
        parts = [self._prior(plan.prior, settings)]
        seen: set[str] = set()
        for part, order in zip(settings.referees, plan.referees, strict=True):
            cost, model = self._referee(part, order, settings), f"{order.spec.name} {order.options!r} {part.offload}"
            shared = part.region is not None and model in seen  # see `referee.parts.seats_of`
            parts.append(replace(cost, numbers=0, weights=0) if shared else cost)
            seen.add(model)
        if settings.judge and plan.judge:
            parts.append(self._judge(settings.judge, plan.judge, settings))
        return Forecast(settings, tuple(parts), *_sums(settings, parts))

    def _make(self, order: Order, settings: Settings, kind: type) -> Any:
        key = f"{kind.__name__} {order.spec.name} {order.options!r} {settings.dtype}"
        if key not in self._made:
            with no_numbers():
                self._made[key] = make(order, Place("cpu", settings.dtype, weights=False), kind)
        return self._made[key]

    def _prior(self, order: Order, settings: Settings) -> Cost:
        key = f"{order.options!r} {settings.dtype} {settings.height} {settings.width} {len(settings.seeds)}"
        if key not in self._found:
            made = self._make(order, settings, Prior)
            with _blamed("prior"):
                self._found[key] = prior_cost(made, self._prompt, settings)
        return self._found[key]

    def _referee(self, part: RefereePart, order: Order, settings: Settings) -> Cost:
        views = _views(part, settings)
        batch = min(views, settings.rules.micro_batch)
        sizes = f"{len(settings.seeds)} {views} {batch} {settings.height} {settings.width}"
        key = f"{part!r} {order.options!r} {settings.dtype} {sizes}"
        if key not in self._found:
            made = self._make(order, settings, Referee)
            with _blamed(part.title):
                self._found[key] = referee_cost(part, made, self._prompt, settings)
        return self._found[key]

    def _judge(self, part: JudgePart, order: Order, settings: Settings) -> Cost:
        made = self._make(order, settings, Referee)
        with _blamed(part.title):
            return judge_cost(part, made, self._prompt, settings)


def prior_cost(prior: Prior, prompt: Prompt, settings: Settings) -> Cost:
    """A prior without numbers: one decoding forward and backward, one pull."""
    plays, seeds, meter = settings.rules.prior_weight.most > 0, settings.seeds, Meter()
    flop: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of prompts too long: the run will say it
        pull = prior.read(prompt) if plays else None
    with no_numbers(), torch.set_grad_enabled(bool(settings.referees)):
        z = torch.zeros(len(seeds), *prior.latent_shape(settings.height, settings.width), requires_grad=True)
        with meter:
            x = prior.decode(z)
            flop["decode"], kept, peaks = meter.flop, meter.now, [meter.peak]
            if pull:
                meter.restart()
                pull(z.detach(), Progress(0, settings.rules.steps), generators(seeds, 0, "prior"))
                flop["pull"] = meter.flop
                peaks.append(meter.peak)
            if settings.referees:
                meter.restart()
                torch.autograd.grad(x, z, torch.ones_like(x), retain_graph=True)
                flop["backward"] = meter.flop
                peaks.append(meter.peak)
    return Cost("prior", "prior", *weights(prior), flop, max(peaks) - kept, kept)


def referee_cost(part: RefereePart, referee: Referee, prompt: Prompt, settings: Settings) -> Cost:
    """A referee without numbers: one micro-batch of views, forward and backward.

    The views are plain. What an augmentation adds is small, and its paths may hang on its draws.
    """
    views = _views(part, settings)
    plan = ViewPlan(settings.seeds, 0, views // len(settings.seeds), settings.rules.micro_batch, None)
    portion, size, meter = plan.portions()[0], referee.input_size, Meter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loss = referee.read(Prompt(part.prompt) if part.prompt is not None else prompt)
        except NothingToJudge:  # it sits the run out
            return Cost(part.title, "referee", *weights(referee), {"views": 0}, 0, rests=part.offload)
    with no_numbers():
        x = torch.zeros(len(settings.seeds), 3, settings.height, settings.width)
        with meter:
            leaf = resize(x, size).requires_grad_()
            torch.autograd.grad(loss(plan.views(leaf, portion)).sum(), leaf)
    flop = {"views": meter.flop * views // len(portion)}
    return Cost(part.title, "referee", *weights(referee), flop, meter.peak, rests=part.offload)


def judge_cost(part: JudgePart, judge: Referee, prompt: Prompt, settings: Settings) -> Cost:
    """A judge without numbers: the pictures, one after another, without gradient."""
    meter = Meter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loss = judge.read(Prompt(part.prompt) if part.prompt is not None else prompt)
    with no_numbers(), torch.no_grad():
        x = torch.zeros(1, 3, settings.height, settings.width)
        with meter:
            loss(resize(x, judge.input_size))
    return Cost(
        part.title,
        "judge",
        *weights(judge),
        {"verdict": meter.flop * len(settings.seeds)},
        meter.peak,
        rests=part.offload,
    )


def _views(part: RefereePart, settings: Settings) -> int:
    """Of all samples together."""
    has_own = settings.augmentation if part.aug is None else part.aug != "none"
    return len(settings.seeds) * ((part.views or settings.rules.views) if has_own else 1)


def _sums(settings: Settings, parts: Sequence[Cost]) -> tuple[int, int]:
    """FLOPs of a step at which everybody plays, and of all steps."""
    rules, prior = settings.rules, parts[0].flop
    referees = [part for part in parts if part.kind == "referee"]
    image = settings.balancer is not None and settings.balancer.space == "image"

    def step(seated: Sequence[Cost]) -> int:
        asked = [referee for referee in seated if referee.flop["views"]]  # others have nothing to judge
        passes = min(len(asked), 1) if image else len(asked)
        judged = sum(referee.flop["views"] for referee in asked)
        return prior["decode"] + prior.get("pull", 0) + passes * prior.get("backward", 0) + judged

    steered = rules.steps - rules.tail if rules.prior_weight.most > 0 else rules.steps
    run = 0
    for k in range(settings.first_step, rules.steps):
        playing = zip(settings.referees, referees, strict=True)
        run += step([cost for part, cost in playing if k < steered and _asked(part, k, rules.steps)])
    if settings.judge:
        verdicts = -(-rules.steps // settings.judge.every) - settings.first_step // settings.judge.every
        run += verdicts * (prior["decode"] + parts[-1].flop["verdict"])
    return step(referees), run


def _asked(part: RefereePart, k: int, steps: int) -> bool:
    """As a `referee.seat.Seat` is: in its time, with a weight, and when it is due."""
    plays = part.start <= k / steps < part.until and part.weight(k / steps) > 0
    return plays and is_turn(k, steps, part.start, part.every)


@contextmanager
def _blamed(name: str) -> Iterator[None]:
    """Whatever a part raises, but a RefereeError of its own, becomes one that names it."""
    try:
        yield
    except RefereeError:
        raise
    except Exception as error:
        raise PluginError(
            f"'{name}' cannot be weighed: {where(error)}. What a part computes must not hang on the values of its "
            "tensors: `.item()`, `if tensor:` and masks as indices have no answer without numbers."
        ) from error


@contextmanager
def outlined(zoo: ZooSpec | None) -> Iterator[tuple[Checkpoint, ...]]:
    """A zoo's checkpoints; those that are not on the disk are led to folders of their configurations alone."""
    with TemporaryDirectory(prefix="referee-plan-") as root:
        shelf = zoo.checkpoints() if zoo else ()
        yield tuple(_outline(checkpoint, Path(root) / checkpoint.name) for checkpoint in shelf)


def _outline(checkpoint: Checkpoint, folder: Path) -> Checkpoint:
    if checkpoint.outline is None or not any(zoos.faults(checkpoint)):
        return checkpoint
    for name, text in checkpoint.outline().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    before, after = str(checkpoint.folder), str(folder)
    options = {
        part: {key: after if value == before else value for key, value in own.items()}
        for part, own in checkpoint.options.items()
    }
    return replace(checkpoint, folder=folder, options=options)
