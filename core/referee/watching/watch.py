"""What is shown and kept of a run besides its pictures: how loud it is, previews, a film, an animation, a report."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from referee.errors import OptionError
from referee.watching import board
from referee.watching.absent import sat_out, told

if TYPE_CHECKING:
    from rich.console import Console

    from referee.folder.film import Frames
    from referee.inversion import Step
    from referee.result import Result

LOG = logging.getLogger("referee")
KINDS = ("webp", "gif", "mp4")
"""Of animations."""
MAX_TIMEOUT = 31 * 24 * 3600.0
"""Seconds."""


@dataclass(frozen=True, slots=True)
class Watch:
    """How a run is watched.

    Raises:
        OptionError: a value that makes no sense.
    """

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    preview_every: int | None = None
    animation: str = "none"
    report: bool = False
    checkpoint_every: int | None = None
    timeout: float | None = None
    tensorboard: bool = False

    def __post_init__(self) -> None:
        if self.preview_every is not None and self.preview_every < 1:
            raise OptionError(f"--preview-every {self.preview_every}: say after how many steps, at least 1.")
        if self.checkpoint_every is not None and self.checkpoint_every < 0:
            raise OptionError(f"--checkpoint-every {self.checkpoint_every}: say after how many steps; 0 for none.")
        if self.timeout is not None and not 0 < self.timeout < MAX_TIMEOUT:
            raise OptionError(f"--timeout {self.timeout:g}: say how many seconds, more than 0 and at most a month.")
        if self.animation not in (*KINDS, "none"):
            raise OptionError(f"--animation {self.animation}: write webp, gif, mp4 or none.")
        if self.animation == "mp4" and find_spec("av") is None:
            raise OptionError("--animation mp4: PyAV is not installed. Try: pip install 'vlm-referee[mp4]'")
        if self.tensorboard:
            board.require()
        if self.json and self.quiet:
            raise OptionError("--json and --quiet both say what is printed: choose one.")

    def console(self) -> Console:
        """Where progress is shown: nowhere with --quiet, on stderr with --json, else on stdout."""
        from rich.console import Console

        # Plain: what a person typed (a label, a folder) is shown as it is, whatever brackets and colons it has.
        return Console(stderr=self.json, quiet=self.quiet, markup=False, emoji=False, highlight=False)

    def tell(self, folder: Path, result: Result, report: Path | None, console: Console) -> None:
        """Say where the pictures are."""
        paths = [folder / f"picture-{seed}.png" for seed in result.seeds]
        picked = result.judged.picked if result.judged else None
        if self.json:
            print(json.dumps(summary(folder, paths, result, report)))
        elif self.quiet:
            print(*(paths if picked is None else [paths[picked]]), sep="\n")
        else:
            for line in (*told(_absent(result)), *said(result)):
                console.print(line, soft_wrap=True)
            for path in [*paths, *([report] if report else [])]:
                style = "bold" if path in paths else "dim"
                console.print(str(path), style=style, soft_wrap=True)


def said(result: Result) -> Iterator[str]:
    """What the judge said, for people."""
    judged = result.judged
    if judged is None:
        return
    if judged.ended is not None:
        yield f"The judge saw no picture get better any more: ended after {judged.ended} steps."
    for i, seed in enumerate(result.seeds):
        loss = judged.losses[i]
        told = "no number" if loss is None else f"{loss:.3g}"
        hacked = "" if judged.hacked[i] is None else f"; reward hacking, seen after step {judged.hacked[i]}"
        picked = ", picked" if i == judged.picked else ""
        yield f"{judged.judge} (judge), seed {seed}: {told} after {judged.taken[i]} steps{picked}{hacked}"


def _absent(result: Result) -> dict[str, tuple[int, int]]:
    return sat_out((row["norms"], row["sat_out"]) for row in result.history)


def summary(folder: Path, paths: list[Path], result: Result, report: Path | None) -> dict[str, Any]:
    """What --json prints: paths as they can be opened from here, and each referee's last loss per picture."""
    last: dict[str, list[float | None]] = {}
    for row in result.history:
        last |= row["losses"]
    judged = result.judged
    verdicts = judged and {
        "name": judged.judge, "losses": list(judged.losses), "taken": list(judged.taken), "ended": judged.ended,
        "hacked": list(judged.hacked), "picked": None if judged.picked is None else result.seeds[judged.picked],
    }  # fmt: skip
    return {
        "prompt": result.prompt.text,
        "folder": str(folder),
        "complete": result.complete,
        "steps": result.steps,
        "sat_out": {name: list(counts) for name, counts in _absent(result).items()},
        "pictures": [
            {"seed": seed, "path": str(path), "losses": {name: values[i] for name, values in last.items()}}
            for i, (seed, path) in enumerate(zip(result.seeds, paths, strict=True))
        ],
        "report": str(report) if report else None,
        **({"judge": verdicts} if verdicts else {}),
    }


