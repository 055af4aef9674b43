"""Does it work? Each method draws held-out prompts, and the independent judge says what it sees.

    python -m referee_pocket.evidence run --out evidence     # all methods, 60 prompts; goes on where it stopped
    python -m referee_pocket.evidence table evidence         # the table, and a contact sheet per method

Two shells with ``--shard 0/2`` and ``--shard 1/2`` share the work. A record is a line of JSON per picture.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import fmean, stdev
from typing import Annotated, Any

import torch
import typer
from PIL import Image, ImageDraw

from referee.contract import Prompt
from referee.gradients import ViewPlan
from referee.layers import merge
from referee.parts import Parts
from referee.pixels import from_pillow, to_pillow
from referee.play import drain, load, sample_seeds
from referee_pocket.judge import Judge
from referee_pocket.words import Split, Suite, prompts

Layer = Mapping[str, Any]

ALONE: Layer = {"rules": {"prior_weight": 0, "tail": 0}}
METHODS: dict[str, Layer] = {
    "plain-2": {"prior": {"options": {"sample_cfg": 2.0}}},
    "plain-4": {"prior": {"options": {"sample_cfg": 4.0}}},
    "plain-8": {"prior": {"options": {"sample_cfg": 8.0}}},
    "sds": {"referees": []},
    "blip2-noaug": merge(ALONE, {"augmentation": None}),
    "blip2": ALONE,
    "blip2-sds": {},
    "blip2-clip-sds": {"referees": [{"name": "blip2"}, {"name": "clip"}]},
    "blip2-sds-sgd": {"rules": {"update": "sgd"}},
}
"""Layers over the pocket preset."""

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)


class Scorer:
    """The judge's verdict and the referee's own losses on plain and on augmented views."""

    def __init__(self, views: int = 16) -> None:
        self.judge = Judge()
        two = [
            {"name": "blip2", "label": "itm", "options": {"cg": 0}},
            {"name": "blip2", "label": "cg", "options": {"itm": 0}},
        ]
        self.parts = load(settings={"referees": two}, device="cpu")
        self.views = views

    def score(self, image: torch.Tensor, prompt: str, seed: int) -> dict[str, Any]:
        """One record of one picture (1, 3, 64, 64)."""
        verdict = self.judge.score(image, prompt)[0]
        record: dict[str, Any] = {
            "binding": verdict.binding, "attributes": verdict.attributes, "exact": verdict.exact,
            "swapped": verdict.swapped,
            "relation": verdict.relation, "seen": [str(found) for found in verdict.found],
        }  # fmt: skip
        plan = ViewPlan([seed], 10**6, self.views, self.views, self.parts.augmentation)
        augmented = plan.views(image, plan.portions()[0])
        with torch.no_grad():
            for seat in self.parts.seats:
                loss = seat.referee.read(Prompt(prompt))
                record[f"{seat.name}_plain"] = loss(image).item()
                record[f"{seat.name}_augmented"] = loss(augmented).mean().item()
        return record


def draw(method: str, parts: Parts, prompt: str, seed: int) -> torch.Tensor:
    """One picture by one method."""
    if method.startswith("plain"):
        return sample_seeds(Prompt(prompt), parts, (seed,)).images
    return drain(Prompt(prompt), parts, (seed,)).images


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="Folder of records and pictures.")] = Path("evidence"),
    methods: Annotated[str, typer.Option(help="Comma-separated names, or 'all'.")] = "all",
    count: Annotated[int, typer.Option("-n", help="Prompts.")] = 60,
    split: Annotated[str, typer.Option(help="test, or tune: prompts that settings may be chosen by.")] = "test",
    suite: Annotated[str, typer.Option(help="attributes or relations.")] = "attributes",
    seed: Annotated[int, typer.Option(help="Of the first prompt; others count on.")] = 1000,
    shard: Annotated[str, typer.Option(metavar="I/N", help="Do only every N-th picture, from I.")] = "0/1",
    extra: Annotated[list[str] | None, typer.Option("--method", help="NAME={json layer}: one of your own.")] = None,
) -> None:
    """Draw and score what is not yet recorded."""
    chosen = dict(METHODS) if methods == "all" else {name: METHODS[name] for name in methods.split(",") if name}
    for text in extra or ():
        name, _, given = text.partition("=")
        chosen[name] = json.loads(given)
    texts = prompts(_split(split), count, _suite(suite))
    (out / "pictures").mkdir(parents=True, exist_ok=True)
    done = {(r["method"], r["prompt"]) for r in records(out)}
    index, shards = (int(part) for part in shard.split("/"))
    scorer = Scorer()
    with (out / f"records-{index}-of-{shards}.jsonl").open("a", encoding="utf-8") as file:
        for method, layer in chosen.items():
            parts = None
            for i, text in enumerate(texts):
                if i % shards != index or (method, text) in done:
                    continue
                parts = parts or load(settings=layer, device="cpu")
                began = time.process_time()
                image = draw(method, parts, text, seed + i)
                seconds = time.process_time() - began
                to_pillow(image[0]).save(out / "pictures" / f"{method}-{i:03}.png")
                image = from_pillow(to_pillow(image[0]))  # score what is on the disk
                record = {
                    "method": method,
                    "prompt": text,
                    "index": i,
                    "seed": seed + i,
                    "cpu_seconds": round(seconds, 2),
                }
                file.write(json.dumps(record | scorer.score(image, text, seed + i)) + "\n")
                file.flush()
                print(f"{method:18} {i:3}  {seconds:6.1f} s  {text}", flush=True)


@app.command()
def table(out: Path) -> None:
    """Print the table in Markdown, and write contact sheets."""
    by_method: dict[str, list[dict[str, Any]]] = {}
    for record in records(out):
        by_method.setdefault(record["method"], []).append(record)
    relations = any(r["relation"] is not None for rows in by_method.values() for r in rows)
    columns = {
        "binding": "all attributes right", "attributes": "share of attributes", "exact": "exact count",
        "swapped": "mis-bound",
        **({"relation": "relation right"} if relations else {}),
        "itm_plain": "ITM plain", "itm_augmented": "ITM augmented", "cg_plain": "caption plain",
        "cg_augmented": "caption augmented", "cpu_seconds": "CPU s / picture",
    }  # fmt: skip
    print(f"| method | n | {' | '.join(columns.values())} |\n|---|---|{'---|' * len(columns)}")
    for method, rows in by_method.items():
        cells = [_cell([float(r[column]) for r in rows], column) for column in columns]
        print(f"| {method} | {len(rows)} | {' | '.join(cells)} |")
        sheet(out, method, rows).save(out / f"{method}.png", optimize=True)


def _cell(values: list[float], column: str) -> str:
    if column in ("binding", "exact", "swapped", "relation", "attributes"):
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
        return f"{fmean(values):.2f} ± {error:.2f}"
    return f"{fmean(values):.1f}" if column == "cpu_seconds" else f"{fmean(values):.2f}"


def sheet(out: Path, method: str, rows: list[dict[str, Any]], columns: int = 10, cell: int = 96) -> Image.Image:
    """A contact sheet: each picture under its prompt, framed green where the judge agrees."""
    rows = sorted(rows, key=lambda r: r["index"])
    height = cell + 34
    page = Image.new("RGB", (columns * (cell + 6), -(-len(rows) // columns) * height), "white")
    pen = ImageDraw.Draw(page)
    for i, row in enumerate(rows):
        x, y = i % columns * (cell + 6), i // columns * height
        first, _, second = row["prompt"].partition(" and ")
        pen.text((x + 2, y), first, "black", font_size=9)
        pen.text((x + 2, y + 11), f"and {second}" if second else "", "black", font_size=9)
        right = row["binding"] and row["relation"] is not False
        pen.rectangle((x, y + 24, x + cell + 3, y + 27 + cell), fill="#2a9d4b" if right else "#d7d7d7")
        picture = Image.open(out / "pictures" / f"{method}-{row['index']:03}.png").resize(
            (cell, cell), Image.Resampling.BICUBIC
        )
        page.paste(picture, (x + 2, y + 26))
    return page


def records(out: Path) -> Iterator[dict[str, Any]]:
    """All records of a folder."""
    for path in sorted(out.glob("records-*.jsonl")):
        yield from (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())


def _split(text: str) -> Split:
    return "tune" if text == "tune" else "test"


def _suite(text: str) -> Suite:
    return "relations" if text == "relations" else "attributes"


if __name__ == "__main__":
    app()
