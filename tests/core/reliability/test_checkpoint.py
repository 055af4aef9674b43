"""A checkpoint's file: written when it is due, and refused if a bit of it is not as it was."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as fuzz
from hypothesis import strategies as st

from referee.errors import RunError
from referee.folder import checkpoint
from referee.folder.checkpoint import FRAME, NAME, Checkpoints, encode, fingerprint, read
from referee.result import Standing
from referee.settings import Settings
from referee.state import State

if TYPE_CHECKING:
    from conftest import Desk


FUZZ = fuzz(max_examples=150, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint of two pictures."""
    folder, z = tmp_path_factory.mktemp("kept"), torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    state = State(5, z, 2 * z, {"step": torch.tensor(5.0), "exp_avg": z}, {"panel/b": -z}, {"b": z.abs().sum(1)})
    (folder / NAME).write_bytes(encode(Standing(state, z, torch.ones(2)), "sum"))
    return folder


def flip(path: Path, at: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[at % len(content)] ^= 1 << bit
    path.write_bytes(content)


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


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_gone_on_from_is_refused(desk: Desk, case: str) -> None:
    desk.stop()
    breaks, said = BROKEN[case]
    breaks(desk.out)
    before = desk.files()
    answer = desk("resume", "out", *desk.FEW)
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
    desk.stop()
    (desk.out / NAME).unlink()
    flip(desk.out / FRAME.format(3), -1)  # its frames stay, and may be of other settings
    desk.dies_at(5)
    assert desk.child("resume", "out", *desk.FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


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
    judged = [Settings(zoo=None, judge={"name": "toy", **own}) for own in ({}, {"offload": True}, {"every": 3})]
    assert fingerprint("red", judged[0]) == fingerprint("red", judged[1]) != fingerprint("red", judged[2])


def test_a_setting_that_a_later_version_adds_leaves_the_sum() -> None:
    class Later(Settings):
        added: int = 7

    settings = {"zoo": None, "referees": [{"name": "toy", "weight": "cosine(1,0)"}]}
    assert fingerprint("red", Later(**settings)) == fingerprint("red", Settings(**settings))
    assert fingerprint("red", Later(**settings, added=8)) != fingerprint("red", Settings(**settings))
