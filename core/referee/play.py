"""The Python door: `generate` draws, `score` judges a picture, `sample` shows the prior alone."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from referee import balance
from referee.balance import Cosines
from referee.canvas import Canvas, canvas
from referee.contract import Augmentation, Balancer, Encoder, Image, Latent, Prior, Prompt, Referee, Sampler
from referee.errors import OptionError, PluginError
from referee.init_image import STRENGTH, STRENGTH_MASKED, prepared
from referee.inversion import Step, invert
from referee.judging import Bench, Judge, Judgement, verdict
from referee.panel import Seat, Space, at_work
from referee.parts import Parts, assemble, check, of_kin
from referee.photo import flat, read_photo
from referee.plugins import Registry, discover
from referee.randomness import generators
from referee.rules import Rules
from referee.settings import NO_ZOO, Layer, build, preset
from referee.state import State


@dataclass(slots=True)
class Result:
    """What a run made.

    Attributes:
        prompt: as drawn.
        seeds: one per picture.
        images: (n, 3, H, W) in [0, 1], on the CPU.
        z: the latents they were decoded from; of a plain sample none, if the prior cannot encode.
        history: per step, what `referee.inversion.Step` says in numbers.
        complete: False if the run was interrupted; the images are then the best so far.
        maps: where on the picture each referee and the prior pulled at the last step that referees steered, (n, H, W),
            on the CPU: see `referee.inversion.Step`.
        judged: what came of the judge, if there was one.
    """

    prompt: Prompt
    seeds: tuple[int, ...]
    images: Image
    z: Latent
    history: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = True
    maps: dict[str, Float[Tensor, "n H W"]] = field(default_factory=dict)
    judged: Judgement | None = None

    @property
    def steps(self) -> int:
        """Steps done, with those that a run leaves out which begins with a picture."""
        return self.history[-1]["step"] + 1 if self.history else 0

    @property
    def pictures(self) -> list[Pillow.Image]:
        """The images as PIL images."""
        return [to_pillow(x) for x in self.images]

    def sheet(self, columns: int = 4) -> Pillow.Image:
        """All pictures as one, in rows of so many."""
        wide, high = self.images.shape[-1], self.images.shape[-2]
        columns, rows = min(columns, len(self.images)), -(-len(self.images) // columns)
        sheet = Pillow.new("RGB", (columns * wide, rows * high), "white")
        for i, picture in enumerate(self.pictures):
            sheet.paste(picture, (i % columns * wide, i // columns * high))
        return sheet

    def __repr__(self) -> str:
        """A line, where all the numbers would fill a screen."""
        last: dict[str, Any] = next((row["losses"] for row in reversed(self.history) if row["losses"]), {})
        losses = "".join(
            f", {name} {[round(v, 3) if v is not None else None for v in of]}" for name, of in last.items()
        )
        stopped = "" if self.complete else ", stopped"
        size = f"{self.images.shape[-2]} x {self.images.shape[-1]}"
        return f"Result({self.prompt.text!r}, {size}, seeds {list(self.seeds)}{losses}{stopped})"

    def _repr_png_(self) -> bytes:
        """In a notebook, a result shows itself; small pictures are enlarged."""
        sheet, buffer = self.sheet(), io.BytesIO()
        factor = max(1, 192 // max(self.images.shape[-2:]))
        sheet.resize((factor * sheet.width, factor * sheet.height), Pillow.Resampling.NEAREST).save(buffer, "png")
        return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run stands after a step: with the history so far, all that `drain` needs to go on from there.

    Attributes:
        state: the loop's.
        best: the latents of the least mean loss so far, (n, c, h, w); None before two steps were judged.
        least: those losses, (n,).
        maps: as in `Result`.
        kept: the latents of the judge's best verdicts so far, (n, c, h, w), on the CPU; None before there is one.
    """

    state: State | None = None
    best: Latent | None = None
    least: Float[Tensor, "n"] | None = None
    maps: Mapping[str, Float[Tensor, "n H W"]] = field(default_factory=dict)
    kept: Latent | None = None

    def after(self, step: Step, before: Latent | None) -> Standing:
        """With one more step; ``before`` is the latent that its losses judge, which the step moved."""
        maps = {**self.maps, **{name: found.cpu() for name, found in step.maps.items()}}
        if not step.losses or before is None:
            return replace(self, maps=maps)
        mean = torch.stack(list(step.losses.values())).mean(0).nan_to_num(nan=torch.inf)  # NaN is never best
        if self.best is None or self.least is None:
            return replace(self, best=before, least=mean, maps=maps)
        better = (mean < self.least)[:, None, None, None]
        return replace(
            self, best=torch.where(better, before, self.best), least=torch.minimum(mean, self.least), maps=maps
        )

    def keeping(self, z: Latent, better: Sequence[bool]) -> Standing:
        """With the latents of those that the judge likes better than all before."""
        now = z.cpu()
        kept = now if self.kept is None else torch.where(torch.tensor(better)[:, None, None, None], now, self.kept)
        return replace(self, kept=kept)

    def to(self, device: torch.device | str) -> Standing:
        """With what is compared at each step on the device of the run."""
        best, least = (None if t is None else t.to(device) for t in (self.best, self.least))
        return replace(self, best=best, least=least)


