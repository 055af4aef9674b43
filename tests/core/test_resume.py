"""Runs that survive: whatever stops one, wherever, `referee resume` ends with the very files of the unbroken run."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import filelock
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzz
from hypothesis import strategies as st
from PIL import Image

from referee import checkpoint, timeout
from referee.checkpoint import FRAME, NAME, Checkpoints, encode, fingerprint, read
from referee.cli import main
from referee.errors import RunError
from referee.play import Standing
from referee.resume import changes
from referee.run import About, open_run
from referee.settings import Settings
from referee.state import State

FUZZ = fuzz(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
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
    return ToyPrior()


def views(options, place):
    from referee.testing import ToyAugmentation
    return ToyAugmentation()


def wavering(options, place):
    from dataclasses import dataclass, field, replace
    from referee.balance import norm

    @dataclass(frozen=True)
    class Wavering:
        memory: dict = field(default_factory=dict)

        def with_memory(self, memory):
            return replace(self, memory=memory)

        def __call__(self, rows, weights, pull):
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
RUN = [
    "generate", "red", "--zoo", "none", "--prior", "toy", "-r", "toy:timeout=5",
    "-r", "toy:label=b,every=3,prompt=blue", "--aug", "toy", "--balancer", "wavering", "--judge", "eye:every=2",
    "--size", "8x8", "--device", "cpu", "--seed", "3", "-n", "2",
    *(word for name, value in RULES.items() for word in ("--set", f"rules.{name}={value}")), "--out", "out",
]  # fmt: skip
FEW = ["--no-report", "-q"]
TOYS = ["--plugin", "toys.py", "--no-plugins"]
DIES = "os.kill(os.getpid(), signal.SIGKILL)"
DIES_WHILE_WRITING = f"""
whole = Path.replace
Path.replace = lambda path, to: {DIES} if to.name == "checkpoint.safetensors" else whole(path, to)
"""
FULL = "def full(*_): raise OSError(28, 'No space left on device')\nos.fsync = full"


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Desk:
    """A folder of its own with the toys' plug-in in it, and `referee` called there: in here, or in a child to kill."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.out, self.monkeypatch, self.capsys = folder, folder / "out", monkeypatch, capsys
        (folder / "toys.py").write_text(PLUGIN)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")

    def at(self, where: str | int, code: str) -> None:
        """Have something done at a step, when a prompt is read, or when a loss is asked for."""
        (self.folder / f"at-{where}.py").write_text(code)

    def __call__(self, *words: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["referee", *words, *([] if words[0] == "report" else TOYS)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        caught = self.capsys.readouterr()
        return Answer(end.value.code if isinstance(end.value.code, int) else 0, caught.out, caught.err)

    def child(self, *words: str, before: Callable[[], object] = lambda: None) -> int:
        """In a process that is forked, as one that is started anew takes seconds for torch: -9 if SIGKILL ended it."""
        sys.argv = ["referee", *words, *TOYS]
        if (pid := os.fork()) == 0:
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, 1), os.dup2(nothing, 2)
            code = 99
            try:
                before()
                main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def files(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.iterdir()}

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
            patch.setattr(sys, "argv", ["referee", *RUN, *FEW, *TOYS])
            with pytest.raises(SystemExit) as end:
                main()
        assert not end.value.code
        UNBROKEN.update({path.name: path.read_bytes() for path in (folder / "out").iterdir()})
    return UNBROKEN


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of two pictures."""
    folder, z = tmp_path_factory.mktemp("kept"), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    state = State(5, z, 2 * z, {"step": torch.tensor(5.0), "exp_avg": z}, {"panel/b": -z}, {"b": z.abs().sum(1)})
    (folder / NAME).write_bytes(encode(Standing(state, z, torch.ones(2)), "sum"))
    return folder


def step_of(folder: Path) -> int:
    with safetensors.safe_open(folder / NAME, "pt") as file:
        return int(file.metadata()["step"])


def test_the_unbroken_run_leaves_no_checkpoint(unbroken: dict[str, bytes], desk: Desk) -> None:
    assert set(unbroken) == {
        "picture-3.png", "picture-4.png", "run.toml", "metrics.jsonl", "evolution.png", "panel.png", "frames-3.webp",
        "frames-4.webp",
    }  # fmt: skip
    assert desk(*RUN, *FEW, "--checkpoint-every", "1").code == 0
    assert desk.files() == unbroken  # writing checkpoints changes nothing, and they are gone
    judge = open_run(desk.out).about.judge
    assert judge is not None
    assert min(judge.taken) < 12  # or else there were nothing to remember


KILLED: dict[str, tuple[str, str | int, str, int | None]] = {
    "before the first step": ("5", "read", DIES, None),
    "at the first step": ("1", 0, DIES, None),
    "before the first checkpoint": ("5", 3, DIES, None),
    "between checkpoints": ("5", 7, DIES, 5),
    "at an EMA restart": ("4", 4, DIES, 4),
    "at the step of an EMA restart": ("1", 7, DIES, 7),
    "with a referee's last gradient in memory": ("8", 8, DIES, 8),
    "while the first checkpoint is written": ("3", 2, DIES_WHILE_WRITING, None),
    "while the second checkpoint is written": ("3", 4, DIES_WHILE_WRITING, 3),
    "before the tail": ("11", 11, DIES, 11),
    "in the tail": ("12", 13, DIES, 12),
    "while the pictures are written": ("14", 13, "import referee.record as r\ndef die(*_): " + DIES
                                       + "\nr.write_picture = die", 14),
}  # fmt: skip


@pytest.mark.parametrize("case", KILLED)
def test_killed_anywhere_a_run_goes_on_bit_for_bit(desk: Desk, unbroken: dict[str, bytes], case: str) -> None:
    every, where, code, kept = KILLED[case]
    desk.at(where, code)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", every) == -signal.SIGKILL
    assert tomllib.loads((desk.out / "run.toml").read_text())["run"]["unfinished"]
    assert (step_of(desk.out) if (desk.out / NAME).exists() else None) == kept
    assert bool(list(desk.out.glob(".*.tmp"))) == (code == DIES_WHILE_WRITING)
    run = open_run(desk.out)
    assert not run.complete
    assert len(run.metrics) >= (kept or 0)
    (desk.folder / "steps").write_text("")
    answer = desk("resume", "out", *FEW)
    assert (answer.code, answer.err) == (0, "")
    assert desk.steps() == list(range(kept or 0, 14))
    assert desk.files() == unbroken


def test_a_run_that_its_judge_ended_is_ended_wherever_it_goes_on(desk: Desk) -> None:
    """Killed when it had played its last step, after a checkpoint of that step or of one before."""
    run = [word.replace("eye:every=2", "eye:every=1,patience=2") for word in RUN]
    assert desk(*run, *FEW).code == 0
    whole, found = desk.files(), open_run(desk.out)
    assert found.about.judge is not None
    ended = found.about.judge.ended
    assert ended is not None
    assert len(found.metrics) == ended < 14
    desk.out.rename(desk.folder / "whole")
    for every in (1, ended - 1):
        desk.at(0, "import referee.record as r\ndef die(*_): " + DIES + "\nr.write_picture = die")
        assert desk.child(*run, *FEW, "--checkpoint-every", str(every)) == -9
        assert step_of(desk.out) == ended // every * every
        assert desk("resume", "out", *FEW).code == 0
        assert desk.files() == whole
        desk.out.rename(desk.folder / f"cut-{every}")


def test_killed_again_and_again(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(3, DIES)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", "2") == -9
    for k in (6, 7, 12):
        desk.at(k, DIES)
        assert desk.child("resume", "out", *FEW, "--checkpoint-every", "2") == -9
        assert step_of(desk.out) == k // 2 * 2
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)], ids=["ctrl-c", "term", "hang-up"]
)
def test_a_signal_leaves_the_best_picture_and_a_checkpoint(
    desk: Desk, unbroken: dict[str, bytes], name: str, code: int
) -> None:
    hang_up = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it, and then so do we
    before = [signal.getsignal(getattr(signal, s)) for s in ("SIGTERM", "SIGHUP")]
    desk.at(8, f"os.kill(os.getpid(), signal.{name})\nimport time; time.sleep(5)")
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    answer = desk(*RUN, "--no-report", "--checkpoint-every", "0")
    signal.signal(signal.SIGINT, handler)
    assert answer.code == code, answer.err
    assert "Stopped after 9 steps; this is the best picture so far." in answer.out
    assert "To go on: referee resume out" in answer.out
    assert [signal.getsignal(getattr(signal, s)) for s in ("SIGTERM", "SIGHUP")] == before
    signal.signal(signal.SIGHUP, hang_up)
    run = open_run(desk.out)
    assert (run.complete, run.about.interrupted_after, len(run.pictures), len(run.metrics)) == (False, 9, 2, 9)
    assert step_of(desk.out) == 8  # the step that was not heard of to its end is played again
    assert {path.name for path in desk.out.glob("checkpoint*")} == {NAME, *(FRAME.format(k) for k in range(8))}
    answer = desk("resume", "out", "--no-report")
    assert "Going on after 8 of 14 steps." in answer.out
    assert answer.code == 0
    assert desk.files() == unbroken


IMPATIENT = {
    "at once": "os.kill(os.getpid(), signal.SIGINT)\nos.kill(os.getpid(), signal.SIGINT)",
    "while the best picture is decoded": (
        "from referee.testing import ToyPrior\ndef stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "monkeypatch.setattr(ToyPrior, 'decode', stop)\nraise KeyboardInterrupt"
    ),
    "while the checkpoint is written": (
        "whole, told = Path.replace, []\n"
        "def stop(path, to):\n    told.append(to.name) or len(told) > 1 or os.kill(os.getpid(), signal.SIGINT)\n"
        "    return whole(path, to)\n"
        "monkeypatch.setattr(Path, 'replace', stop)\nraise KeyboardInterrupt"
    ),
    "while the pictures are written": (
        "import referee.record as r\ndef stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "monkeypatch.setattr(r, 'write_picture', stop)\nraise KeyboardInterrupt"
    ),
}


@pytest.mark.parametrize("case", IMPATIENT)
def test_ctrl_c_twice_keeps_the_checkpoint(desk: Desk, unbroken: dict[str, bytes], case: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.monkeypatch", patch, raising=False)
        desk.at(8, IMPATIENT[case])
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        answer = desk(*RUN, *FEW, "--checkpoint-every", "0")
        signal.signal(signal.SIGINT, handler)
    assert (answer.code, answer.err) == (130, "")
    assert step_of(desk.out) == 8
    assert not list(desk.out.glob(".*.tmp"))
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_hang_up_that_nohup_ignores_stays_ignored(desk: Desk) -> None:
    desk.at(8, "os.kill(os.getpid(), signal.SIGHUP)")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert desk(*RUN, *FEW).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_as_a_process_that_is_terminated(desk: Desk) -> None:
    """Exit code and signal as a supervisor has them."""
    words = [sys.executable, "-m", "referee", *RUN, *TOYS, "--set", "rules.steps=100000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        steps = desk.folder / "steps"
        while process.poll() is None and not (steps.is_file() and len(steps.read_text().split()) > 3):
            time.sleep(0.05)
        answer = desk("resume", "out", *FEW)  # while it is at work
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    assert (answer.code, answer.err) == (
        2, "referee: Another process is at work on out. Wait for its end, or stop it.\n",
    )  # fmt: skip
    assert (process.returncode, err) == (143, "")
    assert "To go on: referee resume out" in out
    assert step_of(desk.out) > 3


@pytest.mark.parametrize(("every", "kept"), [("1", 6), ("4", 4), ("0", 0)])
def test_a_full_disk(desk: Desk, unbroken: dict[str, bytes], every: str, kept: int) -> None:
    """From step 6 on nothing is written. What was written before is whole."""
    desk.monkeypatch.setattr(os, "fsync", os.fsync)  # put back at the end
    desk.at(6, FULL)
    answer = desk(*RUN, *FEW, "--checkpoint-every", every)
    assert answer.code == 1
    assert "No space left on device" in answer.err
    said = f"{kept} steps are kept" if kept else "No step is kept"
    assert answer.err.endswith(f"referee: {said}. To go on: referee resume out\n")
    assert "Traceback" not in answer.err
    assert not list(desk.out.glob(".*.tmp"))
    desk.monkeypatch.undo()
    desk.monkeypatch.chdir(desk.folder)
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_a_disk_on_which_no_checkpoint_fits(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """Refused by the kernel in the middle of a write: a limit on the size of a file."""

    most = max(len(unbroken["run.toml"]) + 200, 3000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    assert desk.child(*RUN, *FEW, "--checkpoint-every", "4", before=limit) == 1
    assert not (desk.out / NAME).exists()
    assert not list(desk.out.glob(".*.tmp"))
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_a_line_that_was_cut_is_dropped(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(7, DIES)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", "5") == -9
    with (desk.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss')
    assert len(open_run(desk.out).metrics) == 7
    assert desk("report", "out").code == 0
    assert "Not finished: 7 steps so far." in (desk.out / "report.html").read_text()
    (desk.out / "report.html").unlink()
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


HERE = "referee: This happened in the plug-in file toys.py, given by --plugin."
FAULTS = {
    "an error": ("raise KeyError('tokens')", ["'toy' failed at step 5: KeyError: 'tokens'", HERE]),
    "sys.exit": ("sys.exit(0)", ["'toy' failed at step 5: SystemExit: 0", HERE]),
    "another kind of exit": ("import click; raise click.exceptions.Exit(0)", ["'toy' failed at step 5: Exit: 0", HERE]),
    "it hangs": (
        "import time; time.sleep(600)", ["'toy' failed at step 5: TimeoutError: no answer within 5 seconds", HERE],
    ),
    "a wrong shape": ("answer = views.mean()[None]", ["'toy' gave a loss of shape (1,) for 4 views; expected (4,)"]),
    "no gradient": ("answer = views.detach().sum((1, 2, 3))", ["'toy' gave a loss of shape (4,) without gradient"]),
    "nothing to do with the views": (
        "import torch; answer = torch.ones(4, requires_grad=True) * 1", ["that does not depend on the views"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_a_referee_that_fails_is_named_and_nothing_is_lost(desk: Desk, unbroken: dict[str, bytes], case: str) -> None:
    code, said = FAULTS[case]
    desk.at(4, f"(HERE / 'at-loss.py').write_text({code!r})")
    answer = desk(*RUN, *FEW)
    assert answer.code == 1
    *lines, last = answer.err.splitlines()
    assert len(lines) == len(said)
    assert all(words in line for words, line in zip(said, lines, strict=True)), lines
    assert last == "referee: 5 steps are kept. To go on: referee resume out"
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


@pytest.mark.parametrize(("code", "trace"), [("sys.exit(0)", False), ("1 / 0", True)])
def test_a_hook_that_fails_is_named_and_nothing_is_lost(
    desk: Desk, unbroken: dict[str, bytes], code: str, trace: bool
) -> None:
    desk.at(5, code)
    answer = desk(*RUN, *FEW)
    assert answer.code == 1
    assert ("Traceback" in answer.err) == trace
    assert "This happened in the plug-in file toys.py" in answer.err
    assert "5 steps are kept" in answer.err
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_a_referee_that_hangs_where_python_has_no_say_ends_the_process(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """A kernel that never ends: to Python it is a call during which no signal gets through."""
    hangs = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); import time; time.sleep(600)"
    desk.at(4, f"(HERE / 'at-loss.py').write_text({hangs!r})")
    desk.monkeypatch.setattr(timeout, "GRACE", 0.5)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", "3") == 1
    assert step_of(desk.out) == 3
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_numbers_that_are_none_are_remembered_as_such(desk: Desk) -> None:
    """A referee that is asked at every third step gives no numbers at step 3, and sits out until it is asked again."""
    nan = "(HERE / 'at-loss.py').write_text('answer = views.sum((1, 2, 3)) * float(\"nan\")')"
    run = [word.replace("toy:timeout=5", "toy:every=3") for word in RUN]
    desk.at(2, nan)
    assert desk(*run, *FEW).code == 0
    assert [row.step for row in open_run(desk.out).metrics if "toy" in row.sat_out] == [3, 4, 5]
    whole = desk.files()
    desk.out.rename(desk.folder / "whole")
    desk.at(2, nan)
    desk.at(4, DIES)
    assert desk.child(*run, *FEW, "--checkpoint-every", "4") == -9
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == whole


SHORT = "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')"


def test_how_many_views_fit_is_remembered(desk: Desk) -> None:
    """Memory runs out once, at step 3: bit for bit the run that goes on with as few views at once."""
    few = f"(HERE / 'at-loss.py').write_text({SHORT!r})"
    desk.at(2, few)
    answer = desk(*RUN, *FEW)
    assert answer.code == 0
    assert "Out of memory: 'toy' scores 2 views at once from now on" in answer.err
    whole = desk.files()
    desk.out.rename(desk.folder / "whole")
    desk.at(2, few)
    desk.at(7, DIES)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == whole


def test_memory_that_runs_out_elsewhere_ends_a_run_that_can_go_on(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(5, SHORT)
    answer = desk(*RUN, *FEW)
    assert (answer.code, answer.err.splitlines()) == (1, [
        "referee: Out of memory: CUDA out of memory. Tried to allocate 2 GiB. "
        "`referee plan --fit 12GB` says what needs less.",
        "referee: This happened in the plug-in file toys.py, given by --plugin.",
        "referee: 5 steps are kept. To go on: referee resume out",
    ])  # fmt: skip
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_a_plugin_that_meddles_with_the_global_seed_changes_nothing(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(2, "import random, torch, numpy; random.seed(1); torch.manual_seed(1); numpy.random.seed(1)")
    state = torch.get_rng_state()
    assert desk(*RUN, *FEW).code == 0
    torch.set_rng_state(state)
    assert desk.files() == unbroken


def test_weights_that_are_deleted_on_the_way_are_loaded(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """Read through the system's map of the file, which outlives its name."""
    safetensors.torch.save_file({"one": torch.ones(1 << 20)}, desk.folder / "w.safetensors")
    (desk.folder / "toys.py").write_text(PLUGIN.replace(
        "    return Referee()",
        "    from safetensors.torch import load_file\n    weights = load_file(HERE / 'w.safetensors')\n"
        "    made = Referee()\n    read = made.read\n"
        "    made.read = lambda prompt: (lambda loss: lambda views: loss(views) * weights['one'][-1])(read(prompt))\n"
        "    return made",
    ))  # fmt: skip
    desk.at(2, "(HERE / 'w.safetensors').unlink()")
    assert desk(*RUN, *FEW).code == 0
    assert not (desk.folder / "w.safetensors").exists()
    assert desk.files() == unbroken


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int16)


