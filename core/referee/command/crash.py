"""Whose fault is a crash? If the traceback leads through a plug-in that is not ours, that is said, with the way out."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points

from referee.hooks import PROJECT

OWN = "vlm-referee"
"""The distribution that the framework comes in, and its built-in plug-ins."""


FILE = "referee_file_"
"""What the modules of ``--plugin FILE`` are called, see `referee.plugins`."""


def report(error: BaseException) -> int:
    """Print an error's traceback, and whose it is, if it is a stranger's; returns the exit code."""
    traceback.print_exception(error)
    if said := blame(error):
        print(f"referee: {said}", file=sys.stderr)
    return 1


def blame(error: BaseException, found: Iterable[EntryPoint] | None = None) -> str:
    """A sentence that names the plug-in whose code is nearest to where an error was raised; "" if there is none.

    Args:
        found: the entry points; by default those of this environment.
    """
    plugins = entry_points(group=PROJECT) if found is None else found
    owners = {entry.module.partition(".")[0]: entry for entry in plugins if not entry.dist or entry.dist.name != OWN}
    for module in _modules(error):
        entry = owners.get(module.partition(".")[0])
        if entry is not None:
            whose = f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"
            return f"This happened in the plug-in '{entry.name}' ({whose}). To go on without it: -p no:{entry.name}"
        if module.startswith(FILE):
            return f"This happened in the plug-in file {module.removeprefix(FILE)}.py, given by --plugin."
    return ""


def _modules(error: BaseException) -> Iterator[str]:
    """Names of the modules that an error passed through, innermost first; then those of its causes."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = [str(frame.f_globals.get("__name__", "")) for frame, _ in traceback.walk_tb(cause.__traceback__)]
        yield from reversed(frames)
        cause = cause.__cause__ or cause.__context__
