"""`referee resume RUN`: a run that was stopped goes on from its checkpoint, as if it had never been.

It draws the same picture bit for bit if all that shaped it is as it was: so what changed since (versions, weights, the
chip) is named and refused, unless it is forced; then run.toml says so. Device and micro-batch may be chosen anew; they
change rounding alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee.command import flags
from referee.errors import RunError
from referee.watching.watch import KINDS, Watch

if TYPE_CHECKING:
    from referee.folder.run import About, Run
    from referee.plugins import Registry
    from referee.settings import Settings


def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)],
    force: Annotated[
        bool, typer.Option("--force", help="Go on though versions, weights or the device changed since.")
    ] = False,
    micro_batch: Annotated[
        int | None,
        typer.Option("--micro-batch", metavar="B", help="Views scored at once. [dim]default: as it was[/dim]"),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="A torch device. [dim]default: as it was[/dim]")
    ] = None,
    checkpoint_every: flags.CheckpointEvery = None,
    timeout: flags.Timeout = None,
    preview_every: flags.PreviewEvery = None,
    animation: flags.AnimationOption = "none",
    report: flags.Report = True,
    tensorboard: flags.TensorBoard = False,
    json_: flags.JsonResult = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
    block: flags.Block = None,
    no_plugins: flags.NoPlugins = False,
    plugin: flags.Files = None,
) -> None:
    """Go on with a run that was stopped, or cut off, from its checkpoint.

    [dim]referee resume runs/a-red-circle-0[/dim]
    """
    watch = Watch(json_, quiet, verbose, preview_every, animation, report, checkpoint_every, timeout, tensorboard)
    registry = flags.open_registry(block, no_plugins, plugin)
    from referee.folder.run import open_run

    found = open_run(run)
    if found.about.command != "generate":
        raise RunError(f"{run} is a plain sample, which has no steps to go on with.")
    from referee.folder.checkpoint import clear, locked

    if not found.complete:
        settings = _chosen(found.settings, micro_batch, device)
        with locked(run):
            found = open_run(run)  # another process may have finished it meanwhile
            if not found.complete:
                watch = _as_before(run, watch)
                return _go_on(found, settings, registry, watch, force=force, moved=device is not None)
    clear(run)  # whatever was left if it was cut off at its very end
    return _finished(found, watch)


def changes(then: About, now: Mapping[str, Any], *, moved: bool = False) -> list[str]:
    """What shaped a run and is no longer as it was, one sentence each.

    Args:
        then: what the run says.
        now: the table [run] that it would write today.
        moved: the device was chosen anew, so that a change of it is none.
    """
    from referee.folder.run import Origin

    origins = [Origin.model_validate(part) for part in now.get("parts", ())]
    before, parts = (
        {f"{part.kind} {part.name}": f"{part.distribution} {part.version}".strip() for part in some}
        for some in (then.parts, origins)
    )
    tables: list[tuple[str, Mapping[str, str], Mapping[str, str]]] = [
        ("", then.libraries, now["libraries"]), ("plug-in of ", before, parts),
        ("weights ", then.weights, now.get("weights", {})),
        ("", {"platform": then.platform}, {"platform": now["platform"]}),
    ]  # fmt: skip
    if not moved:
        tables.append(("", {"device": then.device}, {"device": now.get("device", "")}))
    return [
        f"{kind}{name}: {old.get(name, '') or 'not there'} -> {new.get(name, '') or 'not there'}"
        for kind, old, new in tables
        for name in sorted({*old, *new})
        if old.get(name, "") != new.get(name, "")
    ]


def _chosen(settings: Settings, micro_batch: int | None, device: str | None) -> Settings:
    """As they were, but for what may be chosen anew."""
    from referee.layers import Layer
    from referee.settings import NO_ZOO, build

    base = {**settings.model_dump(mode="json", exclude_none=True), "zoo": settings.zoo or NO_ZOO}
    over: Layer = {"rules": {} if micro_batch is None else {"micro_batch": micro_batch}}
    return build([base, over if device is None else {**over, "device": device}])


def _as_before(folder: Path, watch: Watch) -> Watch:
    """What the run showed when it was stopped is shown anew, asked for or not: nothing in its folder stays behind."""
    shown = next((kind for kind in KINDS if (folder / f"evolution.{kind}").is_file()), "none")
    animation = shown if watch.animation == "none" else watch.animation
    return replace(watch, animation=animation, report=watch.report or (folder / "report.html").is_file())


def _go_on(found: Run, settings: Settings, registry: Registry, watch: Watch, *, force: bool, moved: bool) -> None:
    from referee.folder import record
    from referee.parts import assemble, check, device_name
    from referee.watching.watch import log_plan, log_to_stderr

    log_to_stderr(watch.verbose)
    plan = check(settings, registry, found.prompt)
    settings = plan.settings
    description = record.describe(found.prompt.text, settings, registry, device=device_name(settings.device))
    changed = changes(found.about, description["run"], moved=moved)
    if changed and not force:
        raise RunError(
            f"{found.folder} would not go on as it began: {'; '.join(changed)}. Put that back, or add --force."
        )
    from referee.command.running import Job, play
    from referee.folder.checkpoint import fingerprint, read, read_rows

    checkpoint = read(found.folder, fingerprint(found.prompt.text, settings), len(settings.seeds))
    if checkpoint.k > settings.rules.steps:
        raise RunError(f"{found.folder}: its checkpoint is of step {checkpoint.k}, and it has {settings.rules.steps}.")
    history = read_rows(found.folder, checkpoint.k, settings.first_step)
    mixed = [*found.about.mixed, *(f"from step {checkpoint.k}: {change}" for change in changed if checkpoint.k)]
    if mixed:
        description["run"]["mixed"] = mixed
    log_plan(description)
    console = watch.console()
    with console.status("loading the models") if console.is_terminal else nullcontext():
        parts = assemble(plan)
    console.print(f"Going on after {checkpoint.k} of {settings.rules.steps} steps.")
    play(
        Job(found.prompt, settings, parts, registry, found.folder, description, watch, console), checkpoint, history
    )  # fmt: skip


def _finished(found: Run, watch: Watch) -> None:
    """Say that there is nothing to do, and where the pictures are."""
    if watch.json:
        pictures = [{"seed": seed, "path": str(path)} for seed, path in found.pictures.items()]
        steps = found.metrics[-1].step + 1 if found.metrics else 0
        print(json.dumps({"prompt": found.prompt.text, "folder": str(found.folder), "complete": True,
                          "steps": steps, "pictures": pictures}))  # fmt: skip
    elif watch.quiet:
        picked = found.about.judge.picked if found.about.judge else None
        print(*(path for seed, path in found.pictures.items() if picked in (None, seed)), sep="\n")
    else:
        print(f"{found.folder} is finished: there is nothing to go on with.")