def test_another_micro_batch_is_equal_up_to_rounding(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(7, DIES)
    assert desk.child(*RUN, *FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *FEW, "--micro-batch", "1", "--device", "cpu").code == 0
    assert open_run(desk.out).settings.rules.micro_batch == 1
    (desk.folder / "whole.png").write_bytes(unbroken["picture-3.png"])
    assert abs(pixels(desk.out / "picture-3.png") - pixels(desk.folder / "whole.png")).max() <= 1
    assert desk("resume", "out", *FEW, "--micro-batch", "0").code == 0  # finished: nothing is asked


def stopped(desk: Desk) -> None:
    desk.at(7, "raise KeyboardInterrupt")
    assert desk(*RUN, *FEW).code == 130


def test_what_changed_since_is_refused_by_name(desk: Desk, unbroken: dict[str, bytes]) -> None:
    stopped(desk)
    text = (desk.out / "run.toml").read_text()
    torch_now = version("torch")
    torch_then = f'torch = "{torch_now}"'
    assert text.count(torch_then) == 1
    text = text.replace(torch_then, 'torch = "1.0"').replace('version = ""', 'version = "3"', 1)
    (desk.out / "run.toml").write_text(text)
    before = desk.files()
    answer = desk("resume", "out", *FEW)
    assert answer.code == 2
    one, two = f"torch: 1.0 -> {torch_now}", "plug-in of referee toy: toys.py 3 -> toys.py"
    assert f"would not go on as it began: {one}; {two}. Put that back, or add --force." in answer.err
    assert desk.files() == before
    assert desk("resume", "out", *FEW, "--force").code == 0
    assert open_run(desk.out).about.mixed == (f"from step 7: {one}", f"from step 7: {two}")
    assert desk.files()["metrics.jsonl"] == unbroken["metrics.jsonl"]


def test_changes() -> None:
    then = About(prompt="red", libraries={"torch": "2"}, weights={"a": "0"}, platform="x", device="cuda (H)")
    now = {"libraries": {"torch": "2", "numpy": "1"}, "weights": {"a": "1"}, "platform": "x", "device": "cpu"}
    assert changes(then, now) == ["numpy: not there -> 1", "weights a: 0 -> 1", "device: cuda (H) -> cpu"]
    assert changes(then, now, moved=True) == ["numpy: not there -> 1", "weights a: 0 -> 1"]


def test_other_settings_are_refused(desk: Desk) -> None:
    stopped(desk)
    text = (desk.out / "run.toml").read_text()
    (desk.out / "run.toml").write_text(text.replace("views = 3", "views = 4"))
    answer = desk("resume", "out", *FEW)
    assert answer.code == 2
    assert "out/checkpoint.safetensors is of other settings or another prompt than run.toml has now" in answer.err


def test_a_finished_run_says_so(desk: Desk) -> None:
    assert desk(*RUN, *FEW).code == 0
    (desk.out / NAME).write_bytes(b"left by a process that was killed at its very end")
    before = desk.files()
    answer = desk("resume", "out")
    assert (answer.code, answer.out, answer.err) == (0, "out is finished: there is nothing to go on with.\n", "")
    del before[NAME]
    assert desk.files() == before
    assert desk("resume", "out", "-q").out == "out/picture-3.png\nout/picture-4.png\n"
    assert json.loads(desk("resume", "out", "--json").out)["complete"] is True


def test_a_run_that_another_process_finished_meanwhile_is_finished(desk: Desk) -> None:
    """Between the first look at it and the lock."""
    stopped(desk)
    held = checkpoint.locked

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        desk.monkeypatch.setattr(checkpoint, "locked", held)
        assert desk.child("resume", "out", *FEW) == 0
        with held(folder):
            yield

    desk.monkeypatch.setattr(checkpoint, "locked", late)
    before = len(desk.steps())
    answer = desk("resume", "out")
    assert (answer.code, answer.out) == (0, "out is finished: there is nothing to go on with.\n")
    assert len(desk.steps()) == before + 7  # the other's


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no file of this kind": (lambda out: (out / NAME).write_bytes(b"\x80\x04K\x01."), "cannot be gone on from"),
    "cut short": (lambda out: (out / NAME).write_bytes((out / NAME).read_bytes()[:-1]), "cannot be gone on from"),
    "another file": (lambda out: safetensors.torch.save_file({"z": torch.ones(1)}, out / NAME), "cannot be gone on"),
    "damaged": (lambda out: flip(out / NAME, -1), "it is damaged"),
    "a frame that is none": (lambda out: (out / FRAME.format(3)).write_bytes(b"GIF89a"), "checkpoint-frame-3.png"),
    "a link": (lambda out: (out / NAME).rename(out / "a") and (out / NAME).symlink_to("a"), "is no plain file"),
    "no rows": (lambda out: (out / "metrics.jsonl").unlink(), "metrics.jsonl cannot be read"),
    "too few rows": (lambda out: os.truncate(out / "metrics.jsonl", 0), "does not have the 7 steps"),
    "no record": (lambda out: (out / "run.toml").unlink(), "run.toml cannot be read"),
}


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_gone_on_from_is_refused(desk: Desk, case: str) -> None:
    stopped(desk)
    breaks, said = BROKEN[case]
    breaks(desk.out)
    before = desk.files()
    answer = desk("resume", "out", *FEW)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert desk.files() == before


