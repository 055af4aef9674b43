"""`referee bench NAME`: draw and score a bench's prompts; `bench table` and `bench compare` read what it left."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from referee.command.bench_show import compare, console_of, show, table
from referee.command.flags import Block, Files, Json, NoPlugins, open_registry
from referee.errors import OptionError, RefereeError, out_of_memory, short_of_memory

if TYPE_CHECKING:
    from rich.console import Console

    from referee.bench.about import Record
    from referee.bench.task import Task
    from referee.plugins import Registry

FIRST_SEED = 1000
"""By default: apart from the small seeds by which a person tries things out."""


class Benches(TyperGroup):
    """`table` and `compare`; every other word is a bench, looked up when it runs."""

    def list_commands(self, ctx: Any) -> list[str]:
        """For the help: any bench stands under NAME."""
        return ["NAME", *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A bench is called by its name and its options, so it cannot be listed in advance."""
        return super().get_command(ctx, cmd_name) or _as_command(cmd_name)


app = typer.Typer(
    cls=Benches,
    help="Draw the prompts of a bench by several methods, score them, and make a table that can be checked, gone on "
    "with and compared. `referee plugins` lists the benches.",
    epilog="Example: referee bench pocket:n=20,suites=attributes --methods plain-4,blip2-sds --out runs/bench",
    no_args_is_help=True,
    rich_markup_mode="rich",
    subcommand_metavar="NAME[:key=value,...] | table | compare",
)


app.command()(table)
app.command()(compare)


def _as_command(name: str) -> Any:
    leaf = typer.Typer(add_completion=False, rich_markup_mode="rich")
    leaf.command(name)(run)
    return typer.main.get_command(leaf)


Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="The folder of records and pictures.")]


