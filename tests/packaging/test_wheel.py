"""What is built is what is meant to be installed, and it works where the checkout is out of sight."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = [Path(path) for path in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", out],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def names(wheel: Path) -> set[str]:
    return set(ZipFile(wheel).namelist())


def test_holds_the_packages_and_nothing_beside_them(names: set[str]) -> None:
    info = f"vlm_referee-{PROJECT['project']['version']}.dist-info"
    assert {name.split("/")[0] for name in names} == {package.name for package in PACKAGES} | {info}
    assert f"{info}/licenses/LICENSE" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_holds_every_file_of_a_package(names: set[str], package: Path) -> None:
    assert {f"{package.name}/__init__.py", f"{package.name}/py.typed"} <= names
    here = {
        f"{package.name}/{path.relative_to(ROOT / package).as_posix()}"
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert here == {name for name in names if name.startswith(f"{package.name}/")}


def test_entry_points_lead_into_the_wheel(wheel: Path, names: set[str]) -> None:
    (path,) = [name for name in names if name.endswith("entry_points.txt")]
    text = ZipFile(wheel).read(path).decode()
    for name, module in PROJECT["project"]["entry-points"]["referee"].items():
        assert f"{name} = {module}\n" in text
        assert f"{module}/__init__.py" in names
    assert "referee = referee.command.app:main\n" in text


def test_works_out_of_sight_of_the_checkout(wheel: Path, fresh: Callable[..., Any]) -> None:
    environment = fresh(editable=False)
    assert environment.run("-c", "import referee").returncode, "the checkout can still be seen"
    environment.install(wheel, "--ignore-installed")
    found = environment.plugins()
    assert set(found) == set(PROJECT["project"]["entry-points"]["referee"])
    assert {row["status"] for row in found.values()} == {"active"}
    code = "import referee, importlib.resources as r; print(referee.__file__, *r.files('referee.presets').iterdir())"
    told = environment.run("-c", code).stdout
    assert str(environment.folder) in told
    assert "paper.toml" in told


def test_says_its_version() -> None:
    assert version("vlm-referee") == PROJECT["project"]["version"]
