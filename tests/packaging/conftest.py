"""Fresh environments at the price of a second: they see this one's libraries, and hold what a test installs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Environment:
    """A virtual environment of its own, without torch or anything else of its own."""

    folder: Path

    @property
    def python(self) -> Path:
        return next(self.folder.glob("bin/python")) if sys.platform != "win32" else self.folder / "Scripts/python.exe"

    def run(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """``python ARGUMENTS`` in this environment, away from the checkout."""
        return subprocess.run(
            [self.python, *arguments], cwd=cwd or self.folder, capture_output=True, text=True, check=False
        )

    def install(self, what: Path, *options: str) -> None:
        """pip, with no library fetched and no build environment made: all that is needed is in sight."""
        done = self.run("-m", "pip", "install", "--no-deps", "--no-build-isolation", "--no-index", *options, what)
        assert done.returncode == 0, done.stdout + done.stderr

    def plugins(self) -> dict[str, dict[str, Any]]:
        """`referee plugins --json`, by name."""
        done = self.run("-m", "referee", "plugins", "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Environment]:
    """A maker of environments. ``editable`` says whether they see this checkout's packages, too."""

    def make(*, editable: bool) -> Environment:
        folder = tmp_path_factory.mktemp("environment")
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        environment = Environment(folder)
        own = json.loads(environment.run("-c", "import json, sys; print(json.dumps(sys.path))").stdout)
        site = Path(next(path for path in own if path.endswith("site-packages")))
        here = subprocess.run(
            [sys.executable, "-c", "import json, sys; print(json.dumps(sys.path))"],
            cwd=folder, capture_output=True, text=True, check=True,
        )  # fmt: skip
        seen = [path for path in json.loads(here.stdout) if path and path not in own]
        if not editable:
            seen = [path for path in seen if not Path(path).is_relative_to(ROOT) or path.endswith("site-packages")]
        (site / "_parent.pth").write_text("".join(f"{path}\n" for path in seen), encoding="utf-8")
        return environment

    return make
