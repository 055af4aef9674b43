"""Runs that survive: whatever stops one, wherever, `referee resume` ends with the very files of the unbroken run."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from referee.folder.checkpoint import FRAME, NAME
from referee.folder.run import open_run

if TYPE_CHECKING:
    from conftest import Desk


DIES = "os.kill(os.getpid(), signal.SIGKILL)"
DIES_WHILE_WRITING = f"""
whole = Path.replace
Path.replace = lambda path, to: {DIES} if to.name == "checkpoint.safetensors" else whole(path, to)
"""


def test_the_unbroken_run_leaves_no_checkpoint(unbroken: dict[str, bytes], desk: Desk) -> None:
    assert set(unbroken) == {
        "picture-3.png", "picture-4.png", "run.toml", "metrics.jsonl", "evolution.png", "panel.png", "frames-3.webp",
        "frames-4.webp", "maps-3.webp", "maps-4.webp",
    }  # fmt: skip
    assert desk(*desk.RUN, *desk.FEW, "--checkpoint-every", "1").code == 0
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
    "while the pictures are written": ("14", 13, "import referee.folder.record as r\ndef die(*_): " + DIES
                                       + "\nr.write_picture = die", 14),
}  # fmt: skip


@pytest.mark.parametrize("case", KILLED)
def test_killed_anywhere_a_run_goes_on_bit_for_bit(desk: Desk, unbroken: dict[str, bytes], case: str) -> None:
    every, where, code, kept = KILLED[case]
    desk.at(where, code)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", every) == -signal.SIGKILL
    assert tomllib.loads((desk.out / "run.toml").read_text())["run"]["unfinished"]
    assert (desk.kept() if (desk.out / NAME).exists() else None) == kept
    assert bool(list(desk.out.glob(".*.tmp"))) == (code == DIES_WHILE_WRITING)
    run = open_run(desk.out)
    assert not run.complete
    assert len(run.metrics) >= (kept or 0)
    (desk.folder / "steps").write_text("")
    answer = desk("resume", "out", *desk.FEW)
    assert (answer.code, answer.err) == (0, "")
    assert desk.steps() == list(range(kept or 0, 14))
    assert desk.files() == unbroken


def test_a_run_that_its_judge_ended_is_ended_wherever_it_goes_on(desk: Desk) -> None:
    """Killed when it had played its last step, after a checkpoint of that step or of one before."""
    run = [word.replace("eye:every=2", "eye:every=1,patience=2") for word in desk.RUN]
    assert desk(*run, *desk.FEW).code == 0
    whole, found = desk.files(), open_run(desk.out)
    assert found.about.judge is not None
    ended = found.about.judge.ended
    assert ended is not None
    assert len(found.metrics) == ended < 14
    desk.out.rename(desk.folder / "whole")
    for every in (1, ended - 1):
        desk.at(0, "import referee.folder.record as r\ndef die(*_): " + DIES + "\nr.write_picture = die")
        assert desk.child(*run, *desk.FEW, "--checkpoint-every", str(every)) == -9
        assert desk.kept() == ended // every * every
        assert desk("resume", "out", *desk.FEW).code == 0
        assert desk.files() == whole
        desk.out.rename(desk.folder / f"cut-{every}")


def test_killed_again_and_again(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.dies_at(3)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "2") == -9
    for k in (6, 7, 12):
        desk.dies_at(k)
        assert desk.child("resume", "out", *desk.FEW, "--checkpoint-every", "2") == -9
        assert desk.kept() == k // 2 * 2
    assert desk("resume", "out", *desk.FEW).code == 0
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
    answer = desk(*desk.RUN, "--no-report", "--checkpoint-every", "0")
    signal.signal(signal.SIGINT, handler)
    assert answer.code == code, answer.err
    assert "Stopped after 9 steps; this is the best picture so far." in answer.out
    assert "To go on: referee resume out --plugin toys.py" in answer.out
    assert [signal.getsignal(getattr(signal, s)) for s in ("SIGTERM", "SIGHUP")] == before
    signal.signal(signal.SIGHUP, hang_up)
    run = open_run(desk.out)
    assert (run.complete, run.about.interrupted_after, len(run.pictures), len(run.metrics)) == (False, 9, 2, 9)
    assert desk.kept() == 8  # the step that was not heard of to its end is played again
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
        "import referee.folder.record as r\ndef stop(*_): os.kill(os.getpid(), signal.SIGINT)\n"
        "monkeypatch.setattr(r, 'write_picture', stop)\nraise KeyboardInterrupt"
    ),
}


@pytest.mark.parametrize("case", IMPATIENT)
def test_ctrl_c_twice_keeps_the_checkpoint(desk: Desk, unbroken: dict[str, bytes], case: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.monkeypatch", patch, raising=False)
        desk.at(8, IMPATIENT[case])
        handler = signal.signal(signal.SIGINT, signal.default_int_handler)
        answer = desk(*desk.RUN, *desk.FEW, "--checkpoint-every", "0")
        signal.signal(signal.SIGINT, handler)
    assert (answer.code, answer.err) == (130, "")
    assert desk.kept() == 8
    assert not list(desk.out.glob(".*.tmp"))
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_hang_up_that_nohup_ignores_stays_ignored(desk: Desk) -> None:
    desk.at(8, "os.kill(os.getpid(), signal.SIGHUP)")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert desk(*desk.RUN, *desk.FEW).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_as_a_process_that_is_terminated(desk: Desk) -> None:
    """Exit code and signal as a supervisor has them."""
    words = [sys.executable, "-m", "referee", *desk.RUN, *desk.TOYS, "--set", "rules.steps=100000"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        steps = desk.folder / "steps"
        while process.poll() is None and not (steps.is_file() and len(steps.read_text().split()) > 3):
            time.sleep(0.05)
        answer = desk("resume", "out", *desk.FEW)  # while it is at work
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=300)
    assert (answer.code, answer.err) == (
        2, "referee: Another process is at work on out. Wait for its end, or stop it.\n",
    )  # fmt: skip
    hacked = "Reward hacking, seed"  # if it came so far
    assert (process.returncode, [line for line in err.splitlines() if hacked not in line]) == (143, [])
    assert "To go on: referee resume out --plugin toys.py" in out
    assert desk.kept() > 3


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_plan_that_is_stopped_leaves_nothing(desk: Desk, name: str, code: int) -> None:
    """Its folder for configurations, in the system's place for such."""
    place = desk.folder / "temporary"
    place.mkdir()

    def alone() -> None:
        tempfile.tempdir = str(place)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    desk.at("read", f"(HERE / 'seen').write_text(str(list((HERE / 'temporary').iterdir())))\n"
            f"os.kill(os.getpid(), signal.{name})\nimport time; time.sleep(5)")  # fmt: skip
    words = ["plan", "red", "--zoo", "none", "--prior", "toy", "-r", "toy", "--size", "8x8", "--device", "cpu"]
    assert desk.child(*words, before=alone) == code
    assert "referee-plan-" in (desk.folder / "seen").read_text()
    assert list(place.iterdir()) == []


CONVERTER = """
import os, signal, time
from referee.hooks import ConverterSpec, NoOptions, hookimpl


def convert(options, folder):
    (folder / "half.safetensors").write_bytes(bytes(1000))
    print(*sorted(path.name for path in folder.parent.iterdir()))
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)


@hookimpl
def referee_converters(register):
    register(ConverterSpec("numbers", "to a folder", convert, NoOptions))
"""


def test_a_conversion_that_is_stopped_leaves_nothing(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(CONVERTER)
    (tmp_path / "place").mkdir()
    words = ["convert", "--no-plugins", "--plugin", str(tmp_path / "c.py"), "numbers", "--out", "place/made"]
    done = subprocess.run([sys.executable, "-m", "referee", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 143, done.stderr
    assert ".made." in done.stdout
    assert list((tmp_path / "place").iterdir()) == []