def load(
    *,
    zoo: str = "pocket",
    referees: Sequence[str] | None = None,
    judge: str | None = None,
    settings: Mapping[str, Any] | None = None,
    device: str = "auto",
    registry: Registry | None = None,
) -> Parts:
    """Load a zoo's parts once, to play them as often as one likes.

    Args:
        zoo: its name; its preset gives what is not said here. "none" if the settings say it all.
        referees: names; by default the preset's.
        judge: a name; by default the preset's, if it has one.
        settings: a layer over the preset, in the shape of the TOML files, e.g. ``{"rules": {"steps": 80}}``.
        device: a torch device, or "auto".
        registry: the plug-ins; by default all installed ones.

    Raises:
        RefereeError: see `referee.parts.check`.
    """
    registry = registry or discover()
    layer: Layer = {"zoo": zoo, "device": device}
    if referees is not None:
        layer["referees"] = [{"name": name} for name in referees]
    if judge is not None:
        layer["judge"] = {"name": judge}
    base = preset(registry.find("zoo", zoo).preset, registry) if zoo != NO_ZOO else {}
    return assemble(check(build([base, layer, dict(settings or {})]), registry))


def parts_of(
    prior: Prior,
    referees: Sequence[Referee | Seat] = (),
    *,
    augmentation: Augmentation | None = None,
    balancer: Balancer = balance.norm,
    rules: Rules | None = None,
    size: tuple[int, int] = (512, 512),
    device: str = "cpu",
    space: Space = "latent",
    judge: Judge | None = None,
) -> Parts:
    """Parts from objects: no plug-in, no name. Bare referees are called by their class.

    Warns:
        UserWarning: the judge is of the class of a referee.
    """
    seats = tuple(r if isinstance(r, Seat) else Seat(type(r).__name__, r) for r in referees)
    if judge and (kin := [seat.name for seat in seats if type(seat.referee) is type(judge.referee)]):
        warnings.warn(of_kin(judge.name, kin), stacklevel=2)
    return Parts(seats, prior, augmentation, balancer, rules or Rules(), size, device, space, judge)


def generate(
    prompt: str | Prompt,
    parts: Parts | None = None,
    *,
    seed: int = 0,
    n: int = 1,
    init: str | Path | Pillow.Image | Image | None = None,
    strength: float | None = None,
    mask: str | Path | Pillow.Image | Tensor | None = None,
    on_step: Callable[[Step], object] | None = None,
) -> Result:
    """Draw a prompt: optimise until the referees agree.

    Args:
        prompt: what to draw.
        parts: who plays; by default the pocket zoo's BLIP-2, prior and augmentations.
        seed: of the first picture; the others count on from it.
        n: how many pictures, in one batch.
        init: the picture to begin with, a file, a PIL image or a tensor (1, 3, H, W) in [0, 1]; in place of the parts'.
        strength: how far to go from it, above 0 and at most 1: see `referee.canvas`; by default 0.5, with a mask 1.
        mask: what of it may change, white or 1; a picture of the same size, or a tensor (1, 1, H, W) in [0, 1].
        on_step: called with each step. Ctrl-C while it runs ends the run with the best pictures so far.

    Returns:
        The pictures and how they came about.

    Raises:
        OptionError: init or mask is no picture, or they do not fit; the prior cannot encode.

    >>> from referee.testing import ToyPrior, ToyReferee
    >>> parts = parts_of(ToyPrior(), [ToyReferee()], rules=Rules(steps=30, tail=2, prior_weight=0.1), size=(16, 16))
    >>> result = generate("a red square", parts, n=2)
    >>> tuple(result.images.shape), result.complete, len(result.history)
    ((2, 3, 16, 16), True, 30)
    """
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    if n < 1:
        raise OptionError(f"n is {n}: at least one picture must be asked for.")
    parts = parts or load()
    if init is not None:
        parts = begin_with(parts, init, strength, mask)
    elif strength is not None or mask is not None:
        raise OptionError("strength and mask are of a picture to begin with: give init as well.")
    seeds = tuple(range(seed, seed + n))
    return drain(prompt, parts, seeds, on_step)


