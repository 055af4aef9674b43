"""CLIP as a referee, by open_clip: the plug-in `clip`. Importing it imports neither torch nor open_clip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import Place, Register, Spec, hookimpl

from .options import Options, check

if TYPE_CHECKING:
    from referee.contract import Referee

__all__ = ["Options"]


def _make(options: Options, place: Place) -> Referee:
    from .load import load, outline  # torch and open_clip: only now
    from .referee import ClipReferee

    model, tokenizer = load(options) if place.weights else outline(options)
    return ClipReferee(model, tokenizer, options.text_template, place, recompute=options.recompute)


@hookimpl
def referee_referees(register: Register) -> None:
    register(Spec("clip", "open_clip: cosine of image and text", _make, Options, check))
