"""`referee plugins show | check | new | install`, as a person meets them."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

from referee.command.app import main
from referee.command.scaffold import USAGE, project, write_project
from referee.errors import OutputError
from referee.plugins import NAME, Registry

FILE = '''
"""A plug-in of all kinds in a file; its referee `torn` has no gradient, and its prior fails to be made."""
from pydantic import BaseModel, ConfigDict, Field
from pathlib import Path
from referee.errors import WeightsError
from referee.hooks import Checkpoint, Spec, ZooSpec, hookimpl


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    model: str = Field(description="a folder; has no default")
    share: float = Field(default=0.5, gt=0, le=1, description="of the picture")
    words: list[str] = Field(default_factory=list, description="to look for")


class Toy(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    input_size: int = Field(default=8, description="pixels")


def look(options):
    if not options.model:
        raise WeightsError("there is no folder")


def toy(options, place):
    from referee.testing import ToyReferee
    return ToyReferee(getattr(options, "input_size", 8))


class Torn:
    input_size = 8
    def read(self, prompt):
        return lambda views: views.detach().mean((1, 2, 3))


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", toy, Toy))
    register(Spec("choosy", "likes a folder", toy, Options, look))
    register(Spec("torn", "likes nothing", lambda options, place: Torn()))


@hookimpl
def referee_augmentations(register):
    def shade(options, place):
        from referee.testing import ToyAugmentation
        return ToyAugmentation()
    register(Spec("toy", "shades", shade))


@hookimpl
def referee_zoos(register):
    here = Checkpoint("here", Path(__file__).parent, options={"choosy": {"model": "here"}})
    register(ZooSpec("toys", "a zoo", "paper", lambda: (here,)))
'''


class Answer:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Type = Callable[..., Answer]


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """`referee plugins WORDS` in a folder of its own."""
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def type_(*words: str) -> Answer:
        monkeypatch.setattr(sys, "argv", ["referee", "plugins", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        caught = capsys.readouterr()
        return Answer(end.value.code if isinstance(end.value.code, int) else 0, caught.out, caught.err)

    return type_


@pytest.fixture
def type_(bare: Type) -> Type:
    """With the file as the only plug-in."""
    return lambda *words: bare(*words, "--plugin", "mine.py", "--no-plugins")


# --- list ---


def test_list_is_what_no_word_does(type_: Type) -> None:
    assert type_("list").out == type_().out
    assert type_("list", "--json").out == type_("--json").out


def test_namesakes_are_told_apart(bare: Type, tmp_path: Path) -> None:
    (tmp_path / "other.py").write_text(FILE.replace("likes a colour", "likes another"))
    files = ("--no-plugins", "--plugin", "mine.py", "--plugin", "other.py")
    lines = [line for line in bare("list", *files).out.splitlines() if " toy " in line and "referee " in line]
    assert "likes a colour" in lines[0]
    assert "likes another" in lines[1]
    assert "(so is one of other.py: say mine.py:toy)" in lines[0]
    mine, other = json.loads(bare("--json", *files).out)[-2:]
    assert [found["offers"][0]["summary"] for found in (mine, other)] == ["likes a colour", "likes another"]
    assert mine["offers"][0]["also"] == ["other.py"]


# --- show ---


def test_show_tells_options_with_types_defaults_and_help(type_: Type) -> None:
    answer = type_("show", "choosy")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        "mine               active   mine.py ",
        "  referee choosy: likes a folder",
        "    model (str, must be given): a folder; has no default",
        "    share (float > 0 <= 1, default 0.5): of the picture",
        "    words (list[str], made anew): to look for",
    ]


def test_show_takes_a_part_a_plugin_or_both_by_distribution(type_: Type) -> None:
    both = type_("show", "toy").out
    assert "referee toy: likes a colour" in both
    assert "augmentation toy: shades" in both
    whole = json.loads(type_("show", "mine", "--json").out)[0]
    assert (whole["name"], whole["status"], len(whole["offers"])) == ("mine", "active", 5)
    assert whole["offers"][0]["options"] == [
        {"name": "input_size", "type": "int", "default": "default 8", "help": "pixels"}
    ]
    assert type_("show", "mine.py:torn").out.count("\n") == 2


def test_show_tells_why_a_plugin_is_not_there(type_: Type) -> None:
    assert "kornia             blocked  vlm-referee" in type_("show", "kornia").out
    answer = type_("show", "choozy")
    assert answer.code == 2
    assert "no plug-in or part called 'choozy'. Did you mean 'choosy'?" in answer.err
    assert "referee plugins install referee-choozy" in answer.err


# --- check ---


def test_check_passes_what_keeps_its_promises(type_: Type) -> None:
    answer = type_("check", "toy:input_size=12", "--skip", "costs")
    assert answer.code == 2  # the augmentation of that name has no input_size
    assert "augmentation 'toy': there is no 'input_size'" in answer.err
    answer = type_("check", "toy")
    assert (answer.code, answer.err) == (0, "")
    assert "referee toy (mine.py)" in answer.out
    assert "augmentation toy (mine.py)" in answer.out
    assert "ok       keeps_the_contract                 views of 8 x 8 pixels" in answer.out
    assert "FAILED" not in answer.out


def test_check_fails_what_does_not_and_says_why(type_: Type) -> None:
    answer = type_("check", "torn")
    assert answer.code == 1
    assert "  FAILED   gradient_reaches_the_pixels\n           The loss carries no gradient." in answer.out
    rows = {row["check"]: row for row in json.loads(type_("check", "torn", "--json", "--skip", "loss_falls").out)}
    assert rows["gradient_reaches_the_pixels"]["status"] == "failed"
    assert (rows["loss_falls"]["status"], rows["loss_falls"]["says"]) == ("skipped", "as asked")
    assert rows["costs"]["kind"] == "referee"


def test_check_takes_a_zoos_checkpoints(type_: Type) -> None:
    answer = type_("check", "choosy")
    assert answer.code == 2
    assert "'model' must be given: a folder" in answer.err
    assert type_("check", "choosy", "--zoo", "toys").code == 0
    assert "there is no folder" in type_("check", "choosy:model=", "--zoo", "toys").err
    zoo = type_("check", "toys")
    assert zoo.code == 1  # the paper's preset names a prior that is not there
    assert "skipped  files_are_whole" in zoo.out
    assert "ok       checkpoints_fit_parts              choosy" in zoo.out


def test_check_refuses_what_is_not_there(bare: Type, type_: Type) -> None:
    assert "is blocked: by --no-plugins" in type_("check", "kornia").err
    assert "There is no check 'cost' to skip" in type_("check", "torn", "--skip", "cost").err
    assert "There is no zoo called 'x'" in type_("check", "torn", "--zoo", "x").err
    assert "The device 'warp9' cannot be used" in type_("check", "torn", "--device", "warp9").err
    assert bare("check", "kornia:most=1").code == 2


CONVERTER = """
from pathlib import Path
from pydantic import BaseModel, ConfigDict, Field
from referee.hooks import ConverterSpec, hookimpl