def run(
    context: typer.Context,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="FILE.toml|NAME={json}", help="A method of your own: settings over the "
                     "preset, and `draw`, how it is drawn; repeat for more."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="a,b|all", help="Which of the bench's own. [dim]default: all; with --method "
                     "or --images those alone[/dim]"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option("--seeds", metavar="K", help="Pictures of a prompt. [dim]default: the bench's, or 1; of --images "
                     "all[/dim]"),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="S", help="Of the first prompt's first picture; the others count on. "
                     f"[dim]default: the bench's, or {FIRST_SEED}[/dim]"),
    ] = None,
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Do every N-th prompt only, from I: one shell each.")
    ] = "0/1",
    out: Out = None,
    images: Annotated[
        list[str] | None,
        typer.Option("--images", metavar="[NAME=]DIR", help="Score pictures that are there already; repeat for more."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Of --images, some may be missing or broken: score the rest.")
    ] = False,
    zoo: Annotated[
        str | None,
        typer.Option("--zoo", metavar="NAME|none", help="For methods that name none. [dim]default: pocket[/dim]"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="a.b=value", help="One setting, over all methods; repeat for more."),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", help="A torch device. [dim]default: cuda if there is one, else cpu[/dim]")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="float32, bfloat16, float16: of the models.")] = None,
    json_: Json = False,
    block: Block = None,
    no_plugins: NoPlugins = False,
    plugin: Files = None,
) -> None:  # fmt: skip
    """Draw and score what is not yet recorded, and write the table. The same command goes on where it stopped."""
    registry = open_registry(block, no_plugins, plugin)
    task = _task(
        str(context.info_name), registry, method, methods, seeds, seed, shard, out, images, partial, zoo, set_, device,
        dtype,
    )  # fmt: skip
    console = console_of(json_)
    _play(task, console)
    from referee.bench.records import read

    show(read([task.out]), task.out, None, console, json_=json_)


def _task(
    text: str, registry: Registry, method: list[str] | None, methods: str | None, seeds: int | None, seed: int | None,
    shard: str, out: Path | None, images: list[str] | None, partial: bool, zoo: str | None, sets: list[str] | None,
    device: str | None, dtype: str | None,
) -> Task:  # fmt: skip
    """All that can be refused for nothing is refused here.

    Raises:
        RefereeError: see `referee.bench.methods.prepare`, `referee.bench.images.open_gallery`.
    """
    from functools import reduce

    from referee.command.layer import flag_layer
    from referee.layers import merge, parse_set

    if seeds is not None and seeds < 1:
        raise OptionError(f"--seeds {seeds}: each prompt has at least one picture.")
    if partial and not images:
        raise OptionError("--partial is about pictures that are there already: add --images DIR.")
    from referee.bench.methods import choose, given, open_bench, prepare

    added = given(method or ())
    order, bench, place = open_bench(text, registry, zoo, device, dtype)
    from referee.bench import runner
    from referee.bench.about import IMAGES, Maker
    from referee.bench.contract import Seeded
    from referee.bench.images import open_gallery, told
    from referee.bench.task import Shard, Task, describe, row_of

    part = Shard.parse(shard)
    name = order.spec.name
    folder = out or Path("runs") / f"bench-{name}"
    layers = choose(bench.methods(), added, methods) if methods or added or not images else {}
    items = bench.items()
    over = reduce(merge, (parse_set(one) for one in sets or ()), flag_layer(device=device, dtype=dtype))
    prepared = prepare(layers, items, registry, zoo=zoo, over=over) if items else []
    galleries = [open_gallery(one, bench, items, seeds, partial=partial) for one in images or ()]
    makers = {one.name: one.maker for one in prepared} | {one.name: Maker(draw={"name": IMAGES}) for one in galleries}
    if len(makers) < len(prepared) + len(galleries):
        raise OptionError("Two methods have one name: call pictures otherwise by --images NAME=DIR.")
    for gallery in galleries:
        if not gallery.whole:
            print(f"referee: {told(gallery, len(items), partial)}", file=sys.stderr)
    own = bench.seeds if isinstance(bench, Seeded) else ()
    count = max([seeds or (len(own) if prepared and own else 1), *(gallery.most for gallery in galleries)])
    about = describe(name, bench, order.options, items, makers, seeds=count, device=place.device)
    row = row_of(own, seed, count) if own else ()
    first = FIRST_SEED if seed is None else seed
    task = Task(about, bench, items, prepared, folder, registry, galleries, first, row, part)
    runner.check_out(task)
    return task


def _play(task: Task, console: Console) -> None:
    """Draw, with a line per picture.

    Raises:
        RefereeError: it was refused, and nothing is written.
        typer.Exit: it was stopped, or failed on the way.
    """
    from referee.bench import runner
    from referee.command.stops import stoppable

    main, count, begun = next(iter(task.about.columns)), 0, False

    def begin() -> None:
        nonlocal begun
        begun = True

    def tell(record: Record) -> None:
        nonlocal count
        count += 1
        score = record.scores.get(main)
        seconds = "" if record.cpu_seconds is None else f"{record.cpu_seconds:7.1f} s"
        said = f"{record.method:18} {record.suite:12} {record.index:4} {record.seed:6} {seconds}"
        console.print(f"{said}  {main} {'–' if score is None else f'{score:.2f}'}  {record.prompt}", soft_wrap=True)

    with stoppable() as stop:
        try:
            runner.run(task, tell, begin)
        except KeyboardInterrupt:
            print(f"referee: stopped; {_kept(count, task)}", file=sys.stderr)
            raise typer.Exit(stop.code) from None
        except Exception as error:
            if not begun:  # then nothing is written either
                raise
            _say(error)
            print(f"referee: {_kept(count, task)}", file=sys.stderr)
            raise typer.Exit(1) from error


def _say(error: Exception) -> None:
    """What happened, and in whose plug-in; a traceback if nobody expected it."""
    from referee.command.crash import blame, report

    if not isinstance(error, RefereeError) and not out_of_memory(error):
        report(error)
        return
    print(f"referee: {error if isinstance(error, RefereeError) else short_of_memory(error)}", file=sys.stderr)
    if error.__cause__ is not None and (said := blame(error)):
        print(f"referee: {said}", file=sys.stderr)


def _kept(count: int, task: Task) -> str:
    pictures = "1 picture is" if count == 1 else f"{count} pictures are"
    return f"{pictures} recorded in {task.out}. The same command goes on."
