"""`python -m referee_pocket.paper`: what of the paper the bench cannot draw, and the page that tells it all."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Annotated

import typer

from referee.bench import records
from referee.bench.about import About, Maker, differences
from referee.bench.contract import Item
from referee.bench.methods import prepare
from referee.bench.task import Shard
from referee.errors import OptionError, RefereeError, RunError
from referee.folder.record import write_whole
from referee.layers import Layer, merge, parse_set
from referee.plugins import Registry, discover
from referee_pocket.paper import film as filming
from referee_pocket.paper import landscape
from referee_pocket.paper.catalogue import TABLES, methods
from referee_pocket.paper.claims import ATTRIBUTES
from referee_pocket.paper.methods import ALONE, METHOD, SDS
from referee_pocket.paper.options import Options
from referee_pocket.paper.page import Found, verdict, write
from referee_pocket.words import prompts

MOST = 3_000_000
"""Bytes of all pictures of a page."""
STRIPS = {"the referee alone": ALONE, "the prior alone": SDS, "both": METHOD}

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Of the bench's records, or another.")]
Part = Annotated[str, typer.Option("--shard", metavar="I/N", help="Every N-th prompt only, from I: one shell each.")]


@app.command()
def film(
    folder: Folder,
    n: Annotated[int, typer.Option("-n", min=1, help="Prompts, from the first.")] = filming.COUNT,
    methods: Annotated[str, typer.Option(help="Comma-separated.")] = ",".join(filming.METHODS),
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="a.b=value", help="Over all methods.")] = None,
    shard: Part = "0/1",
) -> None:
    """Run methods and keep their latents on the way. The same command goes on where it stopped."""
    over: Layer = reduce(merge, (parse_set(one) for one in set_ or ()), {"device": "cpu"})
    names = [name.strip() for name in methods.split(",") if name.strip()]
    for one in filming.take(folder, discover(), count=n, methods=names, over=over, shard=_shard(shard)):
        print(f"{one.method:14} {one.index:4} {one.cpu_seconds:7.1f} s  {one.prompt}", flush=True)


@app.command()
def smooth(
    folder: Folder,
    directions: Annotated[int, typer.Option(min=1, help="Random directions at a point.")] = landscape.DIRECTIONS,
    views: Annotated[int, typer.Option(min=1, help="In an average.")] = landscape.VIEWS,
    shard: Part = "0/1",
) -> None:
    """Measure the loss's local Lipschitz constant and curvature at the films' latents: Propositions 3.1 and 3.2."""
    for one in landscape.survey(folder, count=directions, views=views, shard=_shard(shard)):
        print(f"{one.method:14} {one.index:4} {one.cpu_seconds:7.1f} s", flush=True)


def _shard(text: str) -> tuple[int, int]:
    shard = Shard.parse(text)
    return shard.first, shard.of


@app.command()
def page(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="With records or films; several are joined.")],
    out: Annotated[Path, typer.Option(help="The page; its pictures lie beside it, in images/NAME.")] = Path("paper.md"),
    remarks: Annotated[
        Path | None, typer.Option(metavar="FILE.toml", help="What a person says of a table: its number = a paragraph.")
    ] = None,
) -> None:
    """Write the page: the paper's numbers, ours beside them, and what came of each claim."""
    said = _remarks(remarks)
    found = Found(
        _evidence(folders),
        {name: [one for folder in folders for one in filming.films(folder, name)] for name in filming.METHODS},
        {name: [one for folder in folders for one in landscape.landscapes(folder, name)] for name in landscape.METHODS},
    )
    _check(found)
    found = replace(found, changed=_changed(found, discover()))
    pictures = dict(_pictures(found.evidence, found.films))
    if (size := sum(map(len, pictures.values()))) > MOST:
        raise OptionError(f"The pictures of the page have {size:,} bytes; it should be {MOST:,} at most.")
    home = Path("images") / out.stem
    for name, content in pictures.items():
        write_whole(out.parent / home / f"{name}.webp", content)
    names = {key: (home / f"{key}.webp").as_posix() for key in pictures}
    write_whole(out, write(found, names, said).encode())
    for table in TABLES:
        print(f"{table.title:70} {verdict(table, found.findings(table))}")
    print(f"{out}: {len(pictures)} pictures, {size:,} bytes")
    if found.changed:
        print(f"Not drawn by the settings that the rows tell of, see the page: {', '.join(found.changed)}.")


