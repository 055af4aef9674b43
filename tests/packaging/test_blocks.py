"""Every code block of the documentation does what it says: Python runs, commands parse and the cheap ones run, TOML is
read by what reads settings.

A block with a title is a file of that name; the blocks of a page play in their order, in one folder.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
from pages import everything
from PIL import Image
from typer.testing import CliRunner

import referee
from referee.command.app import app
from referee.command.asked import spelt
from referee.command.layer import flag_layer
from referee.command.scaffold import project
from referee.errors import WeightsError
from referee.layers import Layer, on_its_preset, parse_set, preset, read_toml
from referee.parts import check
from referee.plugins import Registry, discover
from referee.prompt import Prompt
from referee.settings import NO_ZOO, build

ROOT = Path(__file__).parents[2]
WRITTEN = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "docs").glob("*.md")
    if path.stem != "troubleshooting"  # whose commands are to fail: test_troubleshooting.py
}
GUIDES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
MADE = everything()
LANGUAGES = {"sh", "python", "pycon", "toml", "text"}
CHEAP = {"plugins", "plugins show", "plugins new", "plugins check", "zoo list", "zoo show"}
"""Commands that are run where a page in docs/ names them."""
SHORT = ["--steps", "3", "--views", "1", "--set", "rules.tail=1"]


class Block(NamedTuple):
    language: str
    title: str
    text: str


def blocks(text: str) -> list[Block]:
    """A page's code blocks. One without a language is of a shell."""
    found = []
    for indent, about, body in re.findall(r"^( *)```([^\n]*)\n(.*?)^\1```", text, flags=re.DOTALL | re.MULTILINE):
        language, _, rest = about.partition(" ")
        title = re.search(r'title="([^"]*)"', rest)
        lines = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        found.append(Block(language or "sh", title[1] if title else "", lines))
    return found


