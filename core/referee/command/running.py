"""A run of the command, from loaded parts to written pictures: begun, or gone on with. Whatever stops it is said, with
what was kept.

    stopped by                       exit code, what is left
    nothing                          0: the pictures; the checkpoint is removed
    Ctrl-C, SIGTERM, SIGHUP          130, 143, 129: the best pictures so far, and a checkpoint of the last whole step
    a part that fails, a full disk   1: a checkpoint of the last whole step, or the one before
    SIGKILL, a power cut             the checkpoint before
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from referee.command.crash import blame
from referee.command.crash import report as say_crash
from referee.command.stops import stoppable
from referee.errors import OutputError, PluginError, RefereeError, out_of_memory, short_of_memory
from referee.folder import record
from referee.folder.checkpoint import METRICS, Checkpoint, Checkpoints, clear, fingerprint, locked, tidy
from referee.folder.run import MAX_MAPS
from referee.inversion import Step
from referee.judging import Judgement
from referee.panel import at_once
from referee.parts import Parts
from referee.play import drain
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.result import Result, Standing
from referee.settings import Settings
from referee.timeout import limited
from referee.watching.board import Board
from referee.watching.display import Display
from referee.watching.watch import Keeper, Watch

if TYPE_CHECKING:
    from rich.console import Console

LOG = logging.getLogger("referee")


@dataclass(frozen=True, slots=True)
class Job:
    """A run that is to be played: who plays, and where it is written."""

    prompt: Prompt
    settings: Settings
    parts: Parts
    registry: Registry
    folder: Path
    description: dict[str, Any]
    watch: Watch
    console: Console


def begin(job: Job) -> None:
    """Play a new run. If it is refused at the last moment, before its first step, nothing is left.

    Raises:
        RefereeError: it was refused.
        typer.Exit: it was stopped, or failed on the way.
    """
    folder = job.folder
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        _make(folder)
        with locked(folder):
            if (folder / "run.toml").exists():  # since the folder was chosen
                raise OutputError(f"{folder} holds another run. Choose another --out.")
            try:
                play(job, Checkpoint(), ())
            except BaseException:
                _undo(folder)
                raise
    finally:
        with suppress(OSError):  # where something was written, it stays
            for path in missing:
                path.rmdir()


def play(job: Job, found: Checkpoint, history: Sequence[Mapping[str, Any]]) -> None:
    """Play a run from where it stands. The caller holds its folder.

    Raises:
        RefereeError: it was refused before a step was played.
        typer.Exit: it was stopped, or failed on the way.
    """
    folder, steps = job.folder, job.parts.rules.steps
    tidy(folder)
    if not found.k:
        clear(folder)  # frames without a checkpoint, which somebody removed
    record.write_run(folder, {**job.description, "run": {**job.description["run"], "unfinished": True}})
    record.write_metrics(folder, history)
    keeper = Keeper(folder, steps, len(job.settings.seeds), job.watch, job.parts.first_step)
    keeper.frames |= {k: list(pictures) for k, pictures in found.frames.items()}
    settings = fingerprint(job.prompt.text, job.settings)
    checkpoints = Checkpoints(folder, settings, keeper.frames, job.watch.checkpoint_every)
    checkpoints.written, checkpoints.last = found.k, found.standing if found.k else None
    with stoppable() as stop:
        try:
            result = _drain(job, found, history, keeper, checkpoints)
            if not result.complete:
                checkpoints.write()
            if checkpoints.last and checkpoints.last.state and (fit := at_once(checkpoints.last.state.memory)):
                job.description["rules"]["micro_batch"] = min(fit.values())  # so that its repetition fits, too
                job.description["run"]["at_once"] = fit
            write(folder, result, job.description, keeper, job.watch, job.console)
        except KeyboardInterrupt:  # before the first step, or for the second time
            with suppress(OutputError):  # the disk is full: the checkpoint before is there
                checkpoints.write()
            raise typer.Exit(stop.code) from None
        except BaseException as error:  # a stranger's part may raise anything
            named = _named(error)
            if checkpoints.last is not None:
                raise typer.Exit(_failed(job, named, checkpoints)) from error
            if named is error:
                raise
            raise named from error
    if not result.complete:
        raise typer.Exit(stop.code)
    clear(folder)


def _drain(
    job: Job, found: Checkpoint, history: Sequence[Mapping[str, Any]], keeper: Keeper, checkpoints: Checkpoints
) -> Result:
    boarded = closing(Board(job.folder, job.settings.seeds, frozenset(keeper.kept))) if job.watch.tensorboard else None
    with (
        Display(job.parts.rules.steps, job.console) as display,
        limited(job.watch.timeout) as again,
        boarded or nullcontext() as board,
    ):

        def on_step(step: Step) -> None:
            display.show(step)
            job.registry.hook.referee_step(step=step)
            keeper.keep(step)
            if board:
                board.show(step)

        def keep(standing: Standing, rows: Sequence[Mapping[str, Any]]) -> None:
            checkpoints.keep(standing, rows)
            again()

        return drain(
            job.prompt, job.parts, job.settings.seeds, on_step, standing=found.standing, history=history, keep=keep,
        )  # fmt: skip


def write(
    folder: Path, result: Result, description: dict[str, Any], keeper: Keeper | None, watch: Watch, console: Console
) -> None:
    """Write a run down and say where. run.toml, which says how it ended, comes after all that it speaks of.

    Args:
        keeper: None for a plain sample.

    Raises:
        OutputError: the disk is full.
    """
    if not result.complete:
        description["run"]["interrupted_after"] = result.steps
        console.print(f"Stopped after {result.steps} steps; this is the best picture so far.")
        console.print(f"To go on: {_resume(folder, description)}", soft_wrap=True)
    if keeper:
        keeper.finish(result)
        description["run"] |= {"frames": sorted(keeper.frames), "maps": list(result.maps)[:MAX_MAPS]}
    for seed, picture in zip(result.seeds, result.pictures, strict=True):
        record.write_picture(folder / f"picture-{seed}.png", picture, description, seed)
    if keeper:
        record.write_metrics(folder, result.history)
        record.write_strip(folder / "evolution.png", record.strip(keeper.few(), [f"seed {s}" for s in result.seeds]))
        keeper.write(result)
        if any(row["losses"] for row in result.history):
            from referee.watching import charts

            maps = {name: found.numpy() for name, found in result.maps.items()}
            record.write_strip(folder / "panel.png", charts.panel(result.history, result.pictures, maps))
    if result.judged:
        description["run"]["judge"] = _judged(result, result.judged)
    record.write_run(folder, description)
    page = folder / "report.html" if watch.report else None
    if page:
        from referee.folder.run import open_run
        from referee.watching.report import write_report

        write_report(page, [open_run(folder)])
    watch.tell(folder, result, page, console)


def _judged(result: Result, judged: Judgement) -> dict[str, Any]:
    found: dict[str, Any] = {"taken": list(judged.taken)}
    if judged.ended is not None:
        found["ended"] = judged.ended
    if judged.picked is not None:
        found["picked"] = result.seeds[judged.picked]
    return found


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder} cannot be made: {error.strerror or error}.") from error


def _undo(folder: Path) -> None:
    """If no step was played, leave nothing."""
    metrics = folder / METRICS
    with suppress(OSError):
        if not metrics.exists() or metrics.stat().st_size == 0:
            metrics.unlink(missing_ok=True)
            (folder / "run.toml").unlink(missing_ok=True)


def _named(error: BaseException) -> BaseException:
    """A plug-in that ends the process is a plug-in that failed, and memory can be spared; the rest is what it is."""
    if isinstance(error, SystemExit):
        said = f"A part called sys.exit({error.code!r}) while the run was played. {blame(error)}"
        named: RefereeError = PluginError(said.strip())
    elif out_of_memory(error):
        named = short_of_memory(error)
    else:
        return error
    named.__cause__ = error
    return named


def _failed(job: Job, error: BaseException, checkpoints: Checkpoints) -> int:
    """Keep what can be kept, and say what happened; gives the exit code."""
    if isinstance(error, RefereeError):
        LOG.debug("what it came of:", exc_info=error)
        print(f"referee: {error}", file=sys.stderr)
        if error.__cause__ is not None and (said := blame(error)) and said not in str(error):
            print(f"referee: {said}", file=sys.stderr)
    else:
        say_crash(error)
    with suppress(RefereeError):  # the disk is full: the checkpoint before is there
        checkpoints.write()
    kept = f"{checkpoints.written} steps are kept" if checkpoints.written else "No step is kept"
    print(f"referee: {kept}. To go on: {_resume(job.folder, job.description)}", file=sys.stderr)
    return 1


def _resume(folder: Path, description: Mapping[str, Any]) -> str:
    """The command, with the single files that were given as plug-ins."""
    parts = description["run"].get("parts", ())
    files = dict.fromkeys(part["distribution"] for part in parts if part["distribution"].endswith(".py"))
    return shlex.join(["referee", "resume", str(folder), *(word for path in files for word in ("--plugin", path))])
