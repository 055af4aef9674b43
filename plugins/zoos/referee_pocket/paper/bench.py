"""The bench `paper`: what its tables draw, and how a picture is scored."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import torch

from referee.bench.contract import Column, Item, Layer
from referee.contract import Augmentation, Image, Prompt
from referee.gradients import ViewPlan, resize
from referee.layers import merge
from referee.parts import Parts
from referee.play import load
from referee_pocket import PRESETS
from referee_pocket.bench import COLUMNS, SUITES, VIEWS_AT
from referee_pocket.judge import Judge
from referee_pocket.paper import catalogue
from referee_pocket.paper.figures import CROP
from referee_pocket.paper.options import Options
from referee_pocket.words import prompts


class PaperBench:
    """A `referee.bench.contract.Bench`, each method of which draws as many prompts as its tables want.

    Args:
        options: which tables.
        device: where the referee scores.
    """

    columns: Mapping[str, Column] = {
        **{name: COLUMNS[name] for name in ("right", "binding", "attributes")},
        "colours": Column("colours right", proportion=True),
        "shapes": Column("shapes right", proportion=True),
        "textures": Column("textures right", proportion=True),
        **{name: COLUMNS[name] for name in ("relation", "exact", "swapped")},
        **{name: COLUMNS[name] for name in ("itm_plain", "itm_augmented", "cg_plain", "cg_augmented")},
        "itm_cropped": Column("ITM on cropped views", more=False, families=("blip",)),
    }

    def __init__(self, options: Options, device: str = "cpu") -> None:
        self.options, self.device = options, device
        self.tables = catalogue.chosen(options.tables)

    def _count(self, suite: str) -> int:
        return max(self._wanted(method, suite) for method in self.methods())

    def _wanted(self, method: str, suite: str) -> int:
        count = catalogue.wanted(self.tables, method, suite)
        return count if self.options.n is None else min(count, self.options.n)

    def items(self) -> Sequence[Item]:
        """The suites one after the other, those prompts that a method wants."""
        return [
            Item(i, text, suite)
            for suite, kind in SUITES.items()
            for i, text in enumerate(prompts("test", self._count(suite), kind))
        ]

    def methods(self) -> Mapping[str, Layer]:
        """Those of the tables, each once, always with this zoo."""
        return {name: {"zoo": "pocket", **layer} for name, layer in catalogue.methods(self.tables).items()}

    def wants(self, method: str, item: Item) -> bool:
        """A method draws the first prompts of each suite; one that was added, all."""
        return method not in self.methods() or item.index < self._wanted(method, item.suite)

    @cached_property
    def _judge(self) -> Judge:
        return Judge(self.options.weights.expanduser() / "judge")

    @cached_property
    def _parts(self) -> Parts:
        """BLIP-2 once for each of its two losses, and the preset's views; the first has cropped ones of its own."""
        cropped = merge(tomllib.loads(PRESETS["pocket"])["augmentation"], {"options": {"crop": CROP}})
        model = str(self.options.weights.expanduser() / "blip2")
        referees: list[dict[str, Any]] = [
            {"name": "blip2", "label": "itm", "options": {"model": model, "cg": 0}, "aug": cropped},
            {"name": "blip2", "label": "cg", "options": {"model": model, "itm": 0}},
        ]
        return load(settings={"referees": referees}, device=self.device)

    def score(self, image: Image, item: Item, seed: int) -> dict[str, float]:
        """The judge's verdict, and the referee's losses on the picture and on views of it."""
        verdict = self._judge.score(resize(image, 64), item.prompt)[0]
        scores = {
            "right": float(verdict.binding and verdict.relation is not False), "binding": float(verdict.binding),
            "attributes": verdict.attributes, "colours": verdict.colours, "shapes": verdict.shapes,
            "textures": verdict.textures, "exact": float(verdict.exact), "swapped": float(verdict.swapped),
        }  # fmt: skip
        if verdict.relation is not None:
            scores["relation"] = float(verdict.relation)
        x = image.to(self.device)
        with torch.no_grad():
            for seat in self._parts.seats:
                loss, seen = seat.referee.read(Prompt(item.prompt)), resize(x, seat.referee.input_size)
                views = {"augmented": self._parts.augmentation, "cropped": seat.augmentation}
                scores[f"{seat.name}_plain"] = loss(seen).item()
                scores |= {
                    f"{seat.name}_{name}": loss(self._views(seen, seed, by)).mean().item()
                    for name, by in views.items()
                    if by != "shared"
                }
        return scores

    def _views(self, image: Image, seed: int, augmentation: Augmentation | None) -> Image:
        plan = ViewPlan([seed], VIEWS_AT, self.options.views, self.options.views, augmentation)
        return plan.views(image, plan.portions()[0])
