"""What a person sees while a run goes on: the step, each referee's loss, who pulls how hard, and how long it takes."""

from __future__ import annotations

import time
from math import isfinite
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from referee.inversion import Step
from referee.watching.preview import Preview

BARS = " ▁▂▃▄▅▆▇█"


def sparkline(values: list[float], width: int = 32) -> str:
    """A curve in block characters, lowest to highest; blank where a value is not finite.

    >>> sparkline([0.0, 0.5, 1.0], width=3)
    '▁▅█'
    """
    picked = [values[i * len(values) // width] for i in range(width)] if len(values) > width else values
    finite = [v for v in picked if isfinite(v)] or [0.0]
    low, span = min(finite), (max(finite) - min(finite)) or 1.0
    return "".join(BARS[1 + round(7 * (v - low) / span)] if isfinite(v) else BARS[0] for v in picked)


def opposed(step: Step) -> str:
    """The two that pull hardest against each other, by the mean over pictures; empty if none do."""
    if step.cosines is None:
        return ""
    names, mean = step.cosines.names, step.cosines.matrix.nanmean(0)
    found = [
        (value, f"{names[j]} against {names[i]} {value:.2f}")
        for i in range(len(names))
        for j in range(i)
        if (value := mean[i, j].item()) < 0
    ]
    return min(found)[1] if found else ""


def _players(step: Step) -> list[str]:
    """Referees that have a say, asked or by their last gradient."""
    return [name for name in step.norms if name != "prior"]


class Display:
    """Shows steps as they come: a live table and the first picture on a terminal, a line now and then elsewhere."""

    def __init__(self, steps: int, console: Console) -> None:
        self.steps, self.console = steps, console
        self.curves: dict[str, list[float]] = {}
        self.verdicts: list[float] = []
        self.started = time.monotonic()
        self.first: int | None = None
        self.bar = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
        )
        self.task = self.bar.add_task("steps", total=steps)
        alive = console.is_terminal and not console.is_dumb_terminal and not console.quiet
        self.live = Live(console=console, refresh_per_second=8, transient=True) if alive else None
        self.preview = Preview(console) if alive and self._has_colours() else None
        self.picture: RenderableType = ""
        self.drawn = 0.0

    def __enter__(self) -> Display:
        if self.live:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.live:
            self.live.stop()
        if self.preview:
            self.preview.close()

    def show(self, step: Step) -> None:
        """Take in one step."""
        self.first = step.k if self.first is None else self.first
        for name, losses in step.losses.items():
            self.curves.setdefault(name, []).append(losses.mean().item())
        if step.judge is not None:
            self.verdicts.append(step.judge.mean().item())
        self.bar.update(self.task, completed=step.k + 1)
        if self.live:
            self.live.update(Group(self.bar, self._beside(self._table(step), step)))
        elif step.k == 0 or 10 * (step.k + 1) // self.steps > 10 * step.k // self.steps:  # at each tenth
            self.console.print(self._line(step), highlight=False, soft_wrap=True)

    def _has_colours(self) -> bool:
        return not self.console.no_color and self.console.color_system is not None and self.console.width >= 80

    def _beside(self, table: RenderableType, step: Step) -> RenderableType:
        """The table with the first picture on its left, redrawn a few times a second; without colours it is none."""
        if self.preview is None:
            return table
        if (now := time.monotonic()) - self.drawn > 0.25:
            self.picture, self.drawn = self.preview.show(step.image[0]), now
        both = Table.grid(padding=(0, 3))
        both.add_row(self.picture, table)
        return both

    def _table(self, step: Step) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for column in ("who", "loss", "|gradient|", "", "sat out"):
            table.add_column(column, justify="right" if column in ("loss", "|gradient|") else "left")
        for name in [*self.curves, "prior"]:
            loss = f"{self.curves[name][-1]:.3f}" if name in self.curves else ""
            norm = f"{step.norms[name].mean().item():.3g}" if name in step.norms else "resting"
            out = int(step.sat_out[name].sum()) if name in step.sat_out else 0
            table.add_row(
                name, loss, norm, sparkline(self.curves[name]) if name in self.curves else "", str(out) if out else ""
            )
        if self.verdicts:
            table.add_row("judge", f"{self.verdicts[-1]:.3f}", "", sparkline(self.verdicts), "")
        if step.agreement is not None and len(_players(step)) > 1:
            table.add_row("agreement", f"{step.agreement.mean().item():.2f}", "", "", "")
        if against := opposed(step):
            table.add_row(against, "", "", "", "")
        return table

    def _line(self, step: Step) -> str:
        seconds = time.monotonic() - self.started
        left = seconds / (step.k + 1 - (self.first or 0)) * (self.steps - step.k - 1)
        pull = f"  |prior| {step.norms['prior'].mean().item():.3g}" if "prior" in step.norms else ""
        losses = "  ".join(
            f"{name} {value.mean().item():.3f} (|g| {step.norms[name].mean().item():.2g})"
            for name, value in step.losses.items()
        )
        resting = f"{', '.join(players)} by the last gradient" if (players := _players(step)) else ""
        agreed = (
            f"  agreement {step.agreement.mean().item():.2f}"
            if step.agreement is not None and len(_players(step)) > 1
            else ""
        )
        notes = f"  {found}" if (found := opposed(step)) else ""
        notes += f"  judge {self.verdicts[-1]:.3f}" if self.verdicts else ""
        who = losses or resting or "prior alone"
        return f"step {step.k + 1:4}/{self.steps}  {who}{pull}{agreed}{notes}  {left:.0f} s left"
