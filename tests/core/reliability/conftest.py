"""A desk to play runs at, to stop them there, and to look at what they leave."""

from __future__ import annotations

import faulthandler
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import safetensors.torch

from referee.command.app import main
from referee.folder.checkpoint import NAME

PLUGIN = '''
"""The toys as a plug-in in a single file. Where a run comes by, it runs what lies there for it, once."""
import os, signal, sys
from pathlib import Path
from pydantic import BaseModel
from referee.hooks import Spec, hookimpl

HERE = Path(__file__).parent


def at(where, **given):
    path = HERE / f"at-{where}.py"
    if path.exists():
        code = path.read_text()
        path.unlink()
        names = {**globals(), **given}
        exec(code, names)
        return names.get("answer")


def referee(options, place):
    from referee.testing import ToyReferee

    class Referee(ToyReferee):
        def read(self, prompt):
            at("read")
            plain = super().read(prompt)

            def loss(views):
                answer = at("loss", views=views)
                return plain(views) if answer is None else answer

            return loss

    return Referee()


def eye(options, place):
    class Eye:
        input_size = 8

        def read(self, prompt):
            return lambda views: (views.mean((1, 2, 3)) - 0.45).abs()

    return Eye()


def prior(options, place):
    from referee.testing import ToyPrior

    class Prior(ToyPrior):
        def decode(self, z):
            answer = at("decode", z=z)
            return super().decode(z) if answer is None else answer

        def read(self, prompt):
            plain = super().read(prompt)

            def pull(z, *given):
                answer = at("pull", z=z)
                return plain(z, *given) if answer is None else answer

            return pull

    return Prior()


def views(options, place):
    from referee.testing import ToyAugmentation

    class Views(ToyAugmentation):
        def __call__(self, *given):
            at("views")
            return super().__call__(*given)

    return Views()


def wavering(options, place):
    from dataclasses import dataclass, field, replace
    from referee.balance import norm

    @dataclass(frozen=True)
    class Wavering:
        memory: dict = field(default_factory=dict)

        def with_memory(self, memory):
            return replace(self, memory=memory)

        def __call__(self, rows, weights, pull):
            at("balance")
            now = norm(rows, weights, pull)
            before = self.memory.get("balancer/said", 0 * now)
            self.memory["balancer/said"] = now
            return now + 0.5 * before

    return Wavering()


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", referee))
    register(Spec("eye", "likes the dim", eye))


@hookimpl
def referee_priors(register):
    register(Spec("toy", "likes grey", prior))


@hookimpl
def referee_augmentations(register):
    register(Spec("toy", "adds noise", views))


@hookimpl
def referee_balancers(register):
    register(Spec("wavering", "adds what it said before", wavering))


@hookimpl
def referee_step(step):
    with (HERE / "steps").open("a") as file:
        file.write(f"{step.k}\\n")
    at(step.k)
'''
RULES = {
    "steps": 14, "tail": 3, "restart_from": 4, "restart_every": 4, "prior_weight": 0.1, "views": 3, "micro_batch": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Desk:
    """A folder of its own with the toys' plug-in in it, and `referee` called there: in here, or in a child to kill."""

    TOYS: ClassVar = ["--plugin", "toys.py", "--no-plugins"]
    FEW: ClassVar = ["--no-report", "-q"]
    RUN: ClassVar = [
        "generate", "red", "--zoo", "none", "--prior", "toy", "-r", "toy:timeout=5",
        "-r", "toy:label=b,every=3,prompt=blue", "--aug", "toy", "--balancer", "wavering", "--judge", "eye:every=2",
        "--size", "8x8", "--device", "cpu", "--seed", "3", "-n", "2",
        *(word for name, value in RULES.items() for word in ("--set", f"rules.{name}={value}")), "--out", "out",
    ]  # fmt: skip

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.out, self.monkeypatch, self.capsys = folder, folder / "out", monkeypatch, capsys
        (folder / "toys.py").write_text(PLUGIN)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")

    def at(self, where: str | int, code: str) -> None:
        """Have something done at a step, or where a part comes by: see `at` above."""
        (self.folder / f"at-{where}.py").write_text(code)

    def rewrite(self, before: str, after: str) -> None:
        """Change the toys' plug-in at one place."""
        text = (self.folder / "toys.py").read_text()
        assert text.count(before) == 1
        (self.folder / "toys.py").write_text(text.replace(before, after))

    def dies_at(self, k: int) -> None:
        """As by a power cut."""
        self.at(k, "os.kill(os.getpid(), signal.SIGKILL)")

    def stop(self) -> None:
        """Play seven steps of the run."""
        self.at(7, "raise KeyboardInterrupt")
        assert self(*self.RUN, *self.FEW).code == 130

    def __call__(self, *words: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["referee", *words, *([] if words[0] == "report" else self.TOYS)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        caught = self.capsys.readouterr()
        return Answer(end.value.code if isinstance(end.value.code, int) else 0, caught.out, caught.err)

    def child(self, *words: str, before: Callable[[], object] = lambda: None) -> int:
        """In a process that is forked, as one that is started anew takes seconds for torch: -9 if SIGKILL ended it."""
        sys.argv = ["referee", *words, *self.TOYS]
        if (pid := os.fork()) == 0:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1), os.dup2(nothing, 2)
            code = 99
            try:
                faulthandler.disable()  # what it dies of is meant
                before()
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}

    def kept(self) -> int:
        """The step that the checkpoint is of."""
        with safetensors.safe_open(self.out / NAME, "pt") as file:
            return int(file.metadata()["step"])

    def steps(self) -> list[int]:
        return [int(word) for word in (self.folder / "steps").read_text().split()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


UNBROKEN: dict[str, bytes] = {}


@pytest.fixture
def unbroken(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """The files of the run that nothing stops; played once."""
    if not UNBROKEN:
        folder = tmp_path_factory.mktemp("unbroken")
        (folder / "toys.py").write_text(PLUGIN)
        with monkeypatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(sys, "argv", ["referee", *Desk.RUN, *Desk.FEW, *Desk.TOYS])
            with pytest.raises(SystemExit) as end:
                main()
        assert not end.value.code
        UNBROKEN.update({path.name: path.read_bytes() for path in (folder / "out").iterdir()})
    return UNBROKEN
