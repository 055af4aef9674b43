"""`referee generate | sample | score`: draw with referees, by the prior alone, or look at a picture that is there."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from referee.command import flags
from referee.command.asked import prompt_of, settings_of
from referee.errors import OptionError
from referee.watching.watch import Watch

if TYPE_CHECKING:
    from referee.plugins import Registry
    from referee.settings import Settings


def generate(
    prompt: flags.Text = None,
    referee: flags.Referees = None,
    prior: flags.PriorOption = None,
    aug: flags.Augment = None,
    balancer: flags.Balance = None,
    judge: flags.JudgeOption = None,
    keep: flags.Keep = None,
    pick: flags.Pick = False,
    zoo: flags.Zoo = None,
    preset: flags.Preset = None,
    config: flags.Config = None,
    set_: flags.Sets = None,
    steps: flags.Steps = None,
    views: flags.ViewCount = None,
    seed: flags.Seed = None,
    n: flags.Count = None,
    size: flags.Size = None,
    out: flags.Out = None,
    init: flags.Begin = None,
    strength: flags.Strength = None,
    mask: flags.MaskFile = None,
    region: flags.Regions = None,
    negative: flags.Negative = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
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
    """Draw a prompt: optimise a latent until the referees agree.

    [dim]referee generate "a red circle and a blue striped square"
    referee generate "a green star above a black ring" -r blip2 -r clip:weight=0.5
    referee generate "a red ring and a blue star" -n 4 --judge pocket-judge --pick[/dim]
    """
    watch = Watch(json_, quiet, verbose, preview_every, animation, report, checkpoint_every, timeout, tensorboard)
    registry = flags.open_registry(block, no_plugins, plugin)
    settings = settings_of(
        registry, config, zoo, preset, set_, referee=referee, prior=prior, aug=aug, balancer=balancer, steps=steps,
        views=views, seed=seed, n=n, size=size, device=device, dtype=dtype, judge=judge, keep=keep, pick=pick,
        init=init, strength=strength, mask=mask, region=region, negative=negative,
    )  # fmt: skip
    _run(prompt_of(prompt, config), settings, registry, out, watch)


def sample(
    prompt: flags.Text = None,
    prior: flags.PriorOption = None,
    zoo: flags.Zoo = None,
    preset: flags.Preset = None,
    config: flags.Config = None,
    set_: flags.Sets = None,
    seed: flags.Seed = None,
    n: flags.Count = None,
    negative: flags.Negative = None,
    out: flags.Out = None,
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    json_: flags.JsonResult = False,
    quiet: flags.Quiet = False,
    verbose: flags.Verbose = False,
    block: flags.Block = None,
    no_plugins: flags.NoPlugins = False,
    plugin: flags.Files = None,
) -> None:
    """The prior alone, by plain sampling: the baseline to hold a run against.

    [dim]referee sample "a red circle" -n 4[/dim]
    """
    watch = Watch(json_, quiet, verbose)
    registry = flags.open_registry(block, no_plugins, plugin)
    settings = settings_of(
        registry, config, zoo, preset, set_, prior=prior, seed=seed, n=n, device=device, dtype=dtype, negative=negative
    )
    settings = settings.model_copy(update={"referees": (), "augmentation": None, "judge": None, "init": None})
    _run(prompt_of(prompt, config), settings, registry, out, watch, plain=True)


def score(
    image: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="What it should show.", show_default=False)],
    referee: flags.Referees = None,
    zoo: flags.Zoo = None,
    config: flags.Config = None,
    device: flags.Device = None,
    json_: flags.Json = False,
    block: flags.Block = None,
    no_plugins: flags.NoPlugins = False,
    plugin: flags.Files = None,
) -> None:
    """Judge a picture: each referee's loss, without augmentation; lower is better.

    [dim]referee score picture.png "a red circle" -r clip[/dim]
    """
    registry = flags.open_registry(block, no_plugins, plugin)
    settings = settings_of(registry, config, zoo, None, None, referee=referee, device=device)
    settings = settings.model_copy(update={"prior": None, "augmentation": None, "judge": None, "init": None})
    if not settings.referees:
        raise OptionError("No referee is named: add --referee NAME or a --zoo that has some.")
    from referee.parts import check, device_name, seats_of
    from referee.prompt import Prompt

    words = Prompt(prompt)
    plan = check(settings, registry, words)
    from referee.pixels import from_pillow
    from referee.play import score as judge

    x = from_pillow(image)
    losses = judge(x, words, seats_of(plan), device_name(settings.device))
    if json_:
        print(json.dumps(losses))
    else:
        for name, loss in losses.items():
            print(f"{name:20} {loss:.4f}")


def _run(
    prompt: str, settings: Settings, registry: Registry, out: Path | None, watch: Watch, plain: bool = False
) -> None:
    from referee.folder import record
    from referee.parts import check
    from referee.prompt import Prompt
    from referee.watching.watch import log_plan, log_to_stderr

    # Everything that can be refused for nothing is refused here.
    log_to_stderr(watch.verbose)
    request = Prompt(prompt)
    plan = check(settings, registry, request)
    settings = plan.settings
    folder = record.choose_folder(out, request.text, settings.seeds[0])
    console = watch.console()
    with console.status("loading the models") if console.is_terminal else nullcontext():
        from referee.command.running import Job, begin, write
        from referee.parts import assemble
        from referee.play import sample_seeds

        parts = assemble(plan)
    command = "sample" if plain else "generate"
    description = record.describe(request.text, settings, registry, command=command, device=parts.device)
    log_plan(description)
    folder = record.choose_folder(out, request.text, settings.seeds[0])  # another run may have taken it meanwhile
    if plain:
        write(folder, sample_seeds(request, parts, settings.seeds), description, None, watch, console)
    else:
        begin(Job(request, settings, parts, registry, folder, description, watch, console))
