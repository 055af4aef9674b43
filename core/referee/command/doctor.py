"""`referee doctor`: what is here, what works, and what is broken, in a few seconds."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from time import monotonic
from typing import Annotated, Literal

import typer

from referee.errors import RefereeError

Status = Literal["ok", "note", "broken"]
MARKS = {"ok": "✓", "note": "·", "broken": "✗"}
LOW_DISK, LOW_MEMORY = 1 << 30, 1 << 30
"""Bytes: less than this is told."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: "broken" makes the command end with 1, a "note" is worth a look."""

    about: str
    status: Status
    told: str


def doctor(
    json_: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
    plugin: Annotated[
        list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="Look at this file, too; its code runs.")
    ] = None,
) -> None:
    """Look this installation over: versions, devices, plug-ins, zoos, disk and memory, and a small run.

    Ends with 1 if something is broken.

    [dim]referee doctor[/dim]
    """
    findings = []
    for found in examine(plugin or []):
        findings.append(found)
        if not json_:
            print(f"{MARKS[found.status]} {found.about:26} {found.told}")
    broken = [found.about for found in findings if found.status == "broken"]
    if json_:
        print(json.dumps({"broken": broken, "findings": [asdict(found) for found in findings]}, indent=2))
    elif broken:
        print(f"\nBroken: {', '.join(broken)}.")
    if broken:
        raise typer.Exit(1)


def examine(files: list[Path]) -> Iterator[Finding]:
    """Look at everything, one after the other; what fails is a finding and stops nothing."""
    for about, look in (
        ("python", _python), ("libraries", _libraries), ("devices", _devices), ("plug-ins", lambda: _plugins(files)),
        ("zoos", lambda: _zoos(files)), ("disk", _disk), ("memory", _memory), ("self-test", self_test),
    ):  # fmt: skip
        try:
            yield from look()
        except (Exception, SystemExit) as error:  # a broken library may raise anything when it is imported
            yield Finding(about, "broken", " ".join(f"{type(error).__name__}: {error}".split()))


def _python() -> Iterator[Finding]:
    yield Finding("python", "ok", f"{platform.python_version()}, {platform.system()} {platform.machine()}")
    yield Finding("vlm-referee", "ok", version("vlm-referee"))


def _libraries() -> Iterator[Finding]:
    """Everything that the package requires, as its own metadata say."""
    from re import match

    for need in requires("vlm-referee") or ():
        if "extra ==" in need:
            continue
        found = match(r"[A-Za-z0-9._-]+", need)
        name = found[0] if found else need
        try:
            yield Finding(name, "ok", version(name))
        except PackageNotFoundError:
            yield Finding(name, "broken", f"is not installed. Try: pip install '{need}'")


def _devices() -> Iterator[Finding]:
    import torch

    yield Finding("device cpu", "ok", f"{torch.get_num_threads()} threads of {os.cpu_count()} cores")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        told = f"{torch.cuda.get_device_name(index)}, {_size(free)} of {_size(total)} free"
        yield Finding(f"device cuda:{index}", "ok", told)
    if not torch.cuda.is_available():
        yield Finding("device cuda", "note", "none is seen; everything computes on the CPU")
    if torch.backends.mps.is_available():
        yield Finding("device mps", "note", "is there, and untried: --device mps")


def _plugins(files: list[Path]) -> Iterator[Finding]:
    from referee.plugins import discover

    for found in discover(files=files).plugins:
        who = f"{found.distribution} {found.version}".strip()
        status: Status = {"active": "ok", "blocked": "note"}.get(found.status, "broken")  # type: ignore[assignment]
        offers = ", ".join(f"{kind} {name}" for kind, name in found.offers)
        yield Finding(f"plug-in {found.name}", status, f"{who}: {found.reason or offers or 'observes'}")


def _zoos(files: list[Path]) -> Iterator[Finding]:
    """A zoo that is to be fetched and is not there is a note, as others may play; one that should be there: broken."""
    from referee import zoos
    from referee.plugins import discover

    registry = discover(files=files)
    for name in registry.names("zoo"):
        zoo = registry.find("zoo", name)
        try:
            shelf = list(zoo.checkpoints())
        except RefereeError as error:
            yield Finding(f"zoo {name}", "broken", str(error))
            continue
        lacking = [checkpoint.name for checkpoint in shelf if list(zoos.faults(checkpoint))]
        if not lacking:
            yield Finding(f"zoo {name}", "ok", zoo.summary)
        else:
            told = f"{', '.join(lacking)} not whole: `referee zoo check {name}`"
            yield Finding(f"zoo {name}", "note" if zoo.get else "broken", told)


def _disk() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("disk", "ok" if free > LOW_DISK else "note", f"{_size(free)} free in {Path.cwd()}")


def _memory() -> Iterator[Finding]:
    """What the system can still give, where it says so (Linux)."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
    except (OSError, KeyError, ValueError):
        yield Finding("memory", "note", "this system does not say how much is free")
    else:
        yield Finding("memory", "ok" if free > LOW_MEMORY else "note", f"{_size(free)} of {_size(total)} free")


def self_test(steps: int = 20) -> Iterator[Finding]:
    """The whole loop with toys: prior, augmentation, referee; the picture must come nearer to the prompt."""
    from referee.inversion import Seat
    from referee.play import generate, parts_of
    from referee.rules import Rules
    from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

    started = monotonic()
    rules = Rules(steps=steps, tail=0, lr=0.2, noise=0.0, prior_weight=0.05, views=2)
    parts = parts_of(
        ToyPrior(), [Seat("toy", ToyReferee())], augmentation=ToyAugmentation(), rules=rules, size=(16, 16)
    )
    losses = [row["losses"]["toy"][0] for row in generate("red", parts).history]
    told = f"{steps} steps in {monotonic() - started:.1f} s, loss {losses[0]:.3f} -> {losses[-1]:.3f}"
    yield Finding("self-test", "ok" if losses[-1] < losses[0] / 2 else "broken", told)


def _size(count: float) -> str:
    return f"{count / (1 << 30):.1f} GiB"
