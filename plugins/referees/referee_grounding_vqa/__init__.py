"""Looking thing by thing: the plug-in `grounding-vqa`. Importing it imports neither torch nor transformers.

Attributes: BLIP's visual question answering is asked whether each phrase of the prompt is there. Relations: OWL's
detector says where each phrase is, and how the two lie to each other. Either half may be left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from referee.hooks import Place, Register, Spec, hookimpl

from .options import Options, check

if TYPE_CHECKING:
    from referee.contract import Referee

__all__ = ["Options"]


def _make(options: Options, place: Place) -> Referee:
    from .detector import Detector  # torch and transformers: only now
    from .referee import GroundingVqaReferee
    from .vqa import Vqa

    vqa = Vqa.load(options.vqa.expanduser(), weights=place.weights) if options.vqa else None
    owl = options.detector
    detector = Detector.load(owl.expanduser(), weights=place.weights) if owl else None
    return GroundingVqaReferee(vqa, detector, options, place)


@hookimpl
def referee_referees(register: Register) -> None:
    summary = "BLIP-VQA per phrase, and OWLv2 for where things lie"
    register(Spec("grounding-vqa", summary, _make, Options, check, families=("blip", "owl")))
