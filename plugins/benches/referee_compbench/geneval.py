"""GenEval's verdict on one picture (Ghosh et al. 2023, arXiv 2310.11513; rules of its published evaluator): are the
things there, as many, of those colours, and do they lie as said? Pure functions of boxes.

A prompt says in structured form what its picture must ``include`` and must not (``exclude``), so no parser is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from referee_compbench.boxes import Found
from referee_compbench.spatial import directions

COUNTING = "counting"
MOST = 16
"""Things of a class that are looked at."""
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
COLOUR_LINES = ("a photo of a {colour} {name}", "a photo of a {colour}-colored {name}", "a photo of a {colour} object")
"""What CLIP is asked of a crop, for each colour; the embeddings of the three are averaged."""
TASKS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
"""The overall score is the mean of their means."""
WHERE = frozenset({"left of", "right of", "above", "below"})


class Clause(BaseModel):
    """One thing that a picture must show, or must not."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    name: str = Field(alias="class", min_length=1)
    count: int = Field(ge=1)
    color: str | None = None
    position: tuple[str, int] | None = None
    """Direction, and which of the clauses before it it is seen from."""

    @model_validator(mode="after")
    def _known(self) -> Clause:
        if self.color is not None and self.color not in COLOURS:
            raise ValueError(f"'{self.color}' is none of its colours ({', '.join(COLOURS)})")
        if self.position is not None and self.position[0] not in WHERE:
            raise ValueError(f"'{self.position[0]}' is none of {', '.join(sorted(WHERE))}")
        return self


class Task(BaseModel):
    """One line of the prompt file."""

    model_config = ConfigDict(frozen=True)

    tag: str = Field(min_length=1)
    prompt: str = Field(min_length=1)
    include: tuple[Clause, ...] = Field(min_length=1)
    exclude: tuple[Clause, ...] = ()

    @model_validator(mode="after")
    def _backwards(self) -> Task:
        for i, clause in enumerate(self.include):
            if clause.position is not None and not 0 <= clause.position[1] < i:
                raise ValueError(f"'{clause.name}' is seen from clause {clause.position[1]}, which is not before it")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Every class that it asks for, once."""
        return tuple(dict.fromkeys(clause.name for clause in (*self.include, *self.exclude)))


def counted(found: Iterable[Found], confidence: float) -> list[Found]:
    """Those of a class that are looked at: the surest first, above a threshold, 16 at most."""
    sure = sorted((one for one in found if one.confidence > confidence), key=lambda one: -one.confidence)
    return sure[:MOST]


def correct(
    task: Task, objects: Mapping[str, Sequence[Found]], colour_of: Callable[[Found, str], str]
) -> tuple[bool, list[str]]:
    """Whether a picture is right, and what is wrong with it.

    Of each class the surest boxes are looked at, as many as are asked for: more of them are no fault unless the task
    excludes it. Colours and positions are those of these boxes; a position must hold for every pair.

    Args:
        objects: by class, see `counted`.
        colour_of: the colour of one thing of a class, one of `COLOURS`.
    """
    faults: list[str] = []
    matched: list[Sequence[Found] | None] = []
    for clause in task.include:
        chosen = objects.get(clause.name, ())[: clause.count]
        fault = _fault(clause, chosen, matched, colour_of)
        matched.append(None if fault else chosen)
        faults += [fault] if fault else []
    for clause in task.exclude:
        if (number := len(objects.get(clause.name, ()))) >= clause.count:
            faults.append(f"fewer than {clause.count} of '{clause.name}' were wanted, {number} are there")
    return not faults, faults


def _fault(
    clause: Clause,
    chosen: Sequence[Found],
    matched: Sequence[Sequence[Found] | None],
    colour_of: Callable[[Found, str], str],
) -> str:
    """What is wrong with the things chosen for a clause; "" if nothing is."""
    if len(chosen) < clause.count:
        return f"{clause.count} of '{clause.name}' were wanted, {len(chosen)} are there"
    if clause.color is not None:
        colours = [colour_of(one, clause.name) for one in chosen]
        if colours.count(clause.color) < clause.count:
            return f"'{clause.name}' should be {clause.color} and is {', '.join(colours)}"
    if clause.position is None:
        return ""
    where, group = clause.position
    targets = matched[group]
    if targets is None:
        return f"there is nothing that '{clause.name}' could be {where}"
    holds = all(where in directions(one.box, target.box) for one in chosen for target in targets)
    return "" if holds else f"'{clause.name}' is not {where} the other"
