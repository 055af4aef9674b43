"""T2I-CompBench (Huang et al. 2023, arXiv 2307.06350) as a bench: six suites, each with the benchmark's own measure.

BLIP-VQA for color, shape and texture; 2D-spatial for spatial, with another detector, so "-like"; CLIPScore for
non_spatial; 3-in-1 of the three for complex, so "-like" as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from referee.bench.contract import Column, Item, Layer
from referee.hooks import Place
from referee_compbench.boxes import Found, surest
from referee_compbench.models import YES, Models, yes_column
from referee_compbench.names import COMPBENCH, SEED, file_name, listing, share
from referee_compbench.options import ATTRIBUTES, CompBenchOptions
from referee_compbench.phrases import reader
from referee_compbench.prompts import read_routes, read_suites
from referee_compbench.scores import attribute_score, route, three_in_one
from referee_compbench.spatial import frame, position_score, relation_in, spatial_score

if TYPE_CHECKING:
    from referee.contract import Image

METHODS: dict[str, Layer] = {"plain": {"draw": "sample"}, "inversion": {}}
"""The prior alone, and the preset as it stands."""


class CompBench:
    """A `referee.bench.contract.Bench`, `Named`, `Naming` and `Seeded`.

    Args:
        options: where the prompts are and what measures.
        place: device; --dtype is for the vision-language model alone, all others compute in float32.

    Raises:
        OptionError: a file of prompts or phrases is missing, or none.
    """

    def __init__(self, options: CompBenchOptions, place: Place) -> None:
        self._options = options
        self._models = Models(options, place)
        self._prompts = read_suites(options)
        self._items = tuple(_items(options, self._prompts))
        self._listed: dict[tuple[Path, str], dict[str, list[tuple[int, Path]]]] = {}

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """The benchmark's number first; then what it is made of, as far as it is measured."""
        options, suites = self._options, set(self._options.suites)
        by = " + ".join(dict.fromkeys(str(item.data["by"]) for item in self._items if "by" in item.data))
        parts: dict[str, Column] = {}
        if options.vqa and suites & (ATTRIBUTES | {"complex"}):
            parts["blip-vqa"] = Column(f"BLIP-VQA (phrases by {by})", proportion=True, families=("blip",), digits=4)
        if options.detector and suites & {"spatial", "complex"}:
            parts["spatial"] = Column("2D-spatial-like", proportion=True, families=("owl",), digits=4)
            parts["position"] = Column("position, GenEval-like", proportion=True, families=("owl",))
        if options.clip and suites & {"non_spatial", "complex"}:
            parts["clip"] = Column("CLIPScore", families=("clip",), digits=4)
        families = tuple(dict.fromkeys(kin for column in parts.values() for kin in column.families))
        like = " (spatial, complex: -like)" if suites & {"spatial", "complex"} else ""
        share = not suites & {"non_spatial", "complex"}  # a cosine is none
        main = Column(f"the benchmark's score{like}", proportion=share, families=families, digits=4)
        return {**({"score": main} if parts else {}), **parts, **yes_column(options.vlm)}

    def items(self) -> Sequence[Item]:
        """The prompts, suite by suite, with what each names."""
        return self._items

    def methods(self) -> Mapping[str, Layer]:
        """The prior alone, and the preset's inversion."""
        return METHODS

    @property
    def seeds(self) -> Sequence[int]:
        """42 to 51 for every prompt, as the benchmark draws them."""
        return range(SEED, SEED + COMPBENCH)

    def name(self, item: Item, k: int, of: int) -> str:
        """The benchmark's name of a picture, in a folder for its suite: the numbers run on from prompt to prompt."""
        number = item.index * max(of, COMPBENCH) + k
        return f"{item.suite}/samples/{file_name(item.prompt, number).removesuffix('.png')}"

    def files(self, folder: Path, item: Item) -> Sequence[tuple[int, Path]]:
        """The item's pictures in a folder of the benchmark's naming, by their numbers."""
        place = (folder, item.suite)
        if place not in self._listed:
            self._listed[place] = listing(*place)
        paths = self._listed[place].get(item.prompt, [])
        twins = [index for index, prompt in enumerate(self._prompts[item.suite]) if prompt == item.prompt]
        return share(paths, twins.index(item.index), len(twins))

    def score(self, image: Image, item: Item, seed: int) -> Mapping[str, float]:
        """The numbers of one picture; nothing is drawn at random."""
        from referee.pixels import to_pillow

        options, found = self._options, dict[str, float]()
        picture = to_pillow(image[0])
        if options.vqa and item.suite in (*ATTRIBUTES, "complex"):
            answers = self._models.vqa(picture, item.data["phrases"][: options.most])
            found["blip-vqa"] = attribute_score(answers, options.most)
        if options.detector and item.suite in ("spatial", "complex"):
            found |= self._spatial(image, item)
        if options.clip and item.suite in ("non_spatial", "complex"):
            found["clip"] = self._models.clip.cosine(picture, item.data.get("plain", item.prompt))
        if (score := _own(item, found)) is not None:
            found = {"score": score, **found}
        if options.vlm:
            found[YES] = self._models.vlm(picture, item.prompt)
        return found

    def _spatial(self, image: Image, item: Item) -> dict[str, float]:
        relation, objects = relation_in(item.prompt), item.data["objects"]
        first: Found | None = None
        second: Found | None = None
        if objects:
            seen = self._models.owl(image, list(dict.fromkeys(objects)), self._options.confidence)
            first, second = (surest(seen[name], self._options.confidence) for name in objects)
        high, wide = image.shape[-2:]
        scale = frame(high, wide)
        scaled = [one and Found(one.confidence, one.box.scaled(*scale)) for one in (first, second)]
        found = {"spatial": spatial_score(relation, *scaled)}
        position = position_score(relation, *scaled)
        return found if position is None else {**found, "position": position}


def _items(options: CompBenchOptions, prompts: Mapping[str, Sequence[str]]) -> list[Item]:
    read = reader(options.phrases, options.parser)
    spatial, action = read_routes(options) if "complex" in options.suites else (frozenset(), frozenset())
    items = []
    for suite, lines in prompts.items():
        for index, prompt in enumerate(lines[: options.prompts or None]):
            data: dict[str, Any] = {}
            if suite != "non_spatial":
                reading = read(prompt, suite == "complex")
                data = {"phrases": list(reading.phrases), "by": reading.source}
                data["objects"] = list(reading.objects) if reading.objects else []
            if suite == "complex":
                data |= {"plain": reading.plain, "route": route(prompt, spatial, action)}
            items.append(Item(index, prompt, suite, data))
    return items


def _own(item: Item, found: Mapping[str, float]) -> float | None:
    """The benchmark's number of a picture; None if a part of it was not measured."""
    if item.suite in ATTRIBUTES:
        return found.get("blip-vqa")
    if item.suite == "spatial":
        return found.get("spatial")
    if item.suite == "non_spatial":
        return found.get("clip")
    kind = item.data["route"]
    needed = {"spatial": ("blip-vqa", "spatial"), "action": ("blip-vqa", "clip")}
    if not all(name in found for name in needed.get(kind, ("blip-vqa", "spatial", "clip"))):
        return None
    return three_in_one(found["blip-vqa"], found.get("spatial", 0.0), found.get("clip", 0.0), kind)
