"""``python -m referee_pocket.train all|vae|clip|prior|blip2|judge|vqa|detector``: rebuild the weights from seeds.

Each part is one process's work; ``all`` runs two side by side where they do not wait for each other, one thread each,
which two cores like better than one process with two threads. Stop it when you like: it goes on from its last minute.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from referee_pocket import MANIFEST, WEIGHTS

PARTS = ("vae", "clip", "prior", "blip2", "judge", "vqa", "detector")

app = typer.Typer(pretty_exceptions_enable=False)


@app.command(help=__doc__)
def main(
    part: Annotated[str, typer.Argument(help="all, pack, see (BLIP-2's first stage), or one of " + ", ".join(PARTS))],
    out: Annotated[Path, typer.Option(help="Where the weights go.")] = WEIGHTS,
    work: Annotated[Path, typer.Option(help="Where checkpoints of the trainings are kept.")] = Path("training"),
    threads: Annotated[int, typer.Option(help="Of a CPU training.")] = 1,
) -> None:
    """Train one part, or all."""
    if part == "all":
        everything(out, work, threads)
    elif part == "pack":
        pack(out)
    elif part in (*PARTS, "see"):
        one(part, out, work, threads)
    else:
        raise typer.BadParameter(f"'{part}' is none of all, pack, {', '.join(PARTS)}")


def one(part: str, out: Path, work: Path, threads: int) -> None:
    """Train a part, and write what it measured to ``metrics-PART.json`` in the work folder."""
    import importlib

    import torch

    torch.set_num_threads(threads)
    if part == "see":
        from referee_pocket.train import blip2

        blip2.see(work)
        return
    measured = importlib.import_module(f"referee_pocket.train.{part}").train(work, out)
    (work / f"metrics-{part}.json").write_text(json.dumps(measured, indent=2) + "\n")
    print(json.dumps(measured, indent=2))


def everything(out: Path, work: Path, threads: int) -> None:
    """The trainings in two lanes: the prior needs VAE and CLIP, BLIP-2 from its second stage on the VAE, BLIP-VQA
    BLIP-2's eyes."""
    work.mkdir(parents=True, exist_ok=True)

    def start(part: str) -> subprocess.Popen[bytes]:
        arguments = [part, "--out", str(out), "--work", str(work), "--threads", str(threads)]
        return subprocess.Popen([sys.executable, "-m", "referee_pocket.train", *arguments])

    def wait(*running: subprocess.Popen[bytes]) -> None:
        codes = [process.wait() for process in running]  # wait for all, whatever the first says
        if any(codes):
            raise SystemExit("A training failed; its output is above. Run the same command to go on.")

    vae = start("vae")
    wait(start("clip"))
    wait(start("see"), vae)
    blip2 = start("blip2")
    wait(start("prior"))
    wait(start("judge"), blip2)
    wait(start("vqa"), start("detector"))
    collect(out, work)
    pack(out)


def collect(out: Path, work: Path) -> None:
    """Join what was measured into ``metrics.json`` and write a card for each model."""
    from referee_pocket.train.cards import write_cards

    metrics = {part: json.loads((work / f"metrics-{part}.json").read_text()) for part in PARTS}
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    write_cards(out, metrics)


def pack(out: Path) -> None:
    """Write the manifest: every file with its size and sha256."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != MANIFEST)
    entries: dict[str, dict[str, int | str]] = {
        str(path.relative_to(out)): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    (out / MANIFEST).write_text(json.dumps(entries, indent=1) + "\n")
    print(f"{len(entries)} files, {sum(path.stat().st_size for path in files) / 1e6:.1f} MB")


if __name__ == "__main__":
    app()
