"""Layers of settings, as TOML gives them: presets, files, single values; later ones go over earlier ones."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from referee.errors import OptionError, nearest
from referee.files import NotPlain, read_plain
from referee.plugins import Registry
from referee.typed import parse_value

Layer = dict[str, Any]
"""A nested dictionary, as TOML gives it."""

MAX_TOML = 1 << 20
"""Bytes of a file."""
MAX_DEPTH = 20
"""Tables within tables: deeper ones would break what writes them."""
RECORD = "run"
"""The table in which a run's record says what is no setting: prompt, versions. A file that has it is complete."""


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Layer:
    """Tables merge key by key; anything else, lists too, is replaced. A part of another name starts afresh.

    >>> merge({"rules": {"steps": 1, "tail": 0}}, {"rules": {"steps": 2}})
    {'rules': {'steps': 2, 'tail': 0}}
    """
    out = dict(base)
    for key, value in over.items():
        before = out.get(key)
        if (
            isinstance(before, dict)
            and isinstance(value, dict)
            and before.get("name") in (None, value.get("name", before.get("name")))
        ):
            out[key] = merge(before, value)
        else:
            out[key] = value
    return out


def shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    """It is nested no deeper than what writes it can follow."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(shallow(one, depth - 1) for one in inner)


def texts(value: Any) -> Iterator[str]:
    """All keys and texts in it."""
    if isinstance(value, str):
        yield value
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for one in inner:
        yield from texts(one)


def read_toml(path: str | Path) -> Layer:
    """Settings from a TOML file; a ``run.toml`` that a run wrote is one too.

    Raises:
        OptionError: no such file, no plain one, or it is not TOML.
    """
    try:
        layer = tomllib.loads(read_plain(Path(path), MAX_TOML).decode("utf-8"))
    except NotPlain as error:
        raise OptionError(f"--config {path} {error}.") from error
    except OSError as error:
        raise OptionError(f"--config {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number of 5000 digits, 1000 brackets
        raise OptionError(f"--config {path} is not TOML: {error}.") from error
    if not shallow(layer):
        raise OptionError(f"--config {path} is nested more than {MAX_DEPTH} deep.")
    return layer


def preset(name: str, registry: Registry) -> Layer:
    """A preset by name: those that ship with the framework, and those that zoos bring.

    One that says ``preset = "other"`` is a layer over that other.

    Raises:
        OptionError: no such preset, with the nearest names.
    """
    known = {path.name.removesuffix(".toml"): path.read_text(encoding="utf-8") for path in _shipped()}
    for zoo in registry.names("zoo"):
        known |= registry.find("zoo", zoo).presets
    if name not in known:
        raise OptionError(f"There is no preset '{name}'. {nearest(name, known)}")
    return on_its_preset(tomllib.loads(known[name]), registry)


def on_its_preset(layer: Layer, registry: Registry) -> Layer:
    """A layer that says ``preset = "name"``, over that preset; any other as it is.

    Raises:
        OptionError: no such preset.
    """
    if "preset" not in layer:
        return layer
    return merge(preset(str(layer["preset"]), registry), {key: said for key, said in layer.items() if key != "preset"})


def _shipped() -> list[Any]:
    return [path for path in (files("referee") / "presets").iterdir() if path.name.endswith(".toml")]


def parse_set(text: str) -> Layer:
    """``a.b=value`` as a layer; the value is read as TOML, or else as text.

    >>> parse_set("rules.steps=80"), parse_set("rules.lr=cosine(1,0.5)")
    ({'rules': {'steps': 80}}, {'rules': {'lr': 'cosine(1,0.5)'}})
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise OptionError(f"--set {text}: write a.b=value, for example --set rules.noise=0.05")
    layer: Any = parse_value(value)
    for key in reversed(keys):
        layer = {key: layer}
    return dict(layer)