def lines(block: Block) -> list[list[str]]:
    """The words of each command of a shell block."""
    split = [shlex.split(line.removeprefix("$ "), comments=True) for line in block.text.splitlines()]
    return [words for words in split if words]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a page plays: referee-hello is installed there, and a photo and a mask lie there."""
    shutil.copytree(ROOT / "examples" / "referee-hello" / "referee_hello", tmp_path / "site" / "referee_hello")
    about = tmp_path / "site" / "referee_hello-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: referee-hello\nVersion: 0.1.0\n")
    (about / "entry_points.txt").write_text("[referee]\nhello = referee_hello\n")
    place = tmp_path / "page"
    place.mkdir()
    Image.new("RGB", (64, 64), "grey").save(place / "photo.png")
    Image.new("L", (64, 64), "white").save(place / "mask.png")
    monkeypatch.chdir(place)
    for path in (tmp_path / "site", place):
        monkeypatch.syspath_prepend(str(path))
    yield place
    for name in [name for name in sys.modules if name.startswith("referee_")]:
        origin = getattr(sys.modules[name], "__file__", None)
        if origin and Path(origin).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.mark.parametrize("page", sorted(WRITTEN))
def test_a_page_plays(page: str, folder: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(WRITTEN[page]):
        assert block.language in LANGUAGES, block
        if block.title:
            (folder / block.title).write_text(block.text)
        if block.language == "python" and not block.title:
            exec(compile(block.text, page, "exec"), names)
        elif block.language == "sh":
            for words in lines(block):
                check_command(words)
                if words[0] == "referee" and name_of(words[1:]) in CHEAP:
                    done = CliRunner().invoke(app, words[1:])
                    assert done.exit_code == 0, (words, done.output, done.exception)
        elif block.language == "toml":
            check_toml(block)


@pytest.mark.parametrize("page", sorted(GUIDES | MADE))
def test_a_guide_is_right(page: str, folder: Path) -> None:
    """README, CONTRIBUTING and the pages made of the code: nothing is drawn, all names are looked up."""
    (folder / "referee_mine.py").write_text(project("mine", "referee")["referee_mine.py"])  # `referee plugins new mine`
    for number, block in enumerate(blocks((GUIDES | MADE)[page])):
        assert block.language in LANGUAGES, block
        if block.language == "python":
            check_names(block.text)
            if "@hookimpl" in block.text:
                path = folder / (block.title or f"block_{number}.py")
                path.write_text(block.text)
                if "from ." not in block.text:  # of a package: that is referee-hello, which is installed here
                    assert Registry().add_file(path).status == "active"
        elif block.language == "sh":
            for words in lines(block):
                check_command(words)
        elif block.language == "toml":
            check_toml(block)


@pytest.mark.slow
def test_the_first_pictures_commands_run(folder: Path) -> None:
    """All of first-picture.md that needs no download, with fewer steps and views."""
    ran = []
    for block in blocks(WRITTEN["docs/first-picture.md"]):
        for words in lines(block) if block.language == "sh" else []:
            if words[0] != "referee" or "get" in words or "sd15" in words:
                continue
            given = [str(path) for word in words[1:] for path in (sorted(folder.glob(word)) if "*" in word else [word])]
            short = SHORT if name_of(given) == "generate" and "--config" not in given else []
            steps = [word for word in given if word not in ("--steps", "80")] if short else given
            done = CliRunner().invoke(app, [*steps, *short])
            assert done.exit_code == 0, (given, done.output, done.exception)
            ran.append(given)
    assert len(ran) > 8
    assert (folder / "compare.html").is_file()


# -- what a block may say


def name_of(words: list[str]) -> str:
    """The command that words call, its options left out."""
    top = words[0] if words else ""
    below = [word for word in words[1:2] if top in ("plugins", "zoo") and not word.startswith("-")]
    return " ".join([top, *below])


def check_command(words: list[str]) -> None:
    """A line of a shell block: each program is known here, and what it is given is there."""
    while re.fullmatch("[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, given = words[0], words[1:]
    if program == "referee":
        check_referee_line(given)
    elif program in ("python", "python3"):
        if given[0] == "-m":
            assert find_spec(given[1]), words
        else:
            text = (ROOT / given[0]).read_text(encoding="utf-8")
            assert all(f'"{word}"' in text for word in given[1:] if word.startswith("--")), words
    elif program == "pip":
        assert given[0] == "install", words
        for wanted in given[1:]:
            own = re.fullmatch(r"(vlm-referee|referee-\w+)(\[\w+\])?", wanted)
            assert own or wanted.startswith("-") or (ROOT / wanted / "pyproject.toml").is_file(), words
    elif program == "make":
        assert re.search(rf"^{given[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE), words
    else:
        assert program in (".", "cd", "sha256sum", "rm"), words


def check_referee_line(words: list[str]) -> None:
    """The command, its options and their values exist; parts and settings are such as a run would take."""
    command, name, context = typer.main.get_command(app), "referee", None
    while True:
        context = command.make_context(name, list(words), parent=context)
        rest = [*getattr(context, "_protected_args", []), *context.args]
        if not hasattr(command, "list_commands") or not rest:
            break
        name, command, words = command.resolve_command(context, rest)
    said = context.params
    registry = discover(files=[path for path in said.get("plugin") or () if path.is_file()])
    if name in ("generate", "sample", "score"):
        check_settings(said, registry)
    elif context.parent and context.parent.info_name == "zoo" and "name" in said:
        registry.find("zoo", said["name"])
    elif context.parent and context.parent.info_name == "bench" and name not in ("table", "compare"):
        registry.find("bench", name.partition(":")[0])


def check_settings(said: dict[str, Any], registry: Registry) -> None:
    config = read_toml(said["config"]) if said.get("config") and said["config"].is_file() else {}
    zoo = said.get("zoo") or "pocket"
    spec = None if zoo == NO_ZOO else registry.find("zoo", zoo)
    base = preset(said.get("preset") or spec.preset, registry) if spec else {}
    sets = [parse_set(text) for text in said.get("set_") or ()]
    keys = ("referee", "prior", "aug", "balancer", "steps", "views", "seed", "n", "size", "device", "dtype")
    given = {key: said.get(key) for key in keys}
    flags = flag_layer(**{**given, "balancer": said.get("balancer") and spelt(registry, said["balancer"])})
    check_parts([base, config, *sets, {"zoo": zoo}, flags], registry, said.get("prompt"))


def check_parts(layers: list[Layer], registry: Registry, prompt: str | None = None) -> None:
    """As a run does before any model loads, but that files may be missing."""
    with suppress(WeightsError):
        check(build(layers), registry, Prompt(prompt) if prompt else None)


def check_toml(block: Block) -> None:
    """A project's file, or settings."""
    said = tomllib.loads(block.text)
    if "project" in said:
        for module in said["project"]["entry-points"]["referee"].values():
            assert find_spec(module) or list(Path().rglob(f"{module}.py")), block
        return
    path = Path(block.title or "settings.toml")
    path.write_text(block.text)
    registry = discover()
    layer = on_its_preset(read_toml(path), registry)
    if layer.get("zoo") == NO_ZOO:  # the models are still to be named
        build([layer])
    else:
        check_parts([preset("pocket", registry), layer], registry)


def check_names(text: str) -> None:
    """Modules and what is taken of them exist, and calls of `referee.NAME` fit its signature."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            assert all(find_spec(alias.name) for alias in node.names), text
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name) or find_spec(f"{node.module}.{alias.name}"), text
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "referee":
            assert hasattr(referee, node.attr), node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            of = node.func.value
            if isinstance(of, ast.Name) and of.id == "referee":
                given = {keyword.arg: None for keyword in node.keywords if keyword.arg}
                inspect.signature(getattr(referee, node.func.attr)).bind(*node.args, **given)


def test_blocks_are_found() -> None:
    text = '```sh\na\n```\n- x\n\n  ```python title="a.py"\n  b\n  ```\n```\nc\n```\n'
    assert blocks(text) == [Block("sh", "", "a\n"), Block("python", "a.py", "b\n"), Block("sh", "", "c\n")]


@pytest.mark.parametrize(
    "line",
    ["referee generate x --step 3", "referee generate x -r clop", "referee generate x -r clip:modle=1", "curl x",
     "referee plugins sho x", "make nothing", "referee generate x --set rules.stepz=1", "pip install left-pad"],
)  # fmt: skip
def test_a_wrong_line_is_found(line: str, folder: Path) -> None:
    with pytest.raises(BaseException, match=r"(?s).") as found:
        check_command(line.split())
    assert not isinstance(found.value, (NameError, AttributeError, KeyError))
