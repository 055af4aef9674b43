"""The names that the benchmarks give to pictures, written and read.

T2I-CompBench: ``<prompt>_<six digits>.png``, the number running through all pictures of a suite; its evaluator reads
the prompt back from the name, up to the first "_", and the order from the number after the last. GenEval: a folder per
prompt, ``<five digits>/samples/<five digits>.png``, by the line of the prompt file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

SEED = 42
"""Of each prompt's first picture; the others count on from there."""
COMPBENCH, GENEVAL = 10, 4
"""Pictures of a prompt."""
T = TypeVar("T")
_NAME = re.compile(r"(?P<prompt>[^_]+)_(?:.*_)?(?P<number>\d+)\.png", re.IGNORECASE | re.DOTALL)


def file_name(prompt: str, number: int) -> str:
    """T2I-CompBench's name of a picture.

    >>> file_name("a green bench", 12)
    'a green bench_000012.png'
    """
    return f"{prompt}_{number:06d}.png"


def read_name(name: str) -> tuple[str, int] | None:
    """The prompt and number of a picture's name; None if it has none.

    >>> read_name("a green bench_000012.png")
    ('a green bench', 12)
    """
    found = _NAME.fullmatch(name)
    return (found["prompt"], int(found["number"])) if found else None


def listing(folder: Path, suite: str) -> dict[str, list[tuple[int, Path]]]:
    """The pictures of a suite by prompt, by their numbers.

    They lie in ``folder/SUITE/samples``, ``folder/SUITE``, ``folder/samples`` or ``folder``: the first that is there.
    """
    places = (folder / suite / "samples", folder / suite, folder / "samples", folder)
    place = next((place for place in places if place.is_dir()), None)
    if place is None:
        return {}
    read = ((read_name(path.name), path) for path in place.iterdir())
    numbered = sorted((named[1], path.name, named[0], path) for named, path in read if named)
    found: dict[str, list[tuple[int, Path]]] = {}
    for number, _, prompt, path in numbered:
        found.setdefault(prompt, []).append((number, path))
    return found


def share(paths: Sequence[T], which: int, of: int) -> list[T]:
    """A prompt's pictures, where the prompt stands several times in its file: the first gets the first ones.

    >>> share([(0, Path("a_000000.png")), (1, Path("a_000001.png"))], 1, 2)[0][0]
    1
    """
    each = -(-len(paths) // of)
    return list(paths[which * each : (which + 1) * each])