def begin_with(
    parts: Parts,
    init: str | Path | Pillow.Image | Image,
    strength: float | None = None,
    mask: str | Path | Pillow.Image | Tensor | None = None,
) -> Parts:
    """The same parts, whose runs begin with a picture: see `generate`.

    Raises:
        OptionError: see `generate`.
    """
    share = strength if strength is not None else STRENGTH if mask is None else STRENGTH_MASKED
    parts.rules.first_step(share)
    prior = parts.prior.prior if isinstance(parts.prior, Canvas) else parts.prior
    if isinstance(init, Tensor):
        if not (mask is None or isinstance(mask, Tensor)):
            raise OptionError("init is a tensor: give the mask as one, too, (1, 1, H, W).")
        free = None if mask is None else mask.to(parts.device)
        return replace(parts, prior=Canvas(prior, init.to(parts.device), strength=share, mask=free))
    if isinstance(mask, Tensor):
        raise OptionError("The mask is a tensor: give init as one, too, (1, 3, H, W).")
    picture = init if isinstance(init, Pillow.Image) else read_photo(init, "init")[0]
    cover = mask if mask is None or isinstance(mask, Pillow.Image) else read_photo(mask, "mask")[0]
    return replace(parts, prior=canvas(prior, *prepared(picture, cover, *parts.size), share, parts.device))


def drain(
    prompt: Prompt,
    parts: Parts,
    seeds: Sequence[int],
    on_step: Callable[[Step], object] | None = None,
    *,
    standing: Standing | None = None,
    history: Sequence[Mapping[str, Any]] = (),
    keep: Callable[[Standing, Sequence[Mapping[str, Any]]], object] | None = None,
) -> Result:
    """Play all steps and decode the last latent, or the one that the judge likes best; on Ctrl-C that one, or without
    its verdict that of the least mean loss of those who played.

    Args:
        prompt, parts, seeds: of the run.
        on_step: called with each step.
        standing, history: where to go on; the history's entries of steps before ``standing.state.k`` count.
        keep: called after ``on_step`` with where the run then stands, and the history so far.
    """
    now = (standing or Standing()).to(parts.device)
    steps = invert(
        prompt, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, balancer=parts.balancer,
        space=parts.space, seeds=seeds, size=parts.size, device=parts.device, state=now.state,
    )  # fmt: skip
    rows = [dict(row) for row in history if now.state and row["step"] < now.state.k]

    def decode(latent: Latent) -> Image:
        with torch.no_grad():
            return parts.prior.decode(latent)

    z = now.state.z.to(parts.device) if now.state else None
    bench = Bench(parts.judge, prompt, seeds, rows) if parts.judge else None
    if bench and bench.verdicts.given != (now.kept is not None):
        raise OptionError("The history and the standing are not of one run: only one of them knows of a judge.")
    complete = True
    try:
        for step in steps if not (bench and bench.verdicts.over) else ():
            now, z = now.after(step, z), step.z
            if bench and bench.judge.is_due(step.k, step.steps):
                step = replace(step, judge=bench.look(decode(z), step.k))
            row = numbers(step)
            if bench and (better := bench.follow(row)) and step.judge is not None:
                now = now.keeping(z, better)
            rows.append(row)
            if on_step:
                on_step(step)
            if keep and step.state:
                keep(replace(now, state=step.state()), rows)
            if bench and bench.verdicts.over:
                break
    except KeyboardInterrupt:
        complete = False
        if z is None:
            raise
        z = now.best if now.best is not None else z
    assert z is not None
    if bench and now.kept is not None and (bench.judge.keep == "best" or not complete):
        z = now.kept.to(parts.device)
    judged = bench.judgement(complete) if bench else None
    return Result(prompt, tuple(seeds), decode(z).cpu(), z.cpu(), rows, complete, dict(now.maps), judged)


def numbers(step: Step) -> dict[str, Any]:
    """A step as plain numbers, one list entry per seed, None where not finite: a line of metrics.jsonl."""

    def plain(table: Mapping[str, Tensor]) -> dict[str, Any]:
        return {name: [v if isfinite(v) else None for v in values.tolist()] for name, values in table.items()}

    found = {
        "step": step.k,
        "losses": plain(step.losses),
        "norms": plain(step.norms),
        "agreement": None if step.agreement is None else step.agreement.tolist(),
        "sat_out": {name: values.tolist() for name, values in step.sat_out.items() if bool(values.any())},
        "cosines": None if step.cosines is None else pairs(step.cosines),
    }
    return found if step.judge is None else found | plain({"judge": step.judge})


