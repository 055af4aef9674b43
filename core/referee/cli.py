"""The command: `referee generate | resume | sample | score | plan | report | bench | plugins | zoo | convert | doctor`.

It turns words into settings and shows what comes of them; it computes nothing. Bad input ends with one clear sentence
and exit code 2, before any model loads and with nothing written. What stops a run is in `referee.running`.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from contextlib import nullcontext
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from referee import convert, zoo_cli
from referee.bench.command import app as bench
from referee.devices import KNOWN
from referee.doctor import doctor
from referee.errors import OptionError, PromptError, RefereeError, out_of_memory, short_of_memory
from referee.flags import Block, Files, Json, JudgeOption, Keep, NoPlugins, Pick, names, open_registry
from referee.plugin_commands import app as plugins
from referee.report import report
from referee.resume import resume
from referee.watch import (
    AnimationOption,
    CheckpointEvery,
    PreviewEvery,
    Quiet,
    Report,
    TensorBoard,
    Timeout,
    Verbose,
    Watch,
)
from referee.watch import Json as JsonResult

if TYPE_CHECKING:
    from referee.plugins import Registry
    from referee.settings import Settings

app = typer.Typer(
    help="Pictures by model inversion: a latent is optimised until frozen referees agree that it matches the prompt.",
    epilog='Example: referee generate "a red circle and a blue striped square" --referee blip2 --referee clip\n\n'
    "Exit codes: 0 done; 1 failed on the way (what is kept is said), a bug, or `referee doctor` found a fault; "
    "2 refused, and nothing was written; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP: the best pictures so "
    "far were written, and `referee resume` goes on.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(bench, name="bench")
app.add_typer(plugins, name="plugins")
app.add_typer(zoo_cli.app, name="zoo")
app.add_typer(convert.app, name="convert")
app.command()(resume)
app.command()(report)
app.command()(doctor)

Text = Annotated[
    str | None,
    typer.Argument(help="What to draw. [dim]default: what --config says, if it is of a run[/dim]", show_default=False),
]
Referees = Annotated[
    list[str] | None,
    typer.Option(
        "--referee",
        "-r",
        metavar="NAME[:key=value,...]",
        autocompletion=names("referee"),
        help="A referee that plays; repeat for more. weight=, label=, from=, until=, views=, aug=, prompt=, negative=, "
        "margin=, every=, between= and region= fit all, the rest are its own options: see `referee plugins show NAME`. "
        "[dim]default: the preset's[/dim]",
    ),
]
PriorOption = Annotated[
    str | None,
    typer.Option(
        "--prior",
        metavar="NAME[:key=value,...]",
        autocompletion=names("prior"),
        help="Keeps it real. [dim]default: the preset's[/dim]",
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        "--aug",
        metavar="NAME[:key=value,...]|none",
        autocompletion=names("augmentation"),
        help="Makes the views; with 'none' the plain image is scored. [dim]default: the preset's[/dim]",
    ),
]
Balance = Annotated[
    str | None,
    typer.Option(
        "--balancer",
        metavar="NAME[:key=value,...]",
        autocompletion=names("balancer"),
        help="Makes one direction of several gradients; space=image balances on the image, which costs one decoder "
        "pass for all referees. [dim]default: the mean of unit gradients[/dim]",
    ),
]
Zoo = Annotated[
    str | None,
    typer.Option(
        "--zoo",
        metavar="NAME|none",
        autocompletion=names("zoo"),
        help="The set of checkpoints. [dim]default: pocket[/dim]",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option("--preset", metavar="NAME", help="paper, released, or a zoo's. [dim]default: the zoo's own[/dim]"),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings from TOML; a run.toml repeats its run, a run's PNG itself."
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="a.b=value", help="One setting, e.g. rules.noise=0.05; repeat for more."),
]
Begin = Annotated[
    str | None,
    typer.Option(
        "--init",
        metavar="FILE",
        help="A picture to begin with; one of another size is scaled and cropped.",
    ),
]
Strength = Annotated[
    float | None,
    typer.Option(
        "--strength",
        metavar="S",
        help="How far to go from --init: the share of the steps that is played, and the noise at their start; 1 keeps "
        "nothing of it. [dim]default: 0.5; with --mask 1[/dim]",
    ),
]
MaskFile = Annotated[
    str | None,
    typer.Option(
        "--mask", metavar="FILE", help="What of --init may change, a picture of its size: white; black stays as it is."
    ),
]
Regions = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar='"x0,y0,x1,y1: PROMPT"',
        help="What a part of the picture should show, in pixels from the upper left corner or in per cent; repeat for "
        "more. The first referee is asked once more, and sees that part alone; the others see the whole. For another "
        "one: -r 'NAME:region=\"0,0,50%,100%\",prompt=...'.",
    ),
]
Negative = Annotated[
    str | None,
    typer.Option("--negative", metavar="TEXT", help="What the prior should keep away from: its option negative."),
]
Steps = Annotated[int | None, typer.Option("--steps", help="Iterations. [dim]default: the preset's[/dim]")]
ViewCount = Annotated[
    int | None, typer.Option("--views", help="Views per step and referee. [dim]default: the preset's[/dim]")
]
Size = Annotated[str | None, typer.Option("--size", metavar="HxW", help="Pixels, height first, e.g. 64x96.")]
Seed = Annotated[
    int | None, typer.Option("--seed", help="Of the first picture; others count on. [dim]default: 0[/dim]")
]
Count = Annotated[int | None, typer.Option("-n", help="Pictures, in one batch. [dim]default: 1[/dim]")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Where to write. [dim]default: runs/PROMPT-SEED[/dim]")
]
Device = Annotated[
    str | None, typer.Option("--device", help="A torch device. [dim]default: cuda if there is one, else cpu[/dim]")
]
Dtype = Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16: of the models.")]


@app.command()
def generate(
    prompt: Text = None,
    referee: Referees = None,
    prior: PriorOption = None,
    aug: Augment = None,
    balancer: Balance = None,
    judge: JudgeOption = None,
    keep: Keep = None,
    pick: Pick = False,
    zoo: Zoo = None,
    preset: Preset = None,
    config: Config = None,
    set_: Sets = None,
    steps: Steps = None,
    views: ViewCount = None,
    seed: Seed = None,
    n: Count = None,
    size: Size = None,
    out: Out = None,
    init: Begin = None,
    strength: Strength = None,
    mask: MaskFile = None,
    region: Regions = None,
    negative: Negative = None,
    device: Device = None,
    dtype: Dtype = None,
    checkpoint_every: CheckpointEvery = None,
    timeout: Timeout = None,
    preview_every: PreviewEvery = None,
    animation: AnimationOption = "none",
    report: Report = True,
    tensorboard: TensorBoard = False,
    json_: JsonResult = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:
    """Draw a prompt: optimise a latent until the referees agree.

    [dim]referee generate "a red circle and a blue striped square"
    referee generate "a green star above a black ring" -r blip2 -r clip:weight=0.5
    referee generate "a red ring and a blue star" -n 4 --judge pocket-judge --pick[/dim]
    """
    watch = Watch(json_, quiet, verbose, preview_every, animation, report, checkpoint_every, timeout, tensorboard)
    registry = open_registry(block, no_plugins, plugin)
    settings = _settings(
        registry, config, zoo, preset, set_, referee=referee, prior=prior, aug=aug, balancer=balancer, steps=steps,
        views=views, seed=seed, n=n, size=size, device=device, dtype=dtype, judge=judge, keep=keep, pick=pick,
        init=init, strength=strength, mask=mask, region=region, negative=negative,
    )  # fmt: skip
    _run(_prompt(prompt, config), settings, registry, out, watch)


@app.command()
def sample(
    prompt: Text = None,
    prior: PriorOption = None,
    zoo: Zoo = None,
    preset: Preset = None,
    config: Config = None,
    set_: Sets = None,
    seed: Seed = None,
    n: Count = None,
    negative: Negative = None,
    out: Out = None,
    device: Device = None,
    dtype: Dtype = None,
    json_: JsonResult = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:
    """The prior alone, by plain sampling: the baseline to hold a run against.

    [dim]referee sample "a red circle" -n 4[/dim]
    """
    watch = Watch(json_, quiet, verbose)
    registry = open_registry(block, no_plugins, plugin)
    settings = _settings(
        registry, config, zoo, preset, set_, prior=prior, seed=seed, n=n, device=device, dtype=dtype, negative=negative
    )
    settings = settings.model_copy(update={"referees": (), "augmentation": None, "judge": None, "init": None})
    _run(_prompt(prompt, config), settings, registry, out, watch, plain=True)


@app.command()
def score(
    image: Annotated[Path, typer.Argument(help="A picture.", show_default=False)],
    prompt: Annotated[str, typer.Argument(help="What it should show.", show_default=False)],
    referee: Referees = None,
    zoo: Zoo = None,
    config: Config = None,
    device: Device = None,
    json_: Json = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:
    """Judge a picture: each referee's loss, without augmentation; lower is better.

    [dim]referee score picture.png "a red circle" -r clip[/dim]
    """
    registry = open_registry(block, no_plugins, plugin)
    settings = _settings(registry, config, zoo, None, None, referee=referee, device=device)
    settings = settings.model_copy(update={"prior": None, "augmentation": None, "judge": None, "init": None})
    if not settings.referees:
        raise OptionError("No referee is named: add --referee NAME or a --zoo that has some.")
    from referee.parts import check, device_name, seats_of
    from referee.prompt import Prompt

    words = Prompt(prompt)
    plan = check(settings, registry, words)
    from referee.play import from_pillow
    from referee.play import score as judge

    x = from_pillow(image)
    losses = judge(x, words, seats_of(plan), device_name(settings.device))
    if json_:
        print(json.dumps(losses))
    else:
        for name, loss in losses.items():
            print(f"{name:20} {loss:.4f}")


@app.command()
def plan(
    prompt: Text = None,
    referee: Referees = None,
    prior: PriorOption = None,
    aug: Augment = None,
    balancer: Balance = None,
    judge: JudgeOption = None,
    keep: Keep = None,
    pick: Pick = False,
    zoo: Zoo = None,
    preset: Preset = None,
    config: Config = None,
    set_: Sets = None,
    steps: Steps = None,
    views: ViewCount = None,
    n: Count = None,
    size: Size = None,
    init: Begin = None,
    strength: Strength = None,
    mask: MaskFile = None,
    region: Regions = None,
    negative: Negative = None,
    device: Device = None,
    dtype: Dtype = None,
    on: Annotated[
        str | None,
        typer.Option("--on", metavar="|".join([*KNOWN, "cpu"]), help="Another device. [dim]default: here[/dim]"),
    ] = None,
    fit: Annotated[
        str | None, typer.Option("--fit", metavar="12GB", help="Say what makes the run fit into so much memory.")
    ] = None,
    json_: Json = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:
    """What a run would cost: FLOPs, time and memory. Needs no weights, and takes what `generate` takes.

    [dim]referee plan --zoo sd15 --dtype bfloat16 --on rtx3060 --fit 12GB[/dim]
    """
    from referee import plan_cli

    registry = open_registry(block, no_plugins, plugin)
    settings = _settings(
        registry, config, zoo, preset, set_, referee=referee, prior=prior, aug=aug, balancer=balancer, steps=steps,
        views=views, n=n, size=size, device=device, dtype=dtype, judge=judge, keep=keep, pick=pick, init=init,
        strength=strength, mask=mask, region=region, negative=negative,
    )  # fmt: skip
    said = prompt or "a red circle and a blue square"
    plan_cli.plan(said, settings, registry, on, fit, json_)


def _settings(
    registry: Registry, config: Path | None, zoo: str | None, preset: str | None, sets: list[str] | None, **flags: Any
) -> Settings:
    """All layers in order: the preset of the zoo, the config file, --set, flags. A run's record needs no preset."""
    from referee.run import read_config
    from referee.settings import NO_ZOO, RECORD, build, flag_layer, merge, parse_set
    from referee.settings import preset as read_preset

    file = read_config(config) if config else {}
    said = reduce(merge, (parse_set(text) for text in sets or ()), file)
    asked = zoo or str(said.get("zoo", ""))
    named = asked or "pocket"
    name = preset or (registry.find("zoo", named).preset if named != NO_ZOO and RECORD not in file else None)
    base = read_preset(name, registry) if name else {}
    layer = merge(merge(base, said), {"zoo": asked or base.get("zoo", named)})
    over = flag_layer(**flags, seeds=layer.get("seeds"), referees=layer.get("referees"))
    if over.get("judge") and not {**(layer.get("judge") or {}), **over["judge"]}.get("name"):
        raise OptionError("--keep and --pick are about what a judge says: add --judge NAME.")
    settings = build([layer, over])
    if flags.get("pick") and len(settings.seeds) == 1:
        raise OptionError("--pick chooses among pictures, and there is one: add -n 4, for example.")
    return settings


