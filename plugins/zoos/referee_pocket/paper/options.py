"""What can be set about the bench `paper`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from referee.bench.contract import SELECTS
from referee.weights import check_folder
from referee_pocket import MEND, WEIGHTS


class Options(BaseModel):
    """Which of the paper's tables, and how many prompts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tables: Annotated[str, BeforeValidator(lambda given: str(given) if isinstance(given, int) else given)] = Field(
        "all",
        description="the paper's numbers, joined by +, figures with an f: 4+9+f7; or all",
        json_schema_extra=SELECTS,
    )
    n: int | None = Field(
        None, ge=1, description="prompts of a suite at most; each table's own if not given", json_schema_extra=SELECTS
    )
    views: int = Field(16, ge=1, description="augmented views on which the referee's losses are told")
    weights: Path = Field(WEIGHTS, description="folder of the judge and of the referee that score")


def check(options: Options) -> None:
    """Refuse what cannot be, before anything loads.

    Raises:
        OptionError: there is none of the tables, or nothing of them is drawn by the bench.
        WeightsError: a file is missing.
    """
    from referee.errors import OptionError
    from referee_pocket.paper.catalogue import chosen, methods

    if not methods(chosen(options.tables)):
        raise OptionError(
            f"tables={options.tables} has no pictures that the bench draws: see `python -m referee_pocket.paper film` "
            "and `smooth`."
        )
    folder = options.weights.expanduser()
    for role in ("judge", "blip2"):
        check_folder(folder / role, ["config.json", "model.safetensors"], mend=MEND)