@FUZZ
@given(st.integers(0, 1 << 20), st.integers(0, 7), st.booleans())
def test_no_damage_goes_unseen(kept: Path, at: int, bit: int, cut: bool) -> None:
    """One bit flipped anywhere, or cut off anywhere: refused in a sentence, or it is the very same."""
    path, whole = kept / NAME, (kept / NAME).read_bytes()
    before = safetensors.torch.load(whole)
    os.truncate(path, at % len(whole)) if cut else flip(path, at, bit)
    try:
        found = read(kept, "", 2).standing
    except RunError:
        return
    finally:
        path.write_bytes(whole)
    assert not cut
    after = safetensors.torch.load(encode(found, ""))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_without_its_checkpoint_a_run_begins_anew(desk: Desk, unbroken: dict[str, bytes]) -> None:
    stopped(desk)
    (desk.out / NAME).unlink()
    flip(desk.out / FRAME.format(3), -1)  # its frames stay, and may be of other settings
    desk.at(5, DIES)
    assert desk.child("resume", "out", *FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files() == unbroken


def test_a_frame_that_is_missing_is_missing_in_the_film_alone(desk: Desk, unbroken: dict[str, bytes]) -> None:
    stopped(desk)
    (desk.out / FRAME.format(3)).unlink()
    assert desk("resume", "out", *FEW).code == 0
    assert desk.files()["metrics.jsonl"] == unbroken["metrics.jsonl"]
    assert {3} == {*range(15)} - {*open_run(desk.out).about.frames}
    (desk.folder / "whole.png").write_bytes(unbroken["picture-3.png"])
    assert (pixels(desk.out / "picture-3.png") == pixels(desk.folder / "whole.png")).all()


def test_a_plain_sample_has_no_steps(desk: Desk) -> None:
    assert desk("sample", "red", "--zoo", "none", "--prior", "toy", "--out", "plain", "-q").code == 0
    assert "plain sample" in desk("resume", "plain").err


def test_a_folder_that_is_held_is_refused(desk: Desk) -> None:
    desk.out.mkdir()
    with filelock.FileLock(desk.out / checkpoint.LOCK):
        answer = desk(*RUN, *FEW)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "Another process is at work on out" in answer.err
    assert not (desk.out / "run.toml").exists()


def test_by_default_the_clock_says_when(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "write_whole", lambda path, content: wrote.append(path.name))
    monkeypatch.setattr(checkpoint, "encode", lambda standing, settings: b"")
    wrote: list[str] = []
    desk.out.mkdir()
    checkpoints = Checkpoints(desk.out, "", {}, None)
    for k, now[0] in enumerate([1.0, 29.9, 30.1, 31.0, 60.0, 60.2], 1):
        z = torch.zeros(1)
        checkpoints.keep(Standing(State(k, z, z)), [{"step": k - 1}])
        assert len(wrote) == {1: 0, 2: 0, 3: 1, 4: 1, 5: 1, 6: 2}[k], k
    assert checkpoints.write() == 6
    assert len(wrote) == 2


def test_the_settings_sum_leaves_out_what_is_rounding_alone() -> None:
    base = Settings(zoo=None)
    same = Settings(zoo=None, device="cuda", rules={"micro_batch": 3})
    toys = [Settings(zoo=None, referees=[{"name": "toy", "timeout": t}]) for t in (None, 3)]
    assert fingerprint("red", toys[0]) == fingerprint("red", toys[1]) != fingerprint("red", base)
    assert fingerprint("red", base) == fingerprint("red", same)
    assert fingerprint("red", base) != fingerprint("blue", base)
    assert fingerprint("red", base) != fingerprint("red", Settings(zoo=None, rules={"views": 3}))


def test_every_when_is_checked(desk: Desk) -> None:
    answer = desk(*RUN, "--checkpoint-every", "-1")
    assert (answer.code, re.sub(r"\s+", " ", answer.err)) == (
        2, "referee: --checkpoint-every -1: say after how many steps; 0 for none. ",
    )  # fmt: skip