def _prompt(said: str | None, config: Path | None) -> str:
    from referee.run import prompt_of, read_config

    found = said if said is not None else prompt_of(read_config(config)) if config else None
    if found is None:
        raise PromptError('Say what to draw, for example: referee generate "a red circle and a blue square".')
    return found


def _run(
    prompt: str, settings: Settings, registry: Registry, out: Path | None, watch: Watch, plain: bool = False
) -> None:
    from referee import record
    from referee.parts import check
    from referee.prompt import Prompt
    from referee.watch import log_plan, log_to_stderr

    # Everything that can be refused for nothing is refused here.
    log_to_stderr(watch.verbose)
    request = Prompt(prompt)
    plan = check(settings, registry, request)
    settings = plan.settings
    folder = record.choose_folder(out, request.text, settings.seeds[0])
    console = watch.console()
    with console.status("loading the models") if console.is_terminal else nullcontext():
        from referee.parts import assemble
        from referee.play import sample_seeds
        from referee.running import Job, begin, write

        parts = assemble(plan)
    command = "sample" if plain else "generate"
    description = record.describe(request.text, settings, registry, command=command, device=parts.device)
    log_plan(description)
    folder = record.choose_folder(out, request.text, settings.seeds[0])  # another run may have taken it meanwhile
    if plain:
        write(folder, sample_seeds(request, parts, settings.seeds), description, None, watch, console)
    else:
        begin(Job(request, settings, parts, registry, folder, description, watch, console))


def main() -> None:
    """Run the command; a RefereeError becomes one sentence and exit code 2."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    # What a plug-in warns of (the end of a prompt that it does not read) is for the person, not for a developer.
    warnings.showwarning = lambda message, *_, **__: print(f"referee: {message}", file=sys.stderr)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        app(prog_name="referee")  # however it was called: Tab asks by this name
    except RefereeError as error:
        print(f"referee: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        if out_of_memory(error):
            print(f"referee: {short_of_memory(error)}", file=sys.stderr)
            sys.exit(2)
        from referee.crash import report

        sys.exit(report(error))
