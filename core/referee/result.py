"""What a run made, where it stands on its way, and its steps as plain numbers."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image as Pillow
from torch import Tensor

from referee.balance import Cosines
from referee.contract import Image, Latent, Prompt
from referee.inversion import Step
from referee.judging import Judgement
from referee.pixels import to_pillow
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
        heard: whose losses they are the mean of; steps at which one of them is not asked are no match for that.
        maps: as in `Result`.
        kept: the latents of the judge's best verdicts so far, (n, c, h, w), on the CPU; None before there is one.
    """

    state: State | None = None
    best: Latent | None = None
    least: Float[Tensor, "n"] | None = None
    heard: frozenset[str] = frozenset()
    maps: Mapping[str, Float[Tensor, "n H W"]] = field(default_factory=dict)
    kept: Latent | None = None

    def after(self, step: Step, before: Latent | None) -> Standing:
        """With one more step; ``before`` is the latent that its losses judge, which the step moved."""
        maps = {**self.maps, **{name: found.cpu() for name, found in step.maps.items()}}
        if not step.losses or before is None:
            return replace(self, maps=maps)
        mean = torch.stack(list(step.losses.values())).mean(0).nan_to_num(nan=torch.inf)  # NaN is never best
        heard = frozenset(step.losses)
        if self.best is None or self.least is None or heard > self.heard:
            return replace(self, best=before, least=mean, heard=heard, maps=maps)
        if heard != self.heard:
            return replace(self, maps=maps)
        better = (mean < self.least)[:, None, None, None]
        return replace(
            self, best=torch.where(better, before, self.best), least=torch.minimum(mean, self.least), maps=maps
        )

    def knowing(self, rows: Sequence[Mapping[str, Any]]) -> Standing:
        """With ``heard`` as the rows of the steps so far have it."""
        heard = self.heard
        for row in rows[1:]:  # of the first, there was no latent to keep
            if (asked := frozenset(row["losses"])) > heard:
                heard = asked
        return replace(self, heard=heard)

    def keeping(self, z: Latent, better: Sequence[bool]) -> Standing:
        """With the latents of those that the judge likes better than all before."""
        now = z.cpu()
        kept = now if self.kept is None else torch.where(torch.tensor(better)[:, None, None, None], now, self.kept)
        return replace(self, kept=kept)

    def to(self, device: torch.device | str) -> Standing:
        """With what is compared at each step on the device of the run."""
        best, least = (None if t is None else t.to(device) for t in (self.best, self.least))
        return replace(self, best=best, least=least)


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
