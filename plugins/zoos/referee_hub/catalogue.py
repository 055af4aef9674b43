"""From a zoo's TOML to its checkpoints, with the places of their files in the hub's cache on this machine.

summary = "half a line"
preset = "the name of its settings"

[checkpoints.NAME]
for = "PART"                    # the part whose option points here; left out: only as zoo:NAME
option = "OPTION"               # which of its options, if not "model"
repository = "owner/name"       # on the hub, with
revision = "40 hex digits"      # so that nobody can change what is behind it; or instead of both
folder = "NAME"                 # a place among the person's own data, for what is made on this machine
licence = "", note = "", optional = true
thrift = { PART = { OPTION = "zoo:NAME" } }   # options with which a part takes less memory by means of this one
mend = "what to type if it is not here"    # {folder} stands for the place

[checkpoints.NAME.files]
"unet/config.json" = { bytes = 743, sha256 = "..." }    # either may be left out if it is not known
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

from referee.hooks import Checkpoint, ZooFile, ZooSpec
from referee.zoos import user_folder

from .architecture import outline

Outline = Callable[[str], Mapping[str, str]]
SHARED = "shared"
"""The referees of all zoos; no zoo itself."""
SUFFIXES = (".json", ".txt", ".safetensors")
"""What is ever fetched: data. No pickle (.bin, .ckpt, .pt), no code."""
COMMIT = re.compile("[0-9a-f]{40}")
SHA256 = re.compile("[0-9a-f]{64}")


def names() -> list[str]:
    """The zoos of this package."""
    found = (path.name.removesuffix(".toml") for path in (files(__package__) / "zoos").iterdir())
    return sorted(name for name in found if name != SHARED)


def zoo(name: str) -> ZooSpec:
    """A zoo of this package, as plug-ins register it."""
    own, shared = (_read(f"zoos/{each}.toml") for each in (name, SHARED))
    own["checkpoints"] |= shared["checkpoints"]
    return from_tables(name, own, _text(f"presets/{name}.toml"), partial(outline, name))


def from_tables(name: str, tables: dict[str, Any], preset: str, outline: Outline | None = None) -> ZooSpec:
    """A zoo from what its TOML says, in the form told above; for zoos of other packages, too.

    Args:
        name: as typed, ``--zoo NAME``.
        tables: the TOML's.
        preset: settings as TOML text.
        outline: of each checkpoint by name: see `referee.hooks.Checkpoint.outline`.

    Raises:
        ValueError: tables of another form, a file that is no data, a revision that is no commit, or a sum that is none.
    """
    try:
        entries: dict[str, dict[str, Any]] = tables["checkpoints"]
        for entry in entries.values():
            _check(entry)
        summary, called = str(tables["summary"]), str(tables["preset"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"zoo {name}: its tables are not of the form that is told here: {error!r}") from error
    return ZooSpec(
        name,
        summary,
        called,
        partial(_checkpoints, name, entries, outline),
        {called: preset},
        get=_get,
    )


def _checkpoints(zoo: str, entries: dict[str, dict[str, Any]], outline: Outline | None) -> tuple[Checkpoint, ...]:
    return tuple(_checkpoint(zoo, name, entry, outline) for name, entry in entries.items())


def _checkpoint(zoo: str, name: str, entry: dict[str, Any], outline: Outline | None) -> Checkpoint:
    part, option = entry.get("for", ""), entry.get("option", "model")
    folder = snapshot(entry["repository"], entry["revision"]) if "repository" in entry else user_folder(entry["folder"])
    some = f" {name}" if entry.get("optional") else ""
    mend = f"Get it: referee zoo get {zoo}{some}" + (f", or say {part}:{option}=FOLDER." if part else "")
    return Checkpoint(
        name=name,
        folder=folder,
        files=tuple(ZooFile(n, f.get("bytes"), f.get("sha256", "")) for n, f in entry["files"].items()),
        options={part: {option: str(folder)}} if part else {},
        source=f"{entry['repository']}@{entry['revision']}" if "repository" in entry else "",
        licence=entry.get("licence", ""),
        note=entry.get("note", ""),
        mend=entry.get("mend", mend).replace("{folder}", shlex.quote(str(folder))),
        optional=entry.get("optional", False),
        outline=partial(outline, name) if outline else None,
        thrift=entry.get("thrift", {}),
    )


def snapshot(repository: str, revision: str) -> Path:
    """Where the hub's cache (HF_HOME, HF_HUB_CACHE) keeps a repository at a commit; nothing needs to be there."""
    from huggingface_hub import constants  # light, and it reads the environment

    return Path(constants.HF_HUB_CACHE) / f"models--{repository.replace('/', '--')}" / "snapshots" / revision


def _get(checkpoint: Checkpoint) -> None:
    from .fetch import fetch

    fetch(checkpoint)


def _check(entry: dict[str, Any]) -> None:
    if "repository" in entry and not COMMIT.fullmatch(entry.get("revision", "")):
        raise ValueError(f"{entry['repository']}: the revision must be a commit of 40 hexadecimal digits")
    for name, file in entry["files"].items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or {"\\", ":"} & set(name) or path.suffix not in SUFFIXES:
            raise ValueError(f"{name}: only {', '.join(SUFFIXES)} files below the checkpoint's folder are read")
        if "sha256" in file and not SHA256.fullmatch(file["sha256"]):
            raise ValueError(f"{name}: {file['sha256']} is no sha256")


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads(_text(name))
