"""The Python door: `generate` draws, `score` judges a picture, `sample` shows the prior alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image as Pillow
from torch import Tensor

from referee import balance
from referee.contract import Augmentation, Balancer, Encoder, Image, Latent, Prior, Prompt, Referee, Sampler
from referee.control.canvas import Canvas, canvas
from referee.control.init_image import STRENGTH, STRENGTH_MASKED, prepared
from referee.control.photo import read_photo
from referee.errors import NothingToJudge, OptionError, PluginError
from referee.inversion import Step, invert
from referee.judging import Judge, Sitting, verdict
from referee.layers import Layer, preset
from referee.panel import Space, pictured, say_who_is_silent
from referee.parts import Parts, assemble, check, of_kin
from referee.pixels import from_pillow
from referee.plugins import Registry, discover
from referee.randomness import generators
from referee.result import Result, Standing, numbers
from referee.rules import Rules
from referee.seat import Seat, at_work
from referee.settings import NO_ZOO, build


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
        strength: how far to go from it, above 0 and at most 1: see `referee.control.canvas`; by default
            0.5, with a mask 1.
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
    now = now.knowing(rows)

    def decode(latent: Latent) -> Image:
        with torch.no_grad():
            return parts.prior.decode(latent)

    z = now.state.z.to(parts.device) if now.state else None
    sitting = Sitting(parts.judge, prompt, seeds, rows, parts.device) if parts.judge else None
    if sitting and sitting.verdicts.given != (now.kept is not None):
        raise OptionError("The history and the standing are not of one run: only one of them knows of a judge.")
    complete = True
    try:
        for step in steps if not (sitting and sitting.verdicts.over) else ():
            now, z = now.after(step, z), step.z
            if sitting and sitting.judge.is_due(step.k, step.steps):
                step = replace(step, judge=sitting.look(decode(z), step.k))
            row = numbers(step)
            if sitting and (better := sitting.follow(row)) and step.judge is not None:
                now = now.keeping(z, better)
            rows.append(row)
            if on_step:
                on_step(step)
            if keep and step.state:
                keep(replace(now, state=step.state()), rows)
            if sitting and sitting.verdicts.over:
                break
    except KeyboardInterrupt:
        complete = False
        if z is None:
            raise
        z = now.best if now.best is not None else z
    assert z is not None
    if sitting and now.kept is not None and (sitting.judge.keep == "best" or not complete):
        z = now.kept.to(parts.device)
    judged = sitting.judgement(complete) if sitting else None
    return Result(prompt, tuple(seeds), decode(z).cpu(), z.cpu(), rows, complete, dict(now.maps), judged)


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
        drawn = prior.sample(prompt, *parts.size, generators(seeds, 0, "sample"))
        images = pictured(drawn, len(seeds), parts.size).float()
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
        NothingToJudge: the prompt has nothing for any of them; where one has something, a warning names the others.

    >>> from referee.testing import ToyReferee
    >>> score(torch.zeros(1, 3, 8, 8), "red", [Seat("toy", ToyReferee())])
    {'toy': 0.3333333432674408}
    """
    prompt = Prompt(prompt) if isinstance(prompt, str) else prompt
    x = (image if isinstance(image, Tensor) else from_pillow(image)).to(device)
    if x.ndim != 4 or x.shape[:2] != (1, 3):
        raise OptionError(f"One image is scored, a tensor (1, 3, H, W) in [0, 1]; this one is {tuple(x.shape)}.")
    losses: dict[str, float] = {}
    silent: dict[str, NothingToJudge] = {}
    with torch.no_grad():
        for seat in seats:
            seen = seat.region.crop(x) if seat.region else x
            with at_work(seat, device):
                try:
                    found = verdict(seat.name, seat.referee, seat.referee.read(seat.prompt or prompt), seen)
                except NothingToJudge as nothing:
                    silent[seat.name] = nothing
                    continue
            losses[seat.name] = found.item()
    say_who_is_silent(silent, losses, "has no score")
    return losses
