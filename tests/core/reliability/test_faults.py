"""What fails in a run: it is named, nothing is lost, and the run that goes on ends as the unbroken one."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch

from referee import timeout
from referee.folder.checkpoint import NAME
from referee.folder.run import open_run
from referee.watching.report import page

if TYPE_CHECKING:
    from conftest import Desk


FULL = "def full(*_): raise OSError(28, 'No space left on device')\nos.fsync = full"


@pytest.mark.parametrize(("every", "kept"), [("1", 6), ("4", 4), ("0", 0)])
def test_a_full_disk(desk: Desk, unbroken: dict[str, bytes], every: str, kept: int) -> None:
    """From step 6 on nothing is written. What was written before is whole."""
    desk.monkeypatch.setattr(os, "fsync", os.fsync)  # put back at the end
    desk.at(6, FULL)
    answer = desk(*desk.RUN, *desk.FEW, "--checkpoint-every", every)
    assert answer.code == 1
    assert "No space left on device" in answer.err
    said = f"{kept} steps are kept" if kept else "No step is kept"
    assert answer.err.endswith(f"referee: {said}. To go on: referee resume out --plugin toys.py\n")
    assert "Traceback" not in answer.err
    assert not list(desk.out.glob(".*.tmp"))
    desk.monkeypatch.undo()
    desk.monkeypatch.chdir(desk.folder)
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_a_disk_on_which_no_checkpoint_fits(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """Refused by the kernel in the middle of a write: a limit on the size of a file."""

    most = max(len(unbroken["run.toml"]) + 200, 3000)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))

    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "4", before=limit) == 1
    assert not (desk.out / NAME).exists()
    assert not list(desk.out.glob(".*.tmp"))
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


HERE = "referee: This happened in the plug-in file toys.py, given by --plugin."
GO_ON = "To go on: referee resume out --plugin toys.py"
FAULTS = {
    "an error": ("raise KeyError('tokens')", ["'toy' failed at step 5: KeyError: 'tokens'", HERE]),
    "sys.exit": ("sys.exit(0)", ["'toy' failed at step 5: SystemExit: 0", HERE]),
    "another kind of exit": ("import click; raise click.exceptions.Exit(0)", ["'toy' failed at step 5: Exit: 0", HERE]),
    "it hangs": (
        "import time\ntime.sleep(600)",
        ["'toy' failed at step 5: TimeoutError: no answer within 5 seconds (<string>, line 2)", HERE],
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
    answer = desk(*desk.RUN, *desk.FEW)
    assert answer.code == 1
    *lines, last = answer.err.splitlines()
    assert len(lines) == len(said)
    assert all(words in line for words, line in zip(said, lines, strict=True)), lines
    assert last == "referee: 5 steps are kept. To go on: referee resume out --plugin toys.py"
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


@pytest.mark.parametrize(("code", "trace"), [("sys.exit(0)", False), ("1 / 0", True)])
def test_a_hook_that_fails_is_named_and_nothing_is_lost(
    desk: Desk, unbroken: dict[str, bytes], code: str, trace: bool
) -> None:
    desk.at(5, code)
    answer = desk(*desk.RUN, *desk.FEW)
    assert answer.code == 1
    assert ("Traceback" in answer.err) == trace
    assert "This happened in the plug-in file toys.py" in answer.err
    assert "5 steps are kept" in answer.err
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


HANGS = "import time; signal.setitimer(signal.ITIMER_REAL, 0.1); time.sleep(600)"  # the clock is put forward
GAVE_NONE = "TimeoutError: no answer within 600 seconds"


@pytest.mark.parametrize(
    ("where", "said", "steps"),
    [
        ("pull", f"referee: 'prior' failed at step 5: {GAVE_NONE}", 5),
        ("views", "referee: 'toy' failed at step 5: TimeoutError: no answer within 5 seconds", 5),  # its own is nearer
        ("decode", GAVE_NONE, 5),
        ("balance", GAVE_NONE, 5),
        ("observer", GAVE_NONE, 4),  # which has not yet heard of that step
    ],
)
def test_whoever_hangs_ends_the_run_in_time(
    desk: Desk, unbroken: dict[str, bytes], where: str, said: str, steps: int
) -> None:
    desk.at(4, HANGS if where == "observer" else f"(HERE / 'at-{where}.py').write_text({HANGS!r})")
    answer = desk(*desk.RUN, *desk.FEW, "--timeout", "600")
    assert answer.code == 1
    assert said in answer.err.splitlines()[0 if said.startswith("referee") else -3]
    assert answer.err.splitlines()[-2] == HERE
    assert answer.err.splitlines()[-1] == f"referee: {steps} steps are kept. {GO_ON}"
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_the_nearest_limit_is_kept_and_the_others_hold_on() -> None:
    def sleep(within: float) -> None:
        with timeout.limited(within):
            time.sleep(60)

    began = time.monotonic()
    with timeout.limited(0.3) as again:
        with timeout.limited(60):
            pass  # whoever is within it does not lift it
        with pytest.raises(TimeoutError, match=r"no answer within 0\.01 seconds"):
            sleep(0.01)
        again()
        with pytest.raises(TimeoutError, match=r"no answer within 0\.3 seconds"):
            sleep(60)
    assert 0.3 <= time.monotonic() - began < 30
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_referee_that_hangs_where_python_has_no_say_ends_the_process(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """A kernel that never ends: to Python it is a call during which no signal gets through."""
    hangs = "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()); import time; time.sleep(600)"
    desk.at(4, f"(HERE / 'at-loss.py').write_text({hangs!r})")
    desk.monkeypatch.setattr(timeout, "GRACE", 0.5)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "3") == 1
    assert desk.kept() == 3
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_numbers_that_are_none_are_remembered_as_such(desk: Desk) -> None:
    """A referee that is asked at every third step gives no numbers at step 3, and sits out until it is asked again."""
    nan = "(HERE / 'at-loss.py').write_text('answer = views.sum((1, 2, 3)) * float(\"nan\")')"
    run = [word.replace("toy:timeout=5", "toy:every=3") for word in desk.RUN]
    desk.at(2, nan)
    assert desk(*run, *desk.FEW).code == 0
    assert [row.step for row in open_run(desk.out).metrics if "toy" in row.sat_out] == [3, 4, 5]
    whole = desk.files()
    desk.out.rename(desk.folder / "whole")
    desk.at(2, nan)
    desk.dies_at(4)
    assert desk.child(*run, *desk.FEW, "--checkpoint-every", "4") == -9
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == whole


SHORT = "import torch; raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2 GiB.')"


def test_how_many_views_fit_is_remembered(desk: Desk) -> None:
    """Memory runs out once, at step 3: bit for bit the run that goes on with as few views at once."""
    few = f"(HERE / 'at-loss.py').write_text({SHORT!r})"
    desk.at(2, few)
    answer = desk(*desk.RUN, *desk.FEW)
    assert answer.code == 0
    assert "Out of memory: 'toy' scores 2 views at once from now on" in answer.err
    run = open_run(desk.out)
    assert run.settings.rules.micro_batch == 2, "its repetition fits from the start"
    assert run.about.at_once == {"toy": 2}
    assert "Memory ran out: &#39;toy&#39; scored 2 views at once." in page([run])
    whole = desk.files()
    desk.out.rename(desk.folder / "whole")
    desk.at(2, few)
    desk.dies_at(7)
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "5") == -9
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == whole


def test_memory_that_runs_out_elsewhere_ends_a_run_that_can_go_on(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(5, SHORT)
    answer = desk(*desk.RUN, *desk.FEW)
    assert (answer.code, answer.err.splitlines()) == (1, [
        "referee: Out of memory: CUDA out of memory. Tried to allocate 2 GiB. "  # one full stop, said or not
        "`referee plan --fit 12GB` says what needs less.",
        "referee: This happened in the plug-in file toys.py, given by --plugin.",
        "referee: 5 steps are kept. To go on: referee resume out --plugin toys.py",
    ])  # fmt: skip
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


def test_an_exception_that_is_no_ordinary_one_ends_a_run_that_can_go_on(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(5, "class Odd(BaseException): pass\nraise Odd('x')")
    answer = desk(*desk.RUN, *desk.FEW)
    assert answer.code == 1
    assert "Odd: x" in answer.err
    assert answer.err.splitlines()[-2:] == [
        "referee: This happened in the plug-in file toys.py, given by --plugin.",
        "referee: 5 steps are kept. To go on: referee resume out --plugin toys.py",
    ]
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


@pytest.mark.parametrize(
    ("answer", "shape"),
    [("z[:, :1].repeat_interleave(2, 2).repeat_interleave(2, 3)", "(2, 1, 8, 8)"), ("z", "(2, 3, 4, 4)")],
)
def test_a_prior_that_decodes_to_no_picture_is_named(desk: Desk, answer: str, shape: str) -> None:
    desk.at("decode", f"answer = {answer}")
    said = desk(*desk.RUN, *desk.FEW)
    assert said.code == 2
    assert said.err == f"referee: The prior drew {shape}; expected (2, 3, 8, 8): RGB at the size of the run.\n"
    assert not desk.out.exists()


NAN = "float('nan')"


def test_a_prior_that_gives_no_numbers_sits_out(desk: Desk) -> None:
    """Its pull at step 3, and its picture at step 6: the referees then have none, and the latent stays a number."""
    desk.at(2, f"(HERE / 'at-pull.py').write_text(\"answer = z * {NAN}\")")
    desk.at(
        5, f"(HERE / 'at-decode.py').write_text(\"answer = z.repeat_interleave(2, 2).repeat_interleave(2, 3) * {NAN}\")"
    )
    answer = desk(*desk.RUN, *desk.FEW)
    assert (answer.code, answer.err) == (0, "")
    rows = open_run(desk.out).metrics
    assert [row.step for row in rows if "prior" in row.sat_out] == [3]
    assert [row.step for row in rows if "toy" in row.sat_out] == [6]
    assert all(value is not None for row in rows[7:] for losses in row.losses.values() for value in losses)


def test_a_plugin_that_meddles_with_the_global_seed_changes_nothing(desk: Desk, unbroken: dict[str, bytes]) -> None:
    desk.at(2, "import random, torch, numpy; random.seed(1); torch.manual_seed(1); numpy.random.seed(1)")
    state = torch.get_rng_state()
    assert desk(*desk.RUN, *desk.FEW).code == 0
    torch.set_rng_state(state)
    assert desk.files() == unbroken


MAPPED = """
    from safetensors.torch import load_file
    weights = load_file(HERE / "w.safetensors")
    made = Referee()
    read = made.read
    made.read = lambda prompt: (lambda loss: lambda views: loss(views) * weights["one"][-1])(read(prompt))
    return made
