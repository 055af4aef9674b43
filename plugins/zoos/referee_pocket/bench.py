"""The bench `pocket`: held-out prompts of the little world, judged by its detector and by each referee's own losses.

The losses are told on the finished picture as it is, and on augmented views of it: a picture that fools a referee has a
low loss on the first and a high one on the second (the paper's tables 1 and 2).
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from referee.bench.contract import Column, Item, Layer
from referee.contract import Image, Prompt
from referee.gradients import ViewPlan, resize
from referee.parts import Parts
from referee.play import load
from referee_pocket import HERE, BenchOptions
from referee_pocket.judge import Judge
from referee_pocket.words import Suite, prompts

SUITES: dict[str, Suite] = {"attributes": "attributes", "spatial": "relations", "complex": "complex"}
"""The bench's names, and those of the lists of prompts."""
EQUALS = (
    {"name": "blip2"}, {"name": "clip"},
    {"name": "grounding-vqa", "label": "place", "options": {"attributes": 0, "apart": 0.35}},
)  # fmt: skip
"""The panel of the table of balancers: content, style and place, of one weight."""
VIEWS_AT = 10**6
"""The step whose views are scored: no run comes so far, so none has seen them."""
COLUMNS = {
    "right": Column("all as asked", proportion=True),
    "binding": Column("all attributes right", proportion=True),
    "relation": Column("relation right", proportion=True),
    "attributes": Column("share of attributes", proportion=True),
    "exact": Column("exact count", proportion=True),
    "swapped": Column("mis-bound", proportion=True, more=False),
    "itm_plain": Column("ITM plain", more=False, families=("blip",)),
    "itm_augmented": Column("ITM augmented", more=False, families=("blip",)),
    "cg_plain": Column("caption plain", more=False, families=("blip",)),
    "cg_augmented": Column("caption augmented", more=False, families=("blip",)),
    "clip_plain": Column("CLIP plain", more=False, families=("clip",)),
    "clip_augmented": Column("CLIP augmented", more=False, families=("clip",)),
    "vqa_plain": Column("VQA plain", more=False, families=("blip", "owl")),
    "vqa_augmented": Column("VQA augmented", more=False, families=("blip", "owl")),
}


class PocketBench:
    """A `referee.bench.contract.Bench`.

    Args:
        options: which prompts, and where the models lie.
        device: where the referees score.
    """

    columns: Mapping[str, Column] = COLUMNS

    def __init__(self, options: BenchOptions, device: str = "cpu") -> None:
        self.options, self.device = options, device

    def items(self) -> Sequence[Item]:
        """The suites one after the other; the first prompts of a longer list are the shorter list."""
        return [
            Item(i, text, suite)
            for suite in self.options.suites
            for i, text in enumerate(prompts(self.options.split, self.options.n, SUITES[suite]))
        ]

    def methods(self) -> Mapping[str, Layer]:
        """Those of the table, always with this zoo."""
        table = self.options.table
        read = tomllib.loads((HERE / "methods" / f"{table}.toml").read_text(encoding="utf-8"))
        below = {"zoo": "pocket", **({"referees": EQUALS} if table == "balancers" else {})}
        return {name: {**below, **layer} for name, layer in read.items()}

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.options.weights.expanduser() / "judge")

    @cached_property
    def _parts(self) -> Parts:
        """The referees, BLIP-2 once for each of its two losses; and the preset's views."""
        weights = self.options.weights.expanduser()

        def seat(name: str, label: str, **options: Any) -> dict[str, Any]:
            return {"name": name, "label": label, "options": options}

        folder = {role: str(weights / role) for role in ("blip2", "clip", "vqa", "detector")}
        referees = [
            seat("blip2", "itm", model=folder["blip2"], cg=0),
            seat("blip2", "cg", model=folder["blip2"], itm=0),
            seat("clip", "clip", model=folder["clip"]),
            seat("grounding-vqa", "vqa", vqa=folder["vqa"], detector=folder["detector"]),
        ]
        return load(settings={"referees": referees}, device=self.device)

    def score(self, image: Image, item: Item, seed: int) -> dict[str, float]:
        """The judge's verdict, and each referee's losses on the picture and on views of it."""
        verdict = self._judge.score(resize(image, 64), item.prompt)[0]
        scores = {"right": float(verdict.binding and verdict.relation is not False)}
        if verdict.relation is not None:
            scores |= {"binding": float(verdict.binding), "relation": float(verdict.relation)}
        scores |= {
            "attributes": verdict.attributes, "exact": float(verdict.exact), "swapped": float(verdict.swapped),
        }  # fmt: skip
        x = image.to(self.device)
        plan = ViewPlan([seed], VIEWS_AT, self.options.views, self.options.views, self._parts.augmentation)
        with torch.no_grad():
            for seat in self._parts.seats:
                loss = seat.referee.read(Prompt(item.prompt))
                seen = resize(x, seat.referee.input_size)
                scores[f"{seat.name}_plain"] = loss(seen).item()
                scores[f"{seat.name}_augmented"] = loss(plan.views(seen, plan.portions()[0])).mean().item()
        return scores