def _evidence(folders: Sequence[Path]) -> records.Evidence:
    """The bench's records; none where the folders hold films or measurements alone.

    Raises:
        RunError: a folder holds nothing that the page tells of, or records of another bench.
    """
    from referee_pocket.paper.bench import PaperBench

    for folder in folders:
        if not records.is_evidence(folder) and not any((folder / name).is_dir() for name in ("films", "smooth")):
            raise RunError(f"{folder} has neither records of `referee bench paper` nor films.")
    if drawn := [folder for folder in folders if records.is_evidence(folder)]:
        found = records.read(drawn)
        if found.about.bench != "paper":
            raise RunError(f"The page is of `referee bench paper`, and these records are of '{found.about.bench}'.")
        return found
    return records.Evidence(About(bench="paper", columns=PaperBench.columns, suites={}), (), {})


def _check(found: Found) -> None:
    """Refuse what was not drawn by the same methods."""
    makers = found.evidence.about.methods
    digests = {
        "films": {name: {one.header.digest for one in films} for name, films in found.films.items()},
        "measurements": {name: {one.digest for one in ones} for name, ones in found.landscapes.items()},
    }
    for what, by_method in digests.items():
        for name, seen in by_method.items():
            drawn = {makers[name].digest} if name in makers else set()
            if len(seen | drawn) > 1:
                raise RunError(f"The {what} of '{name}' are of other settings than its records, or of several.")


def _changed(found: Found, registry: Registry) -> dict[str, list[str]]:
    """Where methods drew by other settings, by other weights or in another way than the catalogue says, by name; and
    where pictures were scored otherwise."""
    scored = found.evidence.about.options
    usual = {name: value for name, value in Options().model_dump(mode="json").items() if name in scored}
    drawn = {name: maker.decisive for name, maker in found.evidence.about.methods.items()}
    filmed = {name: films[0].header.digest for name, films in found.films.items() if films}
    layers = {name: layer for name, layer in methods(TABLES).items() if name in drawn or name in filmed}
    item = Item(0, prompts("test", 1)[0], ATTRIBUTES)
    changed = {"scores": differ} if (differ := differences(usual, scored)) else {}
    for method in prepare(layers, [item], registry, zoo="pocket", over={"device": "cpu"}):
        maker = Maker.model_validate_json(method.maker.model_dump_json())  # as one that was read
        if method.name in drawn:
            differ = differences(maker.decisive, drawn[method.name])
        else:
            differ = [] if maker.digest == filmed[method.name] else ["films, which do not say where they differ"]
        if differ:
            changed[method.name] = [one.removeprefix("settings.") for one in differ]
    return changed


def _remarks(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    try:
        said = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OptionError(f"--remarks {path}: {error}.") from error
    if unknown := sorted(said.keys() - {table.key for table in TABLES}):
        raise OptionError(f"--remarks {path}: there is no table '{unknown[0]}'.")
    return {key: str(text).strip() for key, text in said.items()}


def _pictures(evidence: records.Evidence, films: Mapping[str, Sequence[filming.Film]]) -> Iterator[tuple[str, bytes]]:
    """Of each table that has some."""
    from referee.play import load
    from referee_pocket.paper import pictures as draw

    for table in TABLES:
        if table.rows and (picture := draw.side_by_side(evidence, table)):
            yield table.key, draw.encode(picture)
    if not films[METHOD]:
        return
    parts = load(device="cpu")
    strips = [(title, mine[i]) for i in range(2) for title, name in STRIPS.items() if len(mine := films[name]) > i]
    yield "f10", draw.encode(draw.evolution(strips, parts))
    yield "f12", draw.encode(draw.pulls(films[METHOD][: draw.ACROSS], parts))
    yield "f7", draw.encode(draw.by_loss(films[METHOD][0], parts))


def main() -> None:
    """A RefereeError becomes one sentence and exit code 2."""
    try:
        app(prog_name="python -m referee_pocket.paper")
    except RefereeError as error:
        print(f"referee: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