"""
"""Read through the system's map of the file."""


def test_weights_that_are_deleted_on_the_way_are_loaded(desk: Desk, unbroken: dict[str, bytes]) -> None:
    """The map outlives the file's name."""
    safetensors.torch.save_file({"one": torch.ones(1 << 20)}, desk.folder / "w.safetensors")
    desk.rewrite("    return Referee()\n", MAPPED)
    desk.at(2, "(HERE / 'w.safetensors').unlink()")
    assert desk(*desk.RUN, *desk.FEW).code == 0
    assert not (desk.folder / "w.safetensors").exists()
    assert desk.files() == unbroken


def test_weights_that_are_cut_on_the_way_end_the_process_and_the_checkpoint_is_kept(
    desk: Desk, unbroken: dict[str, bytes]
) -> None:
    """Written over in place, as `cp` does: the system then kills whoever reads on."""
    safetensors.torch.save_file({"one": torch.ones(1 << 20)}, desk.folder / "w.safetensors")
    whole = (desk.folder / "w.safetensors").read_bytes()
    desk.rewrite("    return Referee()\n", MAPPED)
    desk.at(5, "os.truncate(HERE / 'w.safetensors', 0)")
    assert desk.child(*desk.RUN, *desk.FEW, "--checkpoint-every", "4") == -signal.SIGBUS
    assert desk.kept() == 4
    (desk.folder / "w.safetensors").write_bytes(whole)
    assert desk("resume", "out", *desk.FEW).code == 0
    assert desk.files() == unbroken


@pytest.mark.parametrize("where", ["loss", "read"])
def test_who_fails_before_a_step_was_played_is_named_with_the_way_out(desk: Desk, where: str) -> None:
    desk.at(where, "1 / 0")
    answer = desk(*desk.RUN, *desk.FEW)
    assert answer.code in (1, 2)
    assert "This happened in the plug-in file toys.py, given by --plugin." in answer.err
    assert not desk.out.exists()


def test_a_referee_that_never_has_a_say_is_told_of(desk: Desk) -> None:
    desk.rewrite("return plain(views) if answer is None else answer", "return plain(views) * float('nan')")
    answer = desk(*desk.RUN, "--json")
    assert answer.code == 0
    said = json.loads(answer.out)["sat_out"]
    assert said.keys() == {"toy", "b"}
    assert all(count == played > 0 for count, played in said.values())
    page = (desk.out / "report.html").read_text()
    assert "sat out" in page
    assert "Nothing on the picture is its doing." in page
