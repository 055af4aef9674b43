"""BLIP-2 as a referee, the paper's choice: the plug-in `blip2`. Importing it imports neither torch nor
transformers.

It reads folders of transformers' ``Blip2ForImageTextRetrieval`` with one small file more, the caption head
that the published conversion leaves out (see `referee_blip2.head`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import ConverterSpec, Place, Register, Spec, hookimpl

from .options import Conversion, Options, check, check_conversion, folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from referee.contract import Referee

__all__ = ["Options"]


def _make(options: Options, place: Place) -> Referee:
    from .model import Blip2  # torch and transformers: only now
    from .referee import Blip2Referee

    read = Blip2.load if place.weights else Blip2.outline
    return Blip2Referee(read(folder(options), attention=options.attention), options, place)


def _convert(options: Conversion, target: Path) -> None:
    from .convert import convert  # torch and transformers: only now

    convert(options, target)


@hookimpl
def referee_referees(register: Register) -> None:
    register(Spec("blip2", "BLIP-2: image-text matching and captioning", _make, Options, check, families=("blip",)))


@hookimpl
def referee_converters(register: Callable[[ConverterSpec], None]) -> None:
    register(ConverterSpec("blip2", "LAVIS' BLIP-2 files to a folder", _convert, Conversion, check_conversion))
