"""Propositions 3.1 and 3.2, measured: how smooth the referee's loss is, with and without averaging over views.

At finished and at half-way latents of films (see `film`), as functions of the image and of the latent, three losses are
held against each other by `smooth.measure`: of the plain picture; averaged over fixed views; and of one view, which is
the mean over those views of what each has by itself. Told are natural logarithms: differences are then of ratios.

    DIR/smooth/METHOD-INDEX.json            all numbers at one film's latents
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from referee.contract import Augmentation, Image, Latent, Loss, Prompt
from referee.errors import RunError
from referee.folder.record import write_whole
from referee.folder.run import read_plain
from referee.gradients import ViewPlan, resize
from referee.parts import Parts
from referee.play import load
from referee.randomness import generator
from referee_pocket.paper.figures import SPACES, place
from referee_pocket.paper.film import HALF, Film, films
from referee_pocket.paper.methods import BARE, METHOD
from referee_pocket.paper.smooth import Compared, Members, directions, measure

METHODS = (METHOD, BARE)
DIRECTIONS, VIEWS = 16, 10
"""Random directions at a point; views in an average, as many as the method takes."""
REACH = {"image": 0.01, "latent": 0.05}
"""Root mean square of a step on each element: a radius is this times the root of the number of elements. An image's are
in [0, 1], a latent's have a deviation of about 1 and are moved by 0.12 to 0.05 in a step of the run."""
AT = {"final": 1.0, "half": HALF}
VIEWS_AT = 10**6
"""The step whose views are taken: no run comes so far."""
MAX_BYTES = 1 << 20


class Landscape(BaseModel):
    """The numbers of one film, by `referee_pocket.paper.figures.place`; logarithms."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    method: str = Field(max_length=100)
    index: int = Field(ge=0)
    digest: str = Field(max_length=100, description="of the film's method")
    settings: dict[str, Any] = Field(description="how it was measured")
    numbers: dict[str, float]
    cpu_seconds: float = Field(ge=0)


def survey(
    folder: Path, *, methods: Sequence[str] = METHODS, count: int = DIRECTIONS, views: int = VIEWS,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Landscape]:  # fmt: skip
    """Measure at the films of a folder what is not yet measured.

    Args:
        folder: that holds the films.
        methods: whose.
        count: directions.
        views: in an average.
        shard: only every N-th film, from I: (I, N).

    Raises:
        RunError: there are no films, or numbers are there that were measured otherwise.
    """
    settings = {"directions": count, "views": views, "reach": REACH}
    parts: Parts | None = None
    for method in methods:
        if not (found := films(folder, method)):
            raise RunError(f"{folder} has no films of '{method}': `python -m referee_pocket.paper film {folder}`.")
        for film in found[shard[0] :: shard[1]]:
            path = folder / "smooth" / f"{method}-{film.header.index:03}.json"
            if path.exists():
                _same(read(path), film, settings, path)
                continue
            parts = parts or load(device="cpu")
            began = time.process_time()
            numbers = look(film, parts, count, views)
            landscape = Landscape(
                method=method, index=film.header.index, digest=film.header.digest, settings=settings, numbers=numbers,
                cpu_seconds=round(time.process_time() - began, 2),
            )  # fmt: skip
            write_whole(path, landscape.model_dump_json(indent=1).encode())
            yield landscape


def look(film: Film, parts: Parts, count: int = DIRECTIONS, views: int = VIEWS) -> dict[str, float]:
    """All numbers at one film: in both spaces, finished and half-way."""
    seed, seat = film.header.seed, parts.seats[0]
    loss = seat.referee.read(Prompt(film.header.prompt))
    plain, viewed = losses(loss, seat.referee.input_size, parts.augmentation, seed, views)
    numbers: dict[str, float] = {}
    for space in SPACES:
        for when, mark in AT.items():
            z = film.at(mark)
            with torch.no_grad():
                at = parts.prior.decode(z) if space == "image" else z
            along = directions(at, count, generator(seed, VIEWS_AT, f"directions, {space}"))
            radius = REACH[space] * math.sqrt(at.numel())
            for name, f in {"plain": plain, "views": viewed}.items():
                g = f if space == "image" else _decoded(f, parts)
                numbers |= _told(space, when, name, measure(g, at, along, radius))
    return numbers


def losses(loss: Loss, size: int, augmentation: Augmentation | None, seed: int, views: int) -> tuple[Members, Members]:
    """The referee's loss as a function of an image (1, 3, H, W): of itself, and of each of some fixed views."""
    plan = ViewPlan([seed], VIEWS_AT, views, views, augmentation)

    def plain(x: Image) -> torch.Tensor:
        return loss(resize(x, size))[:, None]

    def viewed(x: Image) -> torch.Tensor:
        return loss(plan.views(resize(x, size), plan.portions()[0]))[None]

    return plain, viewed


def _decoded(f: Members, parts: Parts) -> Members:
    def of_latent(z: Latent) -> torch.Tensor:
        return f(parts.prior.decode(z))

    return of_latent


def _told(space: str, when: str, name: str, found: Compared) -> dict[str, float]:
    losses = {"plain": found.averaged} if name == "plain" else {"averaged": found.averaged, "single": found.single}
    return {
        place(space, when, loss, quantity): math.log(value)
        for loss, smoothness in losses.items()
        for quantity, value in asdict(smoothness).items()
        if value > 0
    }


def _same(before: Landscape, film: Film, settings: Mapping[str, Any], path: Path) -> None:
    if (before.digest, before.settings) != (film.header.digest, settings):
        raise RunError(f"{path} was measured of another film, or otherwise ({before.settings}). Take another folder.")


def landscapes(folder: Path, method: str) -> list[Landscape]:
    """A method's numbers, by prompt."""
    return [read(path) for path in sorted((folder / "smooth").glob(f"{method}-[0-9]*.json"))]


def read(path: Path) -> Landscape:
    """Numbers from their file.

    Raises:
        RunError: it is broken.
    """
    try:
        return Landscape.model_validate_json(read_plain(path, MAX_BYTES))
    except ValidationError as error:
        raise RunError(f"{path} is no measurement of smoothness: {error.errors()[0]['msg']}.") from error
