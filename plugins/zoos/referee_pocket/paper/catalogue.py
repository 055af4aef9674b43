"""All of the paper's tables, figures and propositions that are told of, and how they are chosen."""

from __future__ import annotations

from collections.abc import Sequence

from referee.bench.contract import Layer
from referee.errors import OptionError, nearest
from referee_pocket.paper.claims import Table
from referee_pocket.paper.figures import FIGURE_6, FIGURE_7, FIGURE_10, FIGURE_12, PROPOSITIONS
from referee_pocket.paper.tables import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_9

TABLES: tuple[Table, ...] = (
    TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, TABLE_6, TABLE_7, TABLE_9, FIGURE_6, FIGURE_7, FIGURE_10, FIGURE_12,
    PROPOSITIONS,
)  # fmt: skip
ALSO = {"8": "5", "f3": "2", "f11": "f10"}
"""Told together."""


def chosen(text: str) -> tuple[Table, ...]:
    """Tables by their numbers, as typed: ``4+9``, or all.

    Raises:
        OptionError: there is none of a number.

    >>> [table.key for table in chosen("8+f7")]
    ['5', 'f7']
    """
    if text == "all":
        return TABLES
    keys = [ALSO.get(key, key) for key in (word.strip().lower() for word in text.split("+")) if key]
    known = {table.key: table for table in TABLES}
    for key in keys or [text]:
        if key not in known:
            raise OptionError(f"There is no table '{key}' of the paper here. {nearest(key, [*known, *ALSO])}")
    return tuple(table for table in TABLES if table.key in keys)


def methods(tables: Sequence[Table]) -> dict[str, Layer]:
    """Those of some tables, each once."""
    return {name: layer for table in tables for name, layer in table.methods.items()}


def wanted(tables: Sequence[Table], method: str, suite: str) -> int:
    """How many of a suite's prompts a method draws for some tables."""
    return max((table.wants(method, suite) for table in tables), default=0)
