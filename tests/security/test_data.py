"""What comes from elsewhere is data: no reader of it runs code, whatever lies in it, and no module could."""

from __future__ import annotations

import ast
import pickle
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

import referee
from referee.command.app import main
from referee.errors import RefereeError
from referee.folder import checkpoint
from referee.folder.record import describe, write_run
from referee.folder.run import open_run, read_config, read_picture
from referee.hooks import Checkpoint, ZooFile, ZooSpec
from referee.layers import read_toml
from referee.plugins import Registry
from referee.settings import Settings, build
from referee.weights import check_safetensors
from referee.zoos import faults, verify
from referee_hub.catalogue import from_tables

FUZZ = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
ROOTS = [Path(referee.__file__).parent, *Path(referee.__file__).parents[2].glob("plugins/*/*")]
SOURCES = [path for root in ROOTS if root.is_dir() for path in root.rglob("*.py")]


class Bomb:
    """A pickle of it writes a file when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def bombs(mark: Path) -> Iterator[bytes]:
    yield pickle.dumps(Bomb(mark))
    yield f"!!python/object/apply:pathlib.Path.touch ['{mark}']\n".encode()
    yield f"__import__('pathlib').Path('{mark}').touch()\n".encode()
    yield f'#!/bin/sh\ntouch "{mark}"\n'.encode()


def archive(path: Path, content: bytes) -> None:
    """As torch.save writes it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3")


def picture(path: Path, **text: str) -> None:
    info = PngInfo()
    for key, value in text.items():
        info.add_text(key, value)
    Image.new("RGB", (2, 2)).save(path, pnginfo=info)


def bombed_picture(folder: Path, content: bytes) -> None:
    picture(folder / "p.png", settings=content.decode("latin-1"), seed="__import__('os').system('true')")
    read_picture(folder / "p.png")


