"""`referee plugins new`: a small, whole project of one's own, from the templates that ship with the package.

The templates are plain files under ``templates/``, filled in by `string.Template`. The folder appears whole or not at
all.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from string import Template

from referee.errors import OptionError, OutputError, PluginError
from referee.hooks import API_VERSION
from referee.plugins import NAME, Kind, Registry
from referee.settings import NO_ZOO

PROJECT = {
    "pyproject.toml": "pyproject.toml", "README.md": "README.md", "gitignore": ".gitignore",
    "ci.yml": ".github/workflows/test.yml", "conftest.py": "tests/conftest.py",
}  # fmt: skip
"""Where the templates that all kinds share go to."""
RESERVED = (NO_ZOO, "prior")
"""Names that mean something else on the command line or in a run's numbers."""
USAGE: dict[Kind, str] = {
    "referee": 'referee generate "a red circle" --referee blip2 --referee $name:weight=0.3',
    "prior": 'referee generate "a red circle" --zoo none --prior $name --referee NAME',
    "augmentation": 'referee generate "a red circle" --aug $name',
    "balancer": """referee generate "a red circle" --set 'balancer.name="$name"'""",
    "zoo": 'referee generate "a red circle" --zoo $name',
    "bench": "referee bench $name --out runs/$name",
}
LONGEST = 40


def check_name(name: str, kind: Kind, registry: Registry) -> None:
    """Refuse a name that cannot be typed, means something else, or is taken.

    Raises:
        OptionError: it is no name.
        PluginError: an installed plug-in has it; names the distribution.
    """
    if name.startswith("referee-"):
        raise OptionError(f"The project will be called referee-NAME: say {name.removeprefix('referee-') or 'NAME'}.")
    if not NAME.fullmatch(name) or not name[0].isalpha() or len(name) > LONGEST:
        raise OptionError(
            f"'{name}' is no name for a plug-in: use lower case, digits and dashes, a letter first, {LONGEST} at most."
        )
    if name in RESERVED:
        raise OptionError(f"'{name}' means something else to the command: choose another name.")
    for plugin in registry.plugins:
        if name == plugin.name or (kind, name) in plugin.offers:
            raise PluginError(f"'{name}' is taken by the installed plug-in {plugin.distribution}: choose another name.")
    if find_spec(module_of(name)) is not None:
        raise PluginError(f"A module '{module_of(name)}' is installed already: choose another name.")


def module_of(name: str) -> str:
    """The import name of a plug-in's module.

    >>> module_of("my-clip")
    'referee_my_clip'
    """
    return f"referee_{name.replace('-', '_')}"


def project(name: str, kind: Kind) -> dict[str, str]:
    """The files of a new project by path, filled in."""
    module = module_of(name)
    words = {
        "name": name,
        "kind": kind,
        "module": module,
        "class_": "".join(part.capitalize() for part in name.split("-")),
        "variable": f"{module.upper()}_WEIGHTS",
        "version": version("vlm-referee"),
        "api": str(API_VERSION),
        "usage": Template(USAGE[kind]).substitute(name=name),
    }
    templates = files("referee") / "templates"
    sources = {target: templates / "project" / f"{source}.template" for source, target in PROJECT.items()}
    sources[f"{module}.py"] = templates / kind / "module.py.template"
    sources[f"tests/test_{module.removeprefix('referee_')}.py"] = templates / kind / "test.py.template"
    return {path: Template(source.read_text(encoding="utf-8")).substitute(words) for path, source in sources.items()}


def write_project(contents: dict[str, str], folder: Path) -> None:
    """All of a folder or nothing: under a temporary name beside it, then renamed.

    Raises:
        OutputError: the folder is there already, or cannot be written.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        if folder.exists():
            raise OutputError(f"{folder} is there already: choose another --out, or remove it.")
        for name, text in contents.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        temporary.rename(folder)
    except OSError as error:
        raise OutputError(f"{folder} cannot be written: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