class Keeper:
    """Keeps what a run shows on its way, and writes it down.

    Args:
        folder: of the run.
        steps: how many there will be.
        pictures: in the batch.
        watch: what is wanted.
        first: step at which the run enters.
    """

    def __init__(self, folder: Path, steps: int, pictures: int, watch: Watch, first: int = 0) -> None:
        from referee.folder.film import moments

        self.folder, self.steps, self.pictures, self.watch, self.first = folder, steps, pictures, watch, first
        self.kept, self.frames = set(moments(steps, first=first)), dict[int, list[Any]]()

    def keep(self, step: Step) -> None:
        """Take in one step. Its image is that of the latent before it: of ``step.k`` steps."""
        from referee.folder.film import shrink, write_grid
        from referee.pixels import to_pillow

        every = self.watch.preview_every
        preview = bool(every and step.k and step.k % every == 0)
        if not preview and step.k not in self.kept:
            return
        pictures = [to_pillow(x) for x in step.image]
        if step.k in self.kept:
            self.frames[step.k] = [shrink(picture, self.pictures) for picture in pictures]
        if preview:
            write_grid(self.folder / f"preview-{step.k:0{len(str(self.steps))}}.png", pictures)

    def finish(self, result: Result) -> None:
        """The last pictures are the last frame."""
        from referee.folder.film import shrink

        self.frames[result.steps] = [shrink(picture, self.pictures) for picture in result.pictures]

    def few(self) -> Frames:
        """Every third frame and the last: for the contact sheet."""
        from referee.folder.film import moments

        chosen = {*moments(self.steps, 9, first=self.first), max(self.frames)}
        return {k: pictures for k, pictures in self.frames.items() if k in chosen}

    def write(self, result: Result) -> None:
        """Write the films, the maps, and the animation if it is wanted."""
        from referee.folder.film import shrink, write_animation, write_film
        from referee.folder.run import MAX_MAPS
        from referee.watching.charts import heat

        ordered = sorted(self.frames)
        for i, seed in enumerate(result.seeds):
            write_film(self.folder / f"frames-{seed}.webp", [self.frames[k][i] for k in ordered])
            if found := list(result.maps.values())[:MAX_MAPS]:
                drawn = [shrink(heat(each[i].numpy()), self.pictures) for each in found]
                write_film(self.folder / f"maps-{seed}.webp", drawn)
        if (kind := self.watch.animation) != "none":
            write_animation(self.folder / f"evolution.{kind}", self.frames, kind)


class _Stderr(logging.Handler):
    """To stderr as it is when something is logged: a live display puts its own there."""

    def emit(self, record: logging.LogRecord) -> None:
        print(f"referee: {self.format(record)}", file=sys.stderr)


def log_to_stderr(verbose: bool) -> None:
    """With -v, what is done is told on stderr; without it only what a library's user set up."""
    for handler in [h for h in LOG.handlers if isinstance(h, _Stderr)]:
        LOG.removeHandler(handler)
    if verbose:
        LOG.addHandler(_Stderr())
    LOG.setLevel(logging.DEBUG if verbose else logging.NOTSET)
    LOG.propagate = not verbose  # a library that sets up the root logger would say all twice


def log_plan(description: Mapping[str, Any]) -> None:
    """What plays, and where from."""
    for part in description["run"].get("parts", ()):
        LOG.info("%s %s: %s %s", part["kind"], part["name"], part["distribution"], part["version"])
    LOG.info("device: %s", description["run"].get("device", "unknown"))
