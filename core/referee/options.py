"""Options and settings that somebody gave, checked against their pydantic model; what is wrong is said in sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from referee.errors import OptionError, nearest

M = TypeVar("M", bound=BaseModel)


def validate(model: type[M], values: Mapping[str, Any], owner: str, also: Iterable[str] = ()) -> M:
    """A plug-in's options, checked.

    Args:
        also: names that may stand beside the options, for the hint at a misspelt one.

    Raises:
        OptionError: naming the part and each option that is unknown or wrong.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise OptionError(f"{owner}: {explain(error, model, also)}") from error


def explain(error: ValidationError, model: type[BaseModel], also: Iterable[str] = ()) -> str:
    """pydantic's findings as sentences, with the nearest names for unknown fields; ``also`` are such names, too."""
    sentences = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        owner: Any = model
        for part in found["loc"][:-1]:
            owner = _inner(owner, part)
        fields = owner.model_fields if owner is not None else {}
        known = {field.alias or name: field for name, field in fields.items()}  # as people type them
        if found["type"] == "extra_forbidden":
            sentences.append(f"there is no '{where}'. {nearest(str(found['loc'][-1]), [*known, *also])}")
        elif found["type"] == "missing" and found["loc"][-1] in known:
            sentences.append(f"'{where}' must be given: {known[found['loc'][-1]].description}")
        else:
            message = found["msg"].removeprefix("Value error, ")
            if found["type"] == "string_type":
                message += f'; what looks like something else is text in double quotes, {found["loc"][-1]}="..."'
            plain = where and not isinstance(found["input"], (dict, list))
            given = f" (given: {_told(found['input'])})" if plain else ""
            sentences.append(f"{where + ': ' if where else ''}{message}{given}")
    return "; ".join(sentences)


def _told(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _inner(owner: Any, part: str | int) -> Any:
    """The model that a field holds, through options and lists."""
    if owner is None or isinstance(part, int):
        return owner
    field = owner.model_fields.get(part)
    kinds = [field.annotation] if field else []
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        kinds += getattr(kind, "__args__", ())
    return None