class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    word: str = Field(description="to write")

@hookimpl
def referee_converters(register):
    register(ConverterSpec("words", "", lambda options, folder: (folder / "a").write_text(options.word), Options))
"""


def test_check_takes_a_converter_with_what_it_converts(bare: Type, tmp_path: Path) -> None:
    (tmp_path / "words.py").write_text(CONVERTER)
    words = ("--plugin", "words.py", "--no-plugins")
    untold = bare("check", "words", *words)
    assert untold.code == 0
    assert "referee plugins check words:OPTION=FILE,... --kind converter" in untold.out
    done = bare("check", "words:word=x", "--kind", "converter", *words)
    assert (done.code, done.err) == (0, "")
    assert "ok       fills_its_folder                   1 bytes in 1 file" in done.out
    assert "'word' must be given: to write" in bare("check", "words", "--kind", "converter", *words).err
    assert "no such kind. Did you mean 'converter'?" in bare("check", "words", "--kind", "convertor", *words).err


# --- new ---


@pytest.mark.parametrize("kind", USAGE)
def test_new_writes_a_whole_project(bare: Type, kind: str, tmp_path: Path) -> None:
    answer = bare("new", "my-part", "--kind", kind)
    assert (answer.code, answer.err) == (0, "")
    folder = tmp_path / "referee-my-part"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "pyproject.toml", "README.md", ".gitignore", ".github/workflows/test.yml", "referee_my_part.py",
        "tests/conftest.py", "tests/test_my_part.py",
    }  # fmt: skip
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py", "referee-my-part"}
    for path in files:
        text = (folder / path).read_text(encoding="utf-8")
        assert "$" not in text
        assert max(map(len, text.splitlines())) <= 120
        if path.endswith(".py"):
            compile(text, path, "exec")
    about = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    assert about["project"]["entry-points"]["referee"] == {"my-part": "referee_my_part"}
    registry = Registry()
    plugin = registry.add_file(folder / "referee_my_part.py")
    assert plugin.offers == [(kind, "my-part")]
    assert bare("check", "my-part", "--plugin", f"{folder}/referee_my_part.py", "--json").code == (kind == "zoo")


def test_new_goes_where_it_is_told_and_overwrites_nothing(bare: Type, tmp_path: Path) -> None:
    assert bare("new", "calm", "--out", "a/b").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "a" / "b").rglob("*") if path.is_file()}
    answer = bare("new", "calm", "--kind", "prior", "--out", "a/b")
    assert answer.code == 2
    assert "a/b is there already" in answer.err
    assert {path: path.read_bytes() for path in (tmp_path / "a" / "b").rglob("*") if path.is_file()} == before
    assert "mine.py/x cannot be written: Not a directory" in bare("new", "calm", "--out", "mine.py/x").err


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("My_Part", "'My_Part' is no name for a plug-in: use lower case"),
        ("3d", "a letter first"),
        ("a" * 41, "40 at most"),
        ("../x", "is no name for a plug-in"),
        ("none", "means something else to the command"),
        ("prior", "means something else to the command"),
        ("referee-calm", "The project will be called referee-NAME: say calm."),
        ("kornia", "is taken by the installed plug-in vlm-referee"),
        ("blip2", "is taken by the installed plug-in vlm-referee"),
    ],
)
def test_new_refuses_names(bare: Type, name: str, says: str, tmp_path: Path) -> None:
    answer = bare("new", name)
    assert answer.code == 2
    assert says in answer.err
    assert {path.name for path in tmp_path.iterdir()} == {"mine.py"}


def test_new_refuses_kinds_and_modules_that_are_there(
    bare: Type, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert "there is no such kind. Did you mean 'referee'?" in bare("new", "calm", "--kind", "refere").err
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "referee_calm.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert "A module 'referee_calm' is installed already" in bare("new", "calm").err


def test_a_project_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    contents = project("calm", "referee")
    with pytest.raises(OutputError, match="name too long"):
        write_project({**contents, "x" * 300: ""}, tmp_path / "calm")
    assert list(tmp_path.iterdir()) == []


def test_every_name_makes_a_module_and_a_class() -> None:
    for name in ("calm", "a", "a-b2-c", "x9"):
        assert NAME.fullmatch(name)
        for kind in USAGE:
            for path, text in project(name, kind).items():
                if path.endswith(".py"):
                    compile(text, path, "exec")


# --- install ---


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip made to look for packages in a folder alone, and to install into another, which is on the path."""
    shelf, target = tmp_path / "shelf", tmp_path / "installed"
    shelf.mkdir()
    target.mkdir()
    info = "referee_shelved-1.2.dist-info"
    with ZipFile(shelf / "referee_shelved-1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("referee_shelved.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: referee-shelved\nVersion: 1.2\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/entry_points.txt", "[referee]\nshelved = referee_shelved\n")
        wheel.writestr(f"{info}/RECORD", "")
    for name, value in {
        "NO_INDEX": "1",
        "FIND_LINKS": shelf,
        "TARGET": target,
        "DISABLE_PIP_VERSION_CHECK": "1",
    }.items():
        monkeypatch.setenv(f"PIP_{name}", str(value))
    monkeypatch.syspath_prepend(str(target))
    return target


def test_install_is_pip_and_tells_what_is_new(bare: Type, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "referee_shelved", raising=False)
    answer = bare("install", "referee-shelved>=1")
    assert (answer.code, answer.err) == (0, "")
    assert (shelf / "referee_shelved.py").is_file()
    assert answer.out.splitlines()[-1] == "shelved            active   referee-shelved 1.2"
    assert "No plug-in is new" in bare("install", "--upgrade", "referee-shelved").out


def test_install_passes_pips_failure_on(bare: Type, shelf: Path) -> None:
    assert bare("install", "referee-nowhere").code == 1
    assert list(shelf.iterdir()) == []


@pytest.mark.parametrize(
    "package", ["git+https://x.invalid/y", "./folder", "/etc", "a b", "x@https://y.invalid", "", "x;y"]
)
def test_install_takes_names_alone(bare: Type, shelf: Path, package: str) -> None:
    answer = bare("install", package)
    assert answer.code == 2
    assert "is no package name" in answer.err
    assert f"{sys.executable} -m pip install" in answer.err


@pytest.mark.parametrize("package", ["-rrequirements.txt", "--index-url=https://x.invalid"])
def test_install_takes_no_options_of_pips(bare: Type, package: str) -> None:
    assert bare("install", package).code == 2
    assert "is no package name" in bare("install", "--", package).err


@pytest.mark.parametrize(
    "package", ["referee-hello", "a", "Referee_Hello.x", "x[cuda,all]", "x==1.2.*", "x>=1,<2", "x ~= 1.0"]
)
def test_install_knows_names(package: str) -> None:
    from referee.command.plugins import REQUIREMENT

    assert REQUIREMENT.fullmatch(package)


def test_install_without_pip_says_so(bare: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("referee.command.plugins.find_spec", lambda name: None)
    assert "has no pip: install with what made it" in bare("install", "referee-hello").err