def pairs(cosines: Cosines) -> dict[str, list[float | None]]:
    """Each pair once, "one/other", one list entry per seed, None where one of the two sat out.

    >>> pairs(Cosines(("a", "b"), torch.tensor([[[1.0, -0.5], [-0.5, 1.0]]])))
    {'a/b': [-0.5]}
    """
    found = {}
    for i, one in enumerate(cosines.names):
        for j, other in enumerate(cosines.names[:i]):
            values = cosines.matrix[:, i, j].tolist()
            found[f"{other}/{one}"] = [round(v, 4) if isfinite(v) else None for v in values]
    return found


def sample(prompt: str | Prompt, parts: Parts | None = None, *, seed: int = 0, n: int = 1) -> Result:
    """The prior alone, by its own plain sampling: the baseline.

    Raises:
        PluginError: this prior cannot sample.

    >>> from referee.testing import ToyPrior
    >>> sample("red", parts_of(ToyPrior(), size=(16, 16)), n=2).seeds
    (0, 1)
    """
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    if n < 1:
        raise OptionError(f"n is {n}: at least one picture must be asked for.")
    return sample_seeds(prompt, parts or load(), tuple(range(seed, seed + n)))


def sample_seeds(prompt: Prompt, parts: Parts, seeds: Sequence[int]) -> Result:
    """`sample` for any seeds."""
    prior = parts.prior.prior if isinstance(parts.prior, Canvas) else parts.prior  # a plain sample begins with noise
    if not isinstance(prior, Sampler):
        raise PluginError("This prior has no plain sampling; use `referee generate` without referees.")
    with torch.no_grad():
        images = prior.sample(prompt, *parts.size, generators(seeds, 0, "sample")).float()
        z = prior.encode(images).cpu() if isinstance(prior, Encoder) else torch.empty(0)
    return Result(prompt, tuple(seeds), images.cpu(), z)


def score(
    image: str | Path | Pillow.Image | Image, prompt: str | Prompt, seats: Sequence[Seat], device: str = "cpu"
) -> dict[str, float]:
    """How badly a picture matches a prompt, in each referee's own unit; lower is better. No augmentation.

    The picture is brought to a referee's size by the referee itself, if it can (`referee.contract.Viewer`), else by a
    plain resize. A seat with a prompt of its own judges by that, one with a region sees that part; a negative one gives
    its loss as it is, not turned round.

    Args:
        image: a file, a PIL image, or a (1, 3, H, W) tensor in [0, 1].

    Raises:
        OptionError: the file is no picture, or the tensor is not one image.
        PluginError: a referee gave something other than one number.

    >>> from referee.testing import ToyReferee
    >>> score(torch.zeros(1, 3, 8, 8), "red", [Seat("toy", ToyReferee())])
    {'toy': 0.3333333432674408}
    """
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    x = (image if isinstance(image, Tensor) else from_pillow(image)).to(device)
    if x.ndim != 4 or x.shape[:2] != (1, 3):
        raise OptionError(f"One image is scored, a tensor (1, 3, H, W) in [0, 1]; this one is {tuple(x.shape)}.")
    losses = {}
    with torch.no_grad():
        for seat in seats:
            seen = seat.region.crop(x) if seat.region else x
            with at_work(seat, device):
                found = verdict(seat.name, seat.referee, seat.referee.read(seat.prompt or prompt), seen)
            losses[seat.name] = found.item()
    return losses


def to_pillow(x: Float[Tensor, "3 H W"]) -> Pillow.Image:
    """One image in [0, 1] as 8-bit RGB."""
    return Pillow.fromarray((x.detach().float().clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy())


def from_pillow(image: str | Path | Pillow.Image) -> Image:
    """(1, 3, H, W) in [0, 1], the right way up, on white where it is transparent.

    Raises:
        OptionError: the file is missing or no picture.
    """
    try:
        opened = image if isinstance(image, Pillow.Image) else Pillow.open(image)
        opened.load()
        # A camera says in EXIF which side is up.
        pixels = np.array(flat(ImageOps.exif_transpose(opened)))
    except Exception as error:  # for a stranger's file a decoder may raise anything
        raise OptionError(f"{image} cannot be read as a picture: {error}.") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
