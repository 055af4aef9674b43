"""`core/` and `plugins/*/` are roots on the path: no package themselves, each folder in them one import name.

So a plug-in can be lifted into a repository of its own, and wheel, editable install, ruff and mypy agree on names.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOOLS: dict[str, Any] = PROJECT["tool"]


def folders(of: Path) -> list[Path]:
    return sorted(path for path in of.iterdir() if path.is_dir() and path.name[0] not in "._")


KINDS = folders(ROOT / "plugins")
ROOTS = [ROOT / "core", *KINDS]
PACKAGES = [package for root in ROOTS for package in folders(root)]


def relative(paths: list[Path]) -> set[str]:
    return {path.relative_to(ROOT).as_posix() for path in paths}


@pytest.mark.parametrize("root", [ROOT / "core", ROOT / "plugins", *KINDS], ids=lambda path: path.name)
def test_a_root_is_no_package(root: Path) -> None:
    assert not [path.name for path in root.glob("*.py")]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda path: path.name)
def test_a_folder_in_a_root_is_one_import_name(package: Path) -> None:
    assert (package / "__init__.py").is_file()
    assert (package / "py.typed").is_file()
    assert package.name == "referee" or package.name.startswith("referee_")


def test_import_names_are_unique() -> None:
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)


def test_all_tools_know_the_same_packages_and_roots() -> None:
    assert set(TOOLS["hatch"]["build"]["targets"]["wheel"]["packages"]) == relative(PACKAGES)
    assert set(TOOLS["mypy"]["files"]) == relative(PACKAGES)
    roots = relative(ROOTS)
    assert set(TOOLS["hatch"]["build"]["dev-mode-dirs"]) == roots
    assert set(TOOLS["ruff"]["src"]) == roots
    assert set(TOOLS["mypy"]["mypy_path"]) == roots


def test_every_plugin_has_its_entry_point() -> None:
    modules = PROJECT["project"]["entry-points"]["referee"].values()
    assert sorted(modules) == sorted(package.name for package in PACKAGES if package.name != "referee")
