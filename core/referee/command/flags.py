"""The flags that commands share: what is drawn and who plays, how a run is watched, which plug-ins are there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from referee.errors import OptionError, nearest

if TYPE_CHECKING:
    from referee.plugins import Kind, Registry


def names(kind: Kind) -> Callable[[str], list[tuple[str, str]]]:
    """For the shell's Tab: the parts of a kind, or the zoos, that begin as typed, each with its summary."""

    def found(incomplete: str) -> list[tuple[str, str]]:
        from referee.plugins import discover

        registry = discover()
        known = [name for name in registry.names(kind) if name.startswith(incomplete)]
        return [(name, registry.summary(kind, name)) for name in known]

    return found


# What is drawn, and who plays.
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

# The judge.
JudgeOption = Annotated[
    str | None,
    typer.Option(
        "--judge",
        metavar="NAME[:key=value,...]|none",
        help="A referee that does not play, but says which step was best, and warns where the others are fooled. "
        "every=, patience= (ends a picture that gets no better), prompt= and label= fit all. "
        "[dim]default: the preset's[/dim]",
    ),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep", metavar="best|last", help="Which picture: the judge's best, or the last. [dim]default: best[/dim]"
    ),
]
Pick = Annotated[bool, typer.Option("--pick", help="With -n: the judge says which picture is best.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]

# How a run is watched.
JsonResult = Annotated[bool, typer.Option("--json", help="The result as one line of JSON; progress goes to stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the pictures' paths alone.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log to stderr what is done.")]
PreviewEvery = Annotated[
    int | None, typer.Option("--preview-every", metavar="K", help="Write preview-STEP.png every K steps.")
]
CheckpointEvery = Annotated[
    int | None,
    typer.Option(
        "--checkpoint-every",
        metavar="K",
        help="Write a checkpoint every K steps; 0 for none but when the run is stopped. "
        "[dim]default: every 30 seconds[/dim]",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        "--timeout",
        metavar="SECONDS",
        help="A step may take so long, whoever hangs; then the run ends, and can be gone on with. "
        "[dim]default: no end[/dim]",
    ),
]
AnimationOption = Annotated[
    str, typer.Option("--animation", metavar="webp|gif|mp4|none", help="Write the pictures' way as an animation.")
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write losses, gradients and pictures for TensorBoard, too.")
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Write report.html, the run on one page.")]

# Which plug-ins are there.
Block = Annotated[
    list[str] | None, typer.Option("-p", metavar="no:NAME", help="Leave a plug-in unloaded; repeat for more.")
]
NoPlugins = Annotated[bool, typer.Option("--no-plugins", help="Load no installed plug-in.")]
Files = Annotated[
    list[Path] | None, typer.Option("--plugin", metavar="FILE.py", help="A single file as a plug-in; its code runs.")
]


def open_registry(block: list[str] | None, no_plugins: bool, files: list[Path] | None) -> Registry:
    """The plug-ins that the flags leave.

    Raises:
        OptionError: a ``-p`` is not of the form no:NAME.
        PluginError: a ``--plugin`` file is not there or failed.
    """
    from referee.plugins import discover

    for text in block or ():
        if not text.startswith("no:") or len(text) == 3:
            raise OptionError(f"-p {text}: write -p no:NAME to leave a plug-in unloaded.")
    names = [text[3:] for text in block or ()]
    registry = discover(enabled=not no_plugins, block=names, files=files or ())
    known = [plugin.name for plugin in registry.plugins]
    for name in names:
        if name not in known:
            print(f"referee: -p no:{name}: there is no plug-in of that name. {nearest(name, known)}", file=sys.stderr)
    return registry
