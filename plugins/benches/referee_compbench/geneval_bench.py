"""GenEval (Ghosh et al. 2023, arXiv 2310.11513) as a bench: six tasks, each picture right or wrong. "-like": the rules
are GenEval's, the detector is OWL and not its Mask2Former, whose thresholds and masks do not carry over.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from referee.bench.contract import Column, Item, Layer
from referee.hooks import Place
from referee_compbench.compbench import METHODS
from referee_compbench.geneval import COUNTING, Task, correct, counted
from referee_compbench.models import YES, Models, yes_column
from referee_compbench.names import GENEVAL, SEED
from referee_compbench.options import GenEvalOptions
from referee_compbench.prompts import read_tasks

if TYPE_CHECKING:
    from referee.contract import Image


class GenEval:
    """A `referee.bench.contract.Bench`, `Named`, `Naming` and `Seeded`.

    Args:
        options: where the prompts are and what measures.
        place: device; --dtype is for the vision-language model alone, all others compute in float32.

    Raises:
        OptionError: the file of prompts is missing, or none.
    """

    def __init__(self, options: GenEvalOptions, place: Place) -> None:
        self._options = options
        self._models = Models(options, place)
        tasks = read_tasks(options.path)
        self._names = list(dict.fromkeys(name for task in tasks for name in task.names))
        self._items = tuple(_items(tasks, options.prompts))

    @cached_property
    def columns(self) -> Mapping[str, Column]:
        """Right or wrong; and P(Yes), if a model is asked."""
        right = {"correct": Column("correct, GenEval-like", proportion=True, families=("owl", "clip"), pooled=True)}
        return {**(right if self._options.detector else {}), **yes_column(self._options.vlm)}

    def items(self) -> Sequence[Item]:
        """The prompts of the file, with what their pictures must show. The tasks are the suites; a prompt's place in
        the file is in its data."""
        return self._items

    def methods(self) -> Mapping[str, Layer]:
        """The prior alone, and the preset's inversion."""
        return METHODS

    @property
    def seeds(self) -> Sequence[int]:
        """Four from 42 on for every prompt. GenEval's own script seeds once per prompt and draws four in a row."""
        return range(SEED, SEED + GENEVAL)

    def name(self, item: Item, k: int, of: int) -> str:
        """The benchmark's name of a picture."""
        return f"{item.data['line']:05d}/samples/{k:05d}"

    def files(self, folder: Path, item: Item) -> Sequence[tuple[int, Path]]:
        """The item's pictures in a folder of the benchmark's naming, by their numbers."""
        place = folder / f"{item.data['line']:05d}" / "samples"
        return sorted((int(path.stem), path) for path in place.glob("*.png") if path.stem.isdecimal())

    def score(self, image: Image, item: Item, seed: int) -> Mapping[str, float]:
        """Whether a picture is right; nothing is drawn at random."""
        from referee.pixels import to_pillow

        picture, found = to_pillow(image[0]), dict[str, float]()
        if self._options.detector:
            task = Task.model_validate(item.data["task"])
            least = self._options.counting if task.tag == COUNTING else self._options.confidence
            seen = self._models.owl(image, self._names, least)
            objects = {name: counted(seen[name], least) for name in task.names}
            right, _ = correct(task, objects, lambda one, name: self._models.clip.colour(picture, one.box, name))
            found["correct"] = float(right)
        if self._options.vlm:
            found[YES] = self._models.vlm(picture, item.prompt)
        return found


def _items(tasks: Sequence[Task], most: int) -> list[Item]:
    places: Counter[str] = Counter()
    items = []
    for line, task in enumerate(tasks):
        if most and places[task.tag] >= most:
            continue
        said = task.model_dump(mode="json", by_alias=True, exclude_none=True)
        items.append(Item(places[task.tag], task.prompt, task.tag, {"line": line, "task": said}))
        places[task.tag] += 1
    return items
