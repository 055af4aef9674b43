"""`referee resume`: what it goes on with, what it refuses, what it says."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import numpy as np
import pytest
from PIL import Image

from referee.command.resume import changes
from referee.folder import checkpoint
from referee.folder.checkpoint import FRAME, NAME
from referee.folder.run import About, open_run

if TYPE_CHECKING:
    from conftest import Desk


def pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int16)


def test_a_line_that_was_cut_is_dropped(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.dies_at(7)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "5") == -9
    with (desk.out / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "loss')
    assert len(open_run(desk.out).metrics) == 7
    assert desk("report", "out").code == 0
    assert "Not finished: 7 steps so far." in (desk.out / "report.html").read_text()
    (desk.out / "report.html").unlink()
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_another_micro_batch_is_equal_up_to_rounding(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.dies_at(7)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *desk.FEW, "--micro-batch", "1", "--device", "cpu").code == 0
    assert open_run(desk.out).settings.rules.micro_batch == 1
    (desk.folder / "whole.png").write_bytes(unbroken["picture-3.png"])
    assert abs(pixels(desk.out / "picture-3.png") - pixels(desk.folder / "whole.png")).max() <= 1
    assert desk("resume", "out", *desk.FEW, "--micro-batch", "0").code == 0  # finished: nothing is asked


def test_what_changed_since_is_refused_by_name(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.stop()
    text = (desk.out / "run.toml").read_text()
    torch_now = version("torch")
    torch_then = f'torch = "{torch_now}"'
    assert text.count(torch_then) == 1
    text = text.replace(torch_then, 'torch = "1.0"').replace('version = ""', 'version = "3"', 1)
    (desk.out / "run.toml").write_text(text)
    before = desk.files()
    answer = desk("resume", "out", *desk.FEW)
    assert answer.code == 2
    one, two = f"torch: 1.0 -> {torch_now}", "plug-in of referee toy: toys.py 3 -> toys.py"
    assert f"would not go on as it began: {one}; {two}. Put that back, or add --force." in answer.err
    assert desk.files() == before
    assert desk("resume", "out", *desk.FEW, "--force").code == 0
    assert open_run(desk.out).about.mixed == (f"from step 7: {one}", f"from step 7: {two}")
    assert desk.files()["metrics.jsonl"] == unbroken["metrics.jsonl"]


def test_changes() -> None:
    then = About(prompt="red", libraries={"torch": "2"}, weights={"a": "0"}, platform="x", device="cuda (H)")
    now = {"libraries": {"torch": "2", "numpy": "1"}, "weights": {"a": "1"}, "platform": "x", "device": "cpu"}
    assert changes(then, now) == ["numpy: not there -> 1", "weights a: 0 -> 1", "device: cuda (H) -> cpu"]
    assert changes(then, now, moved=True) == ["numpy: not there -> 1", "weights a: 0 -> 1"]


def test_other_settings_are_refused(desk: Desk) -> None:
    desk.stop()
    text = (desk.out / "run.toml").read_text()
    (desk.out / "run.toml").write_text(text.replace("views = 3", "views = 4"))
    answer = desk("resume", "out", *desk.FEW)
    assert answer.code == 2
    assert "out/checkpoint.safetensors is of other settings or another prompt than run.toml has now" in answer.err


def test_a_finished_run_says_so(desk: Desk) -> None:
    assert desk(*desk.RUN, *desk.FEW).code == 0
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
    desk.stop()
    held = checkpoint.locked

    @contextmanager
    def late(folder: Path) -> Iterator[None]:
        desk.monkeypatch.setattr(checkpoint, "locked", held)
        assert desk.child("resume", "out", *desk.FEW) == 0
        with held(folder):
            yield

    desk.monkeypatch.setattr(checkpoint, "locked", late)
    before = len(desk.steps())
    answer = desk("resume", "out")
    assert (answer.code, answer.out) == (0, "out is finished: there is nothing to go on with.\n")
    assert len(desk.steps()) == before + 7  # the other's


def test_a_frame_that_is_missing_is_missing_in_the_film_alone(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.stop()
    (desk.out / FRAME.format(3)).unlink()
    assert desk("resume", "out", *desk.FEW).code == 0
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
        answer = desk(*desk.RUN, *desk.FEW)
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "Another process is at work on out" in answer.err
    assert not (desk.out / "run.toml").exists()


def test_every_when_is_checked(desk: Desk) -> None:
    answer = desk(*desk.RUN, "--checkpoint-every", "-1")
    assert (answer.code, re.sub(r"\s+", " ", answer.err)) == (
        2, "referee: --checkpoint-every -1: say after how many steps; 0 for none. ",
    )  # fmt: skip


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "1e30"])
def test_a_limit_is_checked(desk: Desk, seconds: str) -> None:
    answer = desk(*desk.RUN, "--timeout", seconds)
    assert (answer.code, answer.out) == (2, "")
    assert "say how many seconds, more than 0 and at most a month" in answer.err
    assert not desk.out.exists()


def test_what_a_stopped_run_showed_is_shown_anew(desk: Desk) -> None:
    desk.at(7, "raise KeyboardInterrupt")
    assert desk(*desk.RUN, "--animation", "gif", "-q").code == 130
    page, film = desk.out / "report.html", desk.out / "evolution.gif"
    before = film.read_bytes()
    assert "Stopped after" in page.read_text()
    assert desk("resume", "out", "--no-report", "-q").code == 0
    assert "Stopped after" not in page.read_text()
    assert film.read_bytes() != before


def test_the_command_that_is_printed_goes_on(desk: Desk) -> None:
    desk.at(7, "raise KeyboardInterrupt")
    said = desk(*desk.RUN, "--no-report").out
    (line,) = (line for line in said.splitlines() if line.startswith("To go on: "))
    words = shlex.split(line.removeprefix("To go on: "))
    assert words == ["referee", "resume", "out", "--plugin", "toys.py"]
    desk.TOYS = ["--no-plugins"]  # type: ignore[misc]
    assert desk(*words[1:]).code == 0
    page = desk.out / "report.html"
    desk("report", "out")
    assert "a plug-in in a file, toys.py" in page.read_text()
