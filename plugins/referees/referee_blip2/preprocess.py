"""What the model wants its images and its text to look like, in torch and without PIL.

Images: mean and standard deviation of ``preprocessor_config.json``, the file of transformers' processors.
Text: BLIP's caption processing as LAVIS does it (``BlipCaptionProcessor``), then WordPiece.
"""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

from referee.errors import PromptError, WeightsError

FILE = "preprocessor_config.json"
Triple = tuple[float, float, float]
CLIP_MEAN: Triple = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD: Triple = (0.26862954, 0.26130258, 0.27577711)
MAX_WORDS = 50
"""Words of a prompt that BLIP's caption processing keeps."""


def load_normalisation(folder: Path) -> tuple[Triple, Triple]:
    """(mean, std) per channel, for images in [0, 1]; CLIP's where the folder does not say.

    Raises:
        WeightsError: the file is there but is not JSON with three numbers each.
    """
    path = folder / FILE
    if not path.is_file():
        return CLIP_MEAN, CLIP_STD
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        return _triple(given.get("image_mean", CLIP_MEAN)), _triple(given.get("image_std", CLIP_STD))
    except (ValueError, TypeError, AttributeError) as error:
        message = f"{path} does not hold three numbers each for image_mean and image_std: {error}."
        raise WeightsError(message) from error


def _triple(values: list[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def save_normalisation(folder: Path, mean: Triple, std: Triple, size: int) -> None:
    """Write the file so that transformers' ``BlipImageProcessor`` reads it too."""
    content = {
        "image_processor_type": "BlipImageProcessor",
        "do_convert_rgb": True, "do_resize": True, "do_rescale": True, "do_normalize": True,
        "size": {"height": size, "width": size},
        "resample": 3, "rescale_factor": 1 / 255,
        "image_mean": list(mean), "image_std": list(std),
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def clean(prompt: str) -> str:
    """A prompt as BLIP-2 was taught to read: lower case, without ``.!"()*#:;~``, at most 50 words.

    Raises:
        PromptError: nothing is left of it.

    >>> clean('A red circle (small); a "blue" square!')
    'a red circle small a blue square'
    """
    words = re.sub(r'[.!"()*#:;~]', " ", prompt.lower()).split()
    if not words:
        raise PromptError(f"BLIP-2 drops punctuation, and nothing else is in the prompt {prompt!r}. Use words.")
    if len(words) > MAX_WORDS:
        warn_cut(" ".join(words[MAX_WORDS:]), f"it keeps {MAX_WORDS} words")
    return " ".join(words[:MAX_WORDS])


def warn_cut(words: str, why: str) -> None:
    """Name the words of a prompt that the referee will not see."""
    warnings.warn(f"BLIP-2 does not read the end of the prompt ({why}): '{words}' is cut.", stacklevel=4)
