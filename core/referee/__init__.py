"""referee: pictures by model inversion, steered by frozen vision-language referees.

    import referee

    result = referee.generate("a red circle and a blue striped square")     # the pocket zoo, in a laptop's minute
    result.pictures[0].save("picture.png")

`generate` draws, `score` judges, `sample` shows the prior alone, `load` loads a zoo's parts once, `invert` yields every
step, `open_run` reads a run's folder back. To write a referee of your own see `referee.contract`, to offer it to
everybody see `referee.hooks`.
Names below are imported when first used, so that looking at plug-ins never waits for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from referee.errors import RefereeError
    from referee.folder.run import Run, open_run
    from referee.hooks import Spec, ZooSpec, hookimpl
    from referee.inversion import Step, invert
    from referee.judging import Judge
    from referee.parts import Parts
    from referee.play import generate, load, parts_of, sample, score
    from referee.prompt import Prompt
    from referee.result import Result
    from referee.rules import Rules
    from referee.schedules import Schedule, constant, cosine, linear
    from referee.seat import Seat

_HOMES = {
    "Judge": "judging", "Parts": "parts", "Prompt": "prompt", "RefereeError": "errors", "Result": "result",
    "Rules": "rules",
    "Schedule": "schedules", "Seat": "seat", "Spec": "hooks", "Step": "inversion", "ZooSpec": "hooks",
    "constant": "schedules", "cosine": "schedules", "generate": "play", "hookimpl": "hooks", "invert": "inversion",
    "linear": "schedules", "load": "play", "open_run": "folder.run", "parts_of": "play", "Run": "folder.run",
    "sample": "play", "score": "play",
}  # fmt: skip

__all__ = [
    "Judge", "Parts", "Prompt", "RefereeError", "Result", "Rules", "Run", "Schedule", "Seat", "Spec", "Step", "ZooSpec",
    "constant", "cosine", "generate", "hookimpl", "invert", "linear", "load", "open_run", "parts_of", "sample", "score",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"referee.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'referee' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
