"""What people type on the command line, read as data: values, and parts with their options."""

from __future__ import annotations

import tomllib
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from referee.errors import OptionError

PART = ("name", "options")
"""What every part has, and nobody types as an option."""


def parse_value(text: str) -> Any:
    """A TOML value (number, true, "text", [list]), or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML; or a number of 5000 digits, or 1000 brackets
        return text.strip()


def parse_part(text: str, model: type[BaseModel]) -> dict[str, Any]:
    """``NAME[:key=value,...]`` as a layer; commas inside brackets or double quotes belong to the value.

    Args:
        text: as typed.
        model: what is parsed; keys that it knows are its own, the others are the plug-in's options.

    Raises:
        OptionError: it names nothing, or has a piece without an equals sign.

    >>> from referee.settings import RefereePart
    >>> parse_part("clip:weight=cosine(1,0),model=/m", RefereePart)
    {'name': 'clip', 'weight': 'cosine(1,0)', 'options': {'model': '/m'}}
    """
    name, options = text, ""
    head, colon, rest = text.partition(":")
    if colon and "=" in rest:
        first, second, tail = rest.partition(":")
        if second and "=" not in first:  # distribution:name:options
            name, options = f"{head}:{first}", tail
        else:
            name, options = head, rest
    if not name.strip() or (":" in name and not all(name.split(":"))):
        raise OptionError(f"'{text}' names no plug-in: write NAME or NAME:key=value,key=value")
    own = own_keys(model)
    layer: dict[str, Any] = {"name": name.strip()}
    for piece in _split(options):
        key, equals, value = (word.strip() for word in piece.partition("="))
        if not equals or not key:
            raise OptionError(
                f"'{piece}' in '{text}' is not of the form key=value. A value with commas goes into double quotes: "
                'prompt="a red circle, a blue square".'
            )
        if key not in own:
            layer.setdefault("options", {})[key] = parse_value(value)
        elif own[key].annotation == str | None:  # a label of 7 is a label
            layer[key] = read if isinstance(read := parse_value(value), str) else value
        else:
            layer[key] = parse_value(value)
    return layer


def own_keys(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """What may stand after the colon beside the plug-in's options, as it is typed.

    >>> from referee.settings import BalancerPart
    >>> list(own_keys(BalancerPart))
    ['space']
    """
    return {field.alias or key: field for key, field in model.model_fields.items() if key not in PART}


def _split(text: str) -> list[str]:
    pieces, depth, quoted, piece = [], 0, False, ""
    for char in text:
        quoted ^= char == '"'
        if not quoted:
            depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0 and not quoted:
            pieces.append(piece)
            piece = ""
        else:
            piece += char
    return [p for p in [*pieces, piece] if p.strip()]
