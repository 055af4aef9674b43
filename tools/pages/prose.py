"""Docstrings and models as Markdown."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from referee.schedules import Schedule

HEADINGS = ("Args", "Attributes", "Raises", "Returns", "Warns", "Yields")
SIGNS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most", "multiple_of": "a multiple of"}
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", NoneType: "none"}


def fenced(code: str, language: str = "python", title: str = "") -> str:
    """A code block."""
    about = f' title="{title}"' if title else ""
    return f"```{language}{about}\n{code.strip(chr(10))}\n```\n"


def plain(text: str) -> str:
    """Words of a docstring on one line: code between single backticks, no tag that a browser would obey."""
    text = " ".join(text.replace("``", "`").split())
    pieces = re.split("(`[^`]*`)", text)
    return "".join(p if p.startswith("`") else p.replace("<", "&lt;").replace("*", "\\*") for p in pieces)


def prose(text: str | None) -> str:
    """A docstring: paragraphs, indented code, tables, and the sections of arguments as lists."""
    return "\n".join(_blocks(inspect.cleandoc(text or "")))


def _blocks(text: str) -> Iterator[str]:
    for block in re.split(r"\n\s*\n(?=\S)", text):
        head, _, rest = block.partition("\n")
        if head.rstrip(":") in HEADINGS and head.endswith(":"):
            yield f"**{head.rstrip(':')}**\n\n" + _entries(rest)
        elif head.startswith(("|", "- ")):
            yield block.replace("``", "`") + "\n"
        elif head.startswith(">>> "):
            yield fenced(block, "pycon")
        else:
            said, _, code = block.partition("\n    ")
            yield plain(said) + "\n"
            if code:
                yield fenced(inspect.cleandoc("\n    " + code))


def _entries(text: str) -> str:
    """``name: meaning`` over indented lines as a definition list; what is none, as words."""
    found = re.split(r"\n(?=\S)", inspect.cleandoc(text))
    if not all(re.match(r"[\w, ]+: ", entry) for entry in found):
        return plain(text) + "\n"
    return "\n".join(define(name, plain(said)) for name, _, said in (entry.partition(": ") for entry in found))


def define(name: str, said: str, about: str = "") -> str:
    """An entry of a definition list."""
    return f"`{name}`{f' · {about}' if about else ''}\n:   {said or 'No more is said.'}\n"


def options(model: type[BaseModel], leave: tuple[str, ...] = ()) -> str:
    """The fields of a model, as people type them, with types, limits, defaults and meaning."""
    entries = [
        define(field.alias or name, plain(field.description or ""), f"{kind(field)}, {default(field)}")
        for name, field in model.model_fields.items()
        if name not in leave
    ]
    return "\n".join(entries) or "Nothing can be set.\n"


def default(field: FieldInfo) -> str:
    """What is taken if nothing is said."""
    if field.is_required():
        return "must be given"
    if field.default_factory:
        return "default: empty" if field.default_factory in (dict, list) else "default: see below"
    return f"default: {value(field.default)}"


def value(given: Any) -> str:
    """A default as it is written in TOML."""
    if given is None:
        return "none"
    if isinstance(given, bool):
        return f"`{str(given).lower()}`"
    if isinstance(given, Path) and given.is_absolute():  # one within the package: where that lies is this machine's
        return f"`{given.name}` of the package"
    if isinstance(given, tuple):
        return f"`[{', '.join(map(str, given))}]`"
    return f"`{given}`" if str(given) else '`""`'


def kind(field: FieldInfo) -> str:
    """A field's type in words, with its limits."""
    return " or ".join(dict.fromkeys(_words(field.annotation))) + _limits(field.metadata)


def _limits(metadata: Any) -> str:
    said = [
        f"{sign} {getattr(limit, key):g}"
        for limit in metadata
        for key, sign in SIGNS.items()
        if getattr(limit, key, None) is not None and isinstance(getattr(limit, key), (int, float))
        and abs(getattr(limit, key)) < 1e9
    ]  # fmt: skip
    return f" {' and '.join(said)}" if said else ""


def _words(annotation: Any) -> Iterator[str]:
    origin, inner = get_origin(annotation), get_args(annotation)
    if annotation is NoneType:
        return
    if origin is Annotated:
        limits = _limits(inner[1:])
        yield from (word + limits for word in _words(inner[0]))
    elif origin is Literal:
        yield from (f"`{word}`" for word in inner)
    elif annotation is Schedule:
        yield "number or [schedule](../configuration.md#schedules)"
    elif origin in (tuple, list):
        yield f"list of {' or '.join(f'{word}s' for word in dict.fromkeys(_words(inner[0])))}"
    elif origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        yield "table"
    elif inner:  # a union
        for one in inner:
            yield from _words(one)
    else:
        yield WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))