READERS: dict[str, Callable[[Path, bytes], object]] = {
    "a config": lambda folder, content: (folder / "a.toml").write_bytes(content) and read_toml(folder / "a.toml"),
    "a picture as config": bombed_picture,
    "no picture": lambda folder, content: (folder / "a.png").write_bytes(content) and read_config(folder / "a.png"),
    "a run": lambda folder, content: (folder / "run.toml").write_bytes(content) and open_run(folder),
    "a checkpoint": lambda folder, content: (
        (folder / checkpoint.NAME).write_bytes(content) and checkpoint.read(folder, "", 1)
    ),
    "weights": lambda folder, content: (
        (folder / "w.safetensors").write_bytes(content) and check_safetensors(folder / "w.safetensors", mend="")
    ),
    "weights as torch saves them": lambda folder, content: (
        archive(folder / "w.safetensors", content) or check_safetensors(folder / "w.safetensors", mend="")
    ),
    "a checkpoint as torch saves it": lambda folder, content: (
        archive(folder / checkpoint.NAME, content) or checkpoint.read(folder, "", 1)
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_no_reader_runs_what_it_reads(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    for content in bombs(mark):
        with pytest.raises(RefereeError):
            READERS[kind](tmp_path, content)
        assert not mark.exists()
    pickle.loads(pickle.dumps(Bomb(mark)))
    assert mark.exists()  # the bomb is one


@pytest.mark.parametrize(
    "value", ["__import__('os').system('x')", "{{7*7}}", "${HOME}", "!!python/name:os.system", "~"]
)
def test_settings_are_text_and_nothing_else(value: str, tmp_path: Path) -> None:
    """What a config says is taken as it stands, and comes back so from the run's record."""
    (tmp_path / "c.toml").write_text(
        tomli_w.dumps({"zoo": "none", "prior": {"name": "toy", "options": {"model": value}}})
    )
    made = build([read_toml(tmp_path / "c.toml")])
    assert made.prior is not None
    assert made.prior.options == {"model": value}
    write_run(tmp_path, describe("red", made, Registry()))
    assert open_run(tmp_path).settings == made


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_no_module_could() -> None:
    """No eval, exec, YAML, or pickle of what comes from elsewhere; torch.load by weights alone; no remote code."""
    assert len(SOURCES) > 80
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
        assert not names & {"yaml", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, path
        assert "pickle" not in names or path.name in ("case.py", "plugins.py"), path
        for name, call in calls(tree):
            words = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert name not in ("eval", "exec", "compile", "os.system", "__import__"), (path, name)
            assert name not in ("pickle.load", "pickle.loads", "pickle.Unpickler") or path.name == "case.py", (
                path
            )  # its own
            assert name != "torch.load" or words.get("weights_only") == "True", path
            assert words.get("trust_remote_code", "False") == "False", path
            assert words.get("weights_only", "True") == "True", path
            assert words.get("shell", "False") == "False", path


TABLES = {
    "summary": "s", "preset": "p",
    "checkpoints": {
        "prior": {
            "for": "toy", "repository": "owner/name", "revision": "0" * 40, "licence": "l", "optional": True,
            "files": {"unet/config.json": {"bytes": 2, "sha256": "0" * 64}},
        },
        "mine": {"folder": "made", "files": {"model.safetensors": {}}},
    },
}  # fmt: skip


def test_the_tables_are_a_zoo() -> None:
    assert [c.name for c in from_tables("zoo", TABLES, "").checkpoints()] == ["prior", "mine"]


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../b.json", "model.bin", "model.pt", "code.py", "C:\\a.json", ""]
)
def test_a_zoo_names_data_in_its_own_folder_alone(name: str) -> None:
    tables = {**TABLES, "checkpoints": {"a": {"folder": "made", "files": {name: {}}}}}
    with pytest.raises(ValueError, match=r"."):
        from_tables("zoo", tables, "")


@FUZZ
@given(data=st.data())
def test_a_damaged_file_of_a_zoo_is_told(data: st.DataObject, tmp_path: Path) -> None:
    """Cut, or with one bit flipped anywhere: its sum is another, and it is never taken for what was published."""
    import hashlib

    from safetensors.torch import save
    from torch import arange

    whole = save({"a": arange(12.0)})
    zoo = Checkpoint("a", tmp_path, (ZooFile("w.safetensors", len(whole), hashlib.sha256(whole).hexdigest()),))
    content = bytearray(whole)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(whole) - 1)) :]
    else:
        bit = data.draw(st.integers(0, 8 * len(whole) - 1))
        content[bit // 8] ^= 1 << bit % 8
    (tmp_path / "w.safetensors").write_bytes(bytes(content))
    assert verify(zoo, zoo.files[0])
    list(faults(zoo))
    (tmp_path / "w.safetensors").write_bytes(whole)
    assert not verify(zoo, zoo.files[0])


@FUZZ
@given(data=st.data())
def test_a_damaged_zoo_is_a_zoo_or_is_refused(data: st.DataObject) -> None:
    """Its TOML comes with a plug-in, which then fails to load with its reason."""
    content = bytearray(tomli_w.dumps(TABLES).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    with suppress(ValueError):
        assert isinstance(from_tables("zoo", tomllib.loads(content.decode()), ""), ZooSpec)


word = st.sampled_from([
    "generate", "score", "sample", "plan", "resume", "report", "zoo", "show", "plugins", "convert", "red", "-r", "toy",
    "toy:weight=cosine(1,", "--prior", "--zoo", "none", "--set", "rules.steps=1", "rules=[", "--config", "a.py", "-n",
    "-1", "--size", "9x9", "--seed", "1e9", "--animation", "--timeout", "nan", "--aug", "-p", "no:", "--json", "-q",
    "\udcff", "\x1b]0;x\x07", "--",
]) | st.text(max_size=6)  # fmt: skip


@FUZZ
@given(st.lists(word, max_size=7))
def test_any_words_are_a_command_or_are_refused(tmp_path: Path, words: list[str]) -> None:
    """Whatever is typed where no plug-in is: exit code 0 or 2, and nothing written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        patch.setattr(sys, "argv", ["referee", *words])
        patch.setenv("REFEREE_LOAD_PLUGINS", "")
        with pytest.raises(SystemExit) as end:
            main()
    assert (end.value.code or 0) in (0, 2)
    assert not list(tmp_path.iterdir())


def test_settings_of_a_stranger_have_no_plugin_by_file(tmp_path: Path) -> None:
    """A record cannot name a file of code: --plugin is for who types it."""
    write_run(tmp_path, describe("red", Settings(zoo=None), Registry()))
    text = (tmp_path / "run.toml").read_text()
    (tmp_path / "run.toml").write_text('plugin = ["evil.py"]\n' + text)
    with pytest.raises(RefereeError, match="there is no 'plugin'"):
        open_run(tmp_path)
