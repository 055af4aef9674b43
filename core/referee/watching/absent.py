"""Who sat out: parts whose gradient was zero or not finite had no say at a step, and it should be known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def sat_out(
    rows: Iterable[tuple[Mapping[str, Sequence[Any]], Mapping[str, Sequence[bool]]]],
) -> dict[str, tuple[int, int]]:
    """Who sat out, how often, and of how often each played, all pictures counted.

    Args:
        rows: of each step ``norms`` and ``sat_out``, as in metrics.jsonl.

    >>> sat_out([({"a": [1.0, 0.0], "b": [1.0, 1.0]}, {"a": [False, True]}), ({"a": [2.0, 2.0]}, {})])
    {'a': (1, 4)}
    """
    played, out = Counter[str](), Counter[str]()
    for norms, absent in rows:
        played.update({name: len(values) for name, values in norms.items()})
        out.update({name: sum(values) for name, values in absent.items()})
    return {name: (count, played[name]) for name, count in out.items() if count}


def silent(names: Iterable[str], norms: Iterable[Mapping[str, object]]) -> Iterator[str]:
    """Who was at the table and never had a say, in sentences.

    >>> list(silent(["a", "b"], [{"a": 1.0}, {"a": 0.5, "prior": 2.0}]))
    ["'b' sat the whole run out. Nothing on the picture is its doing."]
    """
    heard = {name for row in norms for name in row}
    for name in names:
        if name not in heard:
            yield f"'{name}' sat the whole run out. Nothing on the picture is its doing."


def told(found: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    """What `sat_out` found, in sentences."""
    for name, (count, played) in found.items():
        always = " Nothing on the picture is its doing." if count == played else ""
        yield f"'{name}' sat out {count} of {played} times: its gradient was zero or not finite.{always}"
