"""TensorBoard: each picture of a run as a run of its own there, ``OUT/tensorboard/seed-SEED``.

    tensorboard --logdir runs

The extra brings it: pip install 'vlm-referee[tensorboard]'. Written through torch's own writer, step by step; a run
that goes on takes back what was written after the step that it goes on from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from referee.errors import OptionError, OutputError

if TYPE_CHECKING:
    from referee.inversion import Step

NAME = "tensorboard"


def require() -> None:
    """Refuse what cannot be done here.

    Raises:
        OptionError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise OptionError("--tensorboard: TensorBoard is not installed. Try: pip install 'vlm-referee[tensorboard]'")


class Board:
    """Writes a run's numbers as they come, and its pictures now and then.

    Args:
        folder: of the run.
        seeds: one per picture.
        pictures: the steps at which the picture is written, too.
    """

    def __init__(self, folder: Path, seeds: Sequence[int], pictures: frozenset[int]) -> None:
        self.places = [folder / NAME / f"seed-{seed}" for seed in seeds]
        self.pictures = pictures
        self.writers: list[Any] = []

    def show(self, step: Step) -> None:
        """Take in one step; its picture is that of the latent before it.

        Raises:
            OutputError: the disk is full, or a link to elsewhere lies where it would be written.
        """
        from referee.result import numbers

        with _said(self.places[0].parent):
            self._open(step.k)
            row = numbers(step)
            for i, writer in enumerate(self.writers):
                for tag, value in _scalars(row, i):
                    writer.add_scalar(tag, value, step.k)
                if step.k in self.pictures:
                    writer.add_image("picture", step.image[i].float().clamp(0, 1).cpu(), step.k)

    def close(self) -> None:
        """Write what is not yet written."""
        with _said(self.places[0].parent):
            for writer in self.writers:
                writer.close()

    def _open(self, k: int) -> None:
        """At the first step: a run that is refused before it leaves nothing."""
        if self.writers:
            return
        from torch.utils.tensorboard import SummaryWriter

        for place in self.places:
            for path in (place.parent, place):
                if path.is_symlink():
                    raise OutputError(f"{path} is a link: nothing is written through it. Remove it.")
            self.writers.append(SummaryWriter(str(place), purge_step=k))


def _scalars(row: dict[str, Any], i: int) -> Iterator[tuple[str, float]]:
    """One picture's numbers of a step, by tag; what is not finite is left out."""
    tables = {"loss": row["losses"], "gradient": row["norms"], "cosine": row["cosines"] or {}}
    found = [(f"{kind}/{name}", values[i]) for kind, table in tables.items() for name, values in table.items()]
    found += [("agreement", row["agreement"][i])] if row["agreement"] else []
    yield from ((tag, value) for tag, value in found if value is not None)


@contextmanager
def _said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
