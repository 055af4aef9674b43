"""Runs whose latents are kept on the way: for figures of how pictures come about, and for what is measured half-way.

    DIR/films/METHOD-INDEX.safetensors      latents and maps of one run; its header says which

Films are of the bench's first prompts with the bench's seeds, so a film ends with the bench's picture. A film that is
there is not taken again, and one of other settings is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from referee.bench.contract import Item, Layer
from referee.bench.methods import Method, prepare
from referee.contract import Latent, Prompt
from referee.errors import OptionError, RunError
from referee.folder.record import write_whole
from referee.inversion import Step
from referee.parts import Parts
from referee.play import drain
from referee.plugins import Registry
from referee_pocket.judge import Found, Judge
from referee_pocket.paper.claims import ATTRIBUTES
from referee_pocket.paper.methods import ALONE, BARE, LAYERS, METHOD, SDS
from referee_pocket.words import prompts

METHODS = (METHOD, ALONE, BARE, SDS)
COUNT = 20
"""Prompts: the least of which a verdict is given."""
FIRST_SEED = 1000
"""As that of `referee bench`."""
MARKS = (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)
"""Shares of the run after which its latent is kept."""
HALF = 0.5
REACH = 14.0
"""Pixels around a thing's centre that are its own: two things have radii of 12 to 15.5."""


class Header(BaseModel):
    """What a film says of itself."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    method: str = Field(max_length=100)
    index: int = Field(ge=0)
    prompt: str = Field(max_length=1000)
    seed: int
    digest: str = Field(max_length=100, description="of the method: see `referee.bench.about.Maker`")
    marks: tuple[float, ...] = Field(max_length=100, description="shares of the run, one per latent")
    gathers: dict[str, float] = Field(default_factory=dict, description="of each map, see `gathering`")
    cpu_seconds: float = Field(ge=0)


@dataclass(frozen=True, slots=True)
class Film:
    """A run, read back: its latents (k, c, h, w), one per mark, and its maps, (H, W) each."""

    header: Header
    latents: Latent
    maps: Mapping[str, Float[Tensor, "H W"]]

    def at(self, mark: float) -> Latent:
        """The latent (1, c, h, w) at the mark nearest to a share of the run."""
        nearest = min(range(len(self.header.marks)), key=lambda i: abs(self.header.marks[i] - mark))
        return self.latents[nearest : nearest + 1]


def take(
    folder: Path, registry: Registry, *, count: int = COUNT, methods: Sequence[str] = METHODS,
    over: Layer | None = None, shard: tuple[int, int] = (0, 1),
) -> Iterator[Header]:  # fmt: skip
    """Film what is not yet there.

    Args:
        folder: of the bench's records, or another.
        registry: the plug-ins.
        count: prompts, from the first.
        methods: by name, of the bench `pocket`.
        over: settings over all of them.
        shard: only every N-th prompt, from I: (I, N).

    Raises:
        OptionError: there is no such method, or it does not invert.
        RunError: a film is there of other settings.
        RefereeError: see `referee.bench.methods.prepare`.
    """
    if unknown := [name for name in methods if name not in LAYERS]:
        raise OptionError(f"There is no method '{unknown[0]}'. There are: {', '.join(LAYERS)}.")
    items = [Item(i, text, ATTRIBUTES) for i, text in enumerate(prompts("test", count))]
    prepared = prepare({name: LAYERS[name] for name in methods}, items, registry, zoo="pocket", over=over or {})
    for method in prepared:
        if (draw := method.maker.draw["name"]) != "invert":
            raise OptionError(f"'{method.name}' draws by '{draw}': only an inversion has latents on the way to film.")
    judge = Judge()
    for method in prepared:
        parts: Parts | None = None
        for item in items[shard[0] :: shard[1]]:
            path = place(folder, method.name, item.index)
            if path.exists():
                _same(read(path).header, method, path)
                continue
            parts = parts or method.load()
            film = shoot(method, parts, item, judge)
            tensors = {"latents": film.latents, **{f"map/{name}": found for name, found in film.maps.items()}}
            header = {"film": film.header.model_dump_json()}
            write_whole(path, save({name: t.contiguous() for name, t in tensors.items()}, header))
            yield film.header


def place(folder: Path, method: str, index: int) -> Path:
    """Where a film lies."""
    return folder / "films" / f"{method}-{index:03}.safetensors"


def shoot(method: Method, parts: Parts, item: Item, judge: Judge) -> Film:
    """One run, filmed.

    Raises:
        KeyboardInterrupt: it was stopped.
    """
    seed, kept, began = FIRST_SEED + item.index, dict[int, Latent](), time.process_time()

    def keep(step: Step) -> None:
        if step.k + 1 in due:
            kept[step.k + 1] = step.z.cpu()

    due = {max(1, round(mark * parts.rules.steps)) for mark in MARKS}
    result = drain(Prompt(item.prompt), parts, (seed,), keep)
    if not result.complete:
        raise KeyboardInterrupt
    seconds = time.process_time() - began
    things = judge.see(result.images)[0]
    maps = {name: found[0].float().cpu() for name, found in result.maps.items()}
    header = Header(
        method=method.name, index=item.index, prompt=item.prompt, seed=seed, digest=method.maker.digest,
        marks=tuple(k / parts.rules.steps for k in kept), cpu_seconds=round(seconds, 2),
        gathers={name: share for name, found in maps.items() if (share := gathering(found, things)) is not None},
    )  # fmt: skip
    return Film(header, torch.cat(list(kept.values())), maps)


def gathering(found: Float[Tensor, "H W"], things: Sequence[Found], reach: float = REACH) -> float | None:
    """How much more of a map lies on things than their share of the area: 1 if it is spread evenly.

    Args:
        found: not negative.
        things: what the judge saw; each is a disc about its centre.
        reach: its radius, in pixels.

    Returns:
        None if there are no things, or the map is zero.
    """
    y, x = torch.meshgrid(*(torch.arange(n) + 0.5 for n in found.shape), indexing="ij")
    on = torch.zeros_like(found, dtype=torch.bool)
    for thing in things:
        on |= (x - thing.x).square() + (y - thing.y).square() <= reach**2
    if not on.any() or not found.sum() > 0:
        return None
    return (found[on].sum() / found.sum() / on.float().mean()).item()


def _same(header: Header, method: Method, path: Path) -> None:
    if header.digest != method.maker.digest:
        raise RunError(
            f"{path} is of '{method.name}' with other settings ({header.digest}) than are asked for "
            f"({method.maker.digest}). Take another folder."
        )


def films(folder: Path, method: str) -> list[Film]:
    """A method's films, by prompt."""
    return [read(path) for path in sorted((folder / "films").glob(f"{method}-[0-9]*.safetensors"))]


def read(path: Path) -> Film:
    """A film from its file; it may come from a stranger.

    Raises:
        RunError: it is none.
    """
    try:
        with safe_open(path, "pt") as file:
            header = Header.model_validate_json((file.metadata() or {}).get("film", ""))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValidationError) as error:
        raise RunError(f"{path} is no film of the paper's figures: {str(error).splitlines()[0]}.") from error
    latents = tensors.pop("latents", None)
    maps = {name.removeprefix("map/"): found for name, found in tensors.items()}
    if latents is None or latents.ndim != 4 or len(latents) != len(header.marks) or not len(latents):
        raise RunError(f"{path} is no film of the paper's figures: it should have a latent for each of its marks.")
    if any(found.ndim != 2 for found in maps.values()):
        raise RunError(f"{path} is no film of the paper's figures: its maps should be pictures.")
    return Film(header, latents, maps)
