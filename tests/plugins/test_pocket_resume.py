"""Runs of the real parts go on bit for bit: from any step, and after SIGKILL at whatever moment."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from referee import load
from referee.inversion import State, Step, invert
from referee.parts import Parts
from referee.result import numbers
from referee.schedules import constant

PROMPT = "a red circle and a blue striped square"
FEW = {"rules": {"steps": 7, "tail": 1, "views": 2, "noise": 0.03, "restart_from": 2, "restart_every": 2}}
REFEREES = [{"name": "blip2"}, {"name": "clip", "every": 2}, {"name": "clip", "label": "eyes", "prompt": "a blue ring",
            "negative": True, "aug": "none"}]  # fmt: skip


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Three seats: one is asked at every second step, one should not be satisfied; two restarts within seven steps."""
    return load(settings={**FEW, "referees": REFEREES, "balancer": {"name": "smooth"}}, device="cpu")


def play(parts: Parts, state: State | None = None) -> list[tuple[Step, State]]:
    steps = invert(
        PROMPT, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, balancer=parts.balancer,
        space=parts.space, seeds=(5, 6), size=parts.size, state=state,
    )  # fmt: skip
    return [(step, step.state()) for step in steps if step.state]


def same(one: Step, other: Step) -> bool:
    return torch.equal(one.z, other.z) and torch.equal(one.image, other.image) and numbers(one) == numbers(other)


@pytest.mark.parametrize(
    ("cut", "over"),
    [
        (1, {}), (3, {"update": "sgd"}), (4, {"gradient_noise": constant(0.1)}), (5, {}),
        pytest.param(6, {"update": "sgd", "weight_decay": 0.01}, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_run_goes_on_bit_for_bit_from_a_file(parts: Parts, cut: int, over: dict[str, Any]) -> None:
    """Cut right after a restart, before one, and before the tail; the balancer remembers lengths."""
    parts = replace(parts, rules=parts.rules.model_copy(update=over))
    whole = play(parts)
    state = State.from_tensors(safetensors.torch.load(safetensors.torch.save(whole[cut - 1][1].to_tensors())))
    assert {"panel/clip"} <= state.memory.keys()
    assert any(name.startswith("balancer/") for name in state.memory)
    rest = play(parts, state)
    assert [step.k for step, _ in rest] == list(range(cut, 7))
    assert all(same(step, other) for (step, _), (other, _) in zip(rest, whole[cut:], strict=True))


RUN = [
    sys.executable, "-m", "referee", "generate", PROMPT, "-r", "blip2", "-r", "clip:every=2", "--seed", "5", "-n", "2",
    "--device", "cpu", "--balancer", "smooth", "--no-report", "-q",
]  # fmt: skip


def call(*words: str, dies: bool = False, after: int = 0, wait: float = 0.0) -> int:
    """Run a command; if it is to die, by SIGKILL, so many seconds after as many steps were written down."""
    folder = Path(words[words.index("--out") + 1] if "--out" in words else words[4])
    with subprocess.Popen(words, stdout=subprocess.DEVNULL) as process:
        metrics = folder / "metrics.jsonl"
        while dies and process.poll() is None and (metrics.read_text().count("\n") if metrics.exists() else 0) < after:
            time.sleep(0.02)
        if dies:
            time.sleep(wait)
            process.kill()
        return process.wait()


def kill_again_and_again(folder: Path, words: list[str], times: int, draw: random.Random) -> int:
    """How often it was really killed, on its way and not at its end."""
    killed, goes_on = 0, [sys.executable, "-m", "referee", "resume", str(folder / "cut"), "--checkpoint-every", "1"]
    for attempt in range(times):
        begun = [*goes_on, "--no-report", "-q"] if attempt else [*words, "--out", str(folder / "cut")]
        done = call(*begun, dies=True, after=draw.randrange(1, 6), wait=draw.random() / 10)
        killed += done == -signal.SIGKILL
    assert call(*goes_on, "--no-report", "-q") == 0
    return killed


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, 4])
def test_killed_at_any_moment_a_run_ends_with_the_same_files(tmp_path: Path, times: int) -> None:
    draw = random.Random()  # another moment at each call
    sets = [word for name, value in FEW["rules"].items() for word in ("--set", f"rules.{name}={value}")]
    words = [*RUN, *sets, "--checkpoint-every", "2"]
    assert call(*words, "--out", str(tmp_path / "whole")) == 0
    assert kill_again_and_again(tmp_path, words, times, draw) >= 1
    assert files(tmp_path / "cut") == files(tmp_path / "whole")
