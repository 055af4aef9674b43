"""Nothing is written outside the folder that was asked for: the whole command, watched by Python's audit hook."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from referee.command.app import main
from referee.command.doctor import self_test

PLUGIN = """
from referee.hooks import Spec, hookimpl
from referee.testing import ToyPrior, ToyReferee


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", lambda options, place: ToyReferee()))


@hookimpl
def referee_priors(register):
    register(Spec("toy", "likes grey", lambda options, place: ToyPrior()))
"""
HOSTILE = "red ../../../etc/passwd \u202egnp.exe C:\\con|nul $(touch here) `touch here` {{7*7}} <script>"
RUN = [
    "generate", HOSTILE, "--zoo", "none", "--prior", "toy", "-r", "toy:label=../b", "--size", "8x8", "--device", "cpu",
    "--steps", "6", "--set", "rules.tail=0", "--set", "rules.views=1", "-n", "2",
    "--checkpoint-every", "2", "--preview-every", "2", "--animation", "webp",
    *(["--tensorboard"] if find_spec("tensorboard") else []),
]  # fmt: skip
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod", "os.chown",
    "shutil.rmtree", "shutil.move", "shutil.copyfile",
}  # fmt: skip
STEPS_OUT = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "socket.getaddrinfo"}


def itself(path: str | os.PathLike[str]) -> str:
    """A path whose last part is not followed, if it is a link."""
    folder, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(folder), name)


def watched(words: Sequence[str], plugin: Path) -> tuple[int, list[str]]:
    """Run the command in a forked child that keeps a book of all it changed; its exit code, and the paths."""
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        code, book = 99, set[str]()

        def hear(event: str, given: tuple[object, ...]) -> None:
            if event == "open":
                path, _, flags = given
                if isinstance(path, (str, bytes)) and isinstance(flags, int) and flags & WRITES:
                    name = os.fsdecode(path)
                    book.add(itself(name) if flags & (os.O_EXCL | os.O_NOFOLLOW) else os.path.realpath(name))
            elif event in CHANGES:
                book.update(itself(path) for path in given if isinstance(path, (str, os.PathLike)))
            elif event in STEPS_OUT:
                book.add(event)

        try:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1), os.dup2(nothing, 2)
            sys.dont_write_bytecode = True
            sys.argv = ["referee", *words, "--plugin", str(plugin), "--no-plugins"]
            sys.addaudithook(hear)
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            os.write(writing, json.dumps(sorted(book)).encode())
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found: list[str] = json.loads(pipe.read())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), found


@pytest.fixture(scope="module", autouse=True)
def _warm() -> None:
    """What libraries do when they are first imported (torch asks for compilers) is done before anybody looks."""
    assert list(self_test())
    if find_spec("tensorboard"):
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toys.py").write_text(PLUGIN)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "toys.py"


def outside(paths: list[str], folder: Path) -> list[str]:
    """But for devices."""
    allowed = (str(folder.resolve()) + os.sep, "/dev/", "/proc/")
    return [path for path in paths if path != str(folder.resolve()) and not path.startswith(allowed)]


def test_a_whole_run_writes_in_its_folder_alone(plugin: Path) -> None:
    code, paths = watched([*RUN, "--out", "out"], plugin)
    assert code == 0
    assert outside(paths, Path("out")) == [], paths
    assert {"picture-0.png", "picture-1.png", "run.toml", "report.html"} <= {
        path.name for path in Path("out").iterdir()
    }
    assert any(path.endswith("checkpoint.safetensors") for path in paths)  # the book is kept


def test_without_out_it_writes_below_runs(plugin: Path) -> None:
    code, paths = watched(RUN, plugin)
    (made,) = Path("runs").iterdir()
    assert code == 0
    assert outside(paths, Path("runs")) == []
    assert made.name.startswith("red-etc-passwd")


def test_a_strangers_run_is_gone_on_with_in_its_folder_alone(plugin: Path, tmp_path: Path) -> None:
    """Whatever links lie in it."""
    code, _ = watched([*RUN, "--out", "out"], plugin)
    assert code == 0
    out, secret = Path("out"), tmp_path / "secret"
    text = (out / "run.toml").read_text()
    (out / "run.toml").write_text(text.replace("[run]\n", "[run]\nunfinished = true\n"))
    names = [".lock", "metrics.jsonl", "picture-0.png", "picture-1.png", "report.html", "evolution.png", "panel.png",
             "frames-0.webp", "maps-0.webp", "checkpoint.safetensors", "checkpoint-frame-0.png"]  # fmt: skip
    for kind in ("a file", "nothing"):
        secret.unlink(missing_ok=True)
        if kind == "a file":
            secret.write_text("mine")
        for name in names:
            (out / name).unlink(missing_ok=True)
            (out / name).symlink_to(secret)
        code, paths = watched(["resume", "out"], plugin)
        assert code in (1, 2)  # the lock is a link, or the checkpoint
        assert outside(paths, out) == []
        assert (secret.read_text() if secret.exists() else "nothing") == ("mine" if kind == "a file" else "nothing")
    for name in (".lock", "checkpoint.safetensors", "metrics.jsonl", "report.html"):  # without which it begins anew
        (out / name).unlink()
    secret.write_text("mine")
    code, paths = watched(["resume", "out"], plugin)
    assert (code, outside(paths, out), secret.read_text()) == (0, [], "mine")
    assert not any(path.is_symlink() for path in out.iterdir())
