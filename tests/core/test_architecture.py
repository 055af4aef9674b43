"""The shape of the core: what it may import, in which direction, and what it must not know."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import referee
from referee.hooks import Hooks

CORE = Path(referee.__file__).parent
MODULES = sorted(".".join(path.relative_to(CORE).with_suffix("").parts) for path in CORE.rglob("*.py"))
PLUGINS = sorted(path.parent.name for path in CORE.parents[1].glob("plugins/*/*/__init__.py"))
ALLOWED = {
    "torch", "pluggy", "pydantic", "rich", "typer", "PIL", "jaxtyping", "numpy", "tomli_w", "platformdirs", "jinja2",
    "markupsafe", "filelock", "safetensors", "packaging", "av", "textual_image",
}  # fmt: skip
PUBLIC = [
    "Judge", "Parts", "Prompt", "RefereeError", "Result", "Rules", "Run", "Schedule", "Seat", "Spec", "Step", "ZooSpec",
    "constant", "cosine", "generate", "hookimpl", "invert", "linear", "load", "open_run", "parts_of", "sample", "score",
]  # fmt: skip


def source(module: str) -> str:
    return (CORE / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


def tree(module: str) -> ast.Module:
    return ast.parse(source(module))


def imported(node: ast.AST, *, types: bool) -> Iterator[str]:
    """Dotted names of all imports below a node, within functions too; ``types`` adds those for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING" and not types:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert not child.level, "relative imports"
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imported(child, types=types)


def own(module: str) -> set[str]:
    """The core's modules that one of them imports."""
    names = [name.removeprefix("referee.") for name in imported(tree(module), types=False)]
    homes = [home for name in names for home in (name, name.rpartition(".")[0])]
    return {module for home in homes for module in (home, f"{home}.__init__") if module in MODULES}


def test_there_is_something_to_test() -> None:
    assert {"inversion", "command.app", "plugins", "balance"} <= set(MODULES)
    assert {"referee_clip", "referee_balancers"} <= set(PLUGINS)
    assert own("inversion") >= {"balance", "panel", "contract"}
    assert own("testing.checks") >= {"testing.referees", "testing.case", "hooks"}


@pytest.mark.parametrize("module", MODULES)
def test_core_imports_no_plugin_and_no_model_library(module: str) -> None:
    tops = {name.partition(".")[0] for name in imported(tree(module), types=True)}
    allowed = ALLOWED | ({"pytest"} if module == "testing.fixtures" else set())  # of whom nothing else is made
    assert tops - set(sys.stdlib_module_names) - {"referee"} <= allowed


@pytest.mark.parametrize("module", MODULES)
def test_core_names_no_plugin(module: str) -> None:
    hooks = {name for name in vars(Hooks) if name.startswith("referee_")}  # one is called as a plug-in is
    assert not [name for name in PLUGINS if name in source(module) and name not in hooks]


def test_no_import_goes_in_a_circle() -> None:
    TopologicalSorter({module: own(module) for module in MODULES}).prepare()  # CycleError names the circle


def test_the_loop_knows_neither_settings_nor_plugins_nor_disk() -> None:
    for module in (
        "inversion",
        "panel",
        "gradients",
        "balance",
        "rules",
        "schedules",
        "contract",
        "randomness",
        "testing.toys",
    ):
        reached, queue = set(), [module]
        while queue:
            queue += own(at := queue.pop()) - reached
            reached.add(at)
        rooms = {name.partition(".")[0] for name in reached}
        assert not rooms & {"settings", "plugins", "parts", "play", "folder", "watching", "command", "hooks"}, module


def test_nothing_stands_on_the_command() -> None:
    above = [name for name in MODULES if not name.startswith(("command", "__main__"))]
    assert not [name for name in above if any(each.startswith("command") for each in own(name))]


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


COMMAND = """
import sys
from referee.command.app import main
try:
    main()
except SystemExit as end:
    assert (end.code or 0) == expected, end.code
heavy = {"torch", "transformers", "diffusers", "open_clip", "kornia", "numpy"} & set(sys.modules)
assert not heavy, heavy
"""


def command(*words: str, expected: int = 0) -> str:
    """What the command prints, in an interpreter of its own; fails if it imports a heavy library on the way."""
    return run(f"import sys; sys.argv, expected = {['referee', *words]!r}, {expected}{COMMAND}")


def test_listing_plugins_imports_no_torch() -> None:
    listed = command("plugins")
    assert "clip" in listed
    assert "failed" not in listed
    assert "pocket" in command("zoo", "list")


def test_listing_converters_imports_no_torch() -> None:
    assert "LAVIS" in command("convert", "--help")
    assert "--lavis" in command("convert", "blip2", "--help")
    command("convert", "nobody", "--out", "there", expected=2)


def test_the_bare_import_is_light() -> None:
    run("import referee, sys; assert not {'torch', 'pydantic', 'typer'} & set(sys.modules)")


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "red", "-r", "nobody"],
        ["generate", " "],
        ["generate", "red", "--set", "rules.stepz=3"],
        ["generate", "red", "--size", "big"],
        ["score", "nothing.png", "red", "-r", "nobody"],
        ["sample", "red", "--prior", "nobody"],
        ["bench", "nobody"],
        ["bench", "pocket", "--seeds", "0"],
        ["bench", "pocket", "--method", "nowhere.toml"],
        ["bench", "table", "nowhere"],
    ],
    ids=" ".join,
)
def test_refusals_come_before_torch(words: list[str]) -> None:
    assert command(*words, expected=2) == ""


def test_the_door_for_authors_is_light() -> None:
    run("import referee.testing.fixtures, sys; assert not {'torch', 'numpy', 'typer'} & set(sys.modules)")


def test_the_public_door() -> None:
    assert referee.__all__ == PUBLIC
    assert sorted(referee._HOMES) == PUBLIC
    for name in PUBLIC:
        thing = getattr(referee, name)
        assert thing is getattr(import_module(f"referee.{referee._HOMES[name]}"), name)
        assert name in dir(referee)
        assert thing.__doc__


def test_there_is_nothing_behind_another_name() -> None:
    with pytest.raises(AttributeError, match="no attribute 'generat'"):
        referee.generat  # noqa: B018


def test_every_module_says_what_it_is_for() -> None:
    assert all(ast.get_docstring(tree(module)) for module in MODULES)
