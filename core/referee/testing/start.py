"""What importing a module costs: in an interpreter of its own, as nothing is in memory there yet."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from referee.hooks import HEAVY

CODE = (
    "import sys, json, time, importlib, importlib.util as u, referee.hooks\n"
    "name, file, sys.path[:] = json.loads(sys.argv[1])\n"
    "before, start = set(sys.modules), time.process_time()\n"
    "try:\n    importlib.import_module(name)\n"
    "except ModuleNotFoundError:\n"  # a single file, or a test: known by its path
    "    spec = u.spec_from_file_location('stranger', file); spec.loader.exec_module(u.module_from_spec(spec))\n"
    "print(json.dumps([time.process_time() - start, sorted(set(sys.modules) - before)]))\n"
)


@dataclass(frozen=True, slots=True)
class Start:
    """An import.

    Attributes:
        seconds: of computing, beyond referee's own; what else runs on the machine does not count.
        heavy: the libraries of `referee.hooks.HEAVY` that came with it.
        error: the last line of the traceback, if it failed.
    """

    seconds: float = 0.0
    heavy: tuple[str, ...] = ()
    error: str = ""


def start(module: str, file: str | None = None) -> Start:
    """Import a module, or the file that it is in if it has no name that can be imported."""
    asked = json.dumps([module, file, sys.path])
    done = subprocess.run([sys.executable, "-c", CODE, asked], capture_output=True, text=True, check=False)
    if done.returncode:
        return Start(error=(done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    seconds, imported = json.loads(done.stdout.splitlines()[-1])
    return Start(seconds, tuple(sorted(HEAVY & {name.partition(".")[0] for name in imported})))
