"""What both networks want: images normalised in torch, and checkpoint folders read whole or not at all.

The processors of transformers resize to a square and normalise; OWLv2's first pads what is not square. A referee's
views are square, so that padding has nothing to do. Resizing is bicubic for BLIP, bilinear for OWL, both anti-aliased.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from transformers import AutoTokenizer
from transformers.utils import logging

from referee.errors import WeightsError
from referee.weights import check_loaded

FILE = "preprocessor_config.json"
Triple = tuple[float, float, float]


class Normalisation(NamedTuple):
    """Per channel, for images in [0, 1]: ``(x - mean) / std``."""

    mean: Triple = (0.48145466, 0.4578275, 0.40821073)
    std: Triple = (0.26862954, 0.26130258, 0.27577711)


CLIP = Normalisation()
"""What BLIP and OWL were trained with."""


def load_normalisation(folder: Path) -> Normalisation:
    """That of ``preprocessor_config.json``; CLIP's where the folder does not say.

    Raises:
        WeightsError: the file is there but is not JSON with three numbers each.
    """
    path = folder / FILE
    if not path.is_file():
        return CLIP
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
        mean, std = (_triple(given.get(f"image_{name}", getattr(CLIP, name))) for name in ("mean", "std"))
        return Normalisation(mean, std)
    except (ValueError, TypeError, AttributeError) as error:
        message = f"{path} does not hold three numbers each for image_mean and image_std: {error}."
        raise WeightsError(message) from error


def _triple(values: list[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def save_normalisation(folder: Path, given: Normalisation, size: int, processor: str, resample: int) -> None:
    """Write the file so that transformers' processor reads it too."""
    content = {
        "image_processor_type": processor,
        "do_resize": True, "do_rescale": True, "do_normalize": True,
        "size": {"height": size, "width": size},
        "resample": resample, "rescale_factor": 1 / 255,
        "image_mean": list(given.mean), "image_std": list(given.std),
    }  # fmt: skip
    (folder / FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class NoTokenizer:
    """Stands for a tokenizer that is not on the disk, where only sizes are asked for: a token per word, and two."""

    def __call__(self, text: str, **_: Any) -> Any:
        """Ids of no meaning, (1, T)."""
        return SimpleNamespace(input_ids=torch.ones(1, len(text.split()) + 2, dtype=torch.long))

    def __len__(self) -> int:
        return 0

    def get_vocab(self) -> dict[str, int]:
        """The two words that a yes-no question needs."""
        return {"yes": 1, "no": 2}


def load_tokenizer(folder: Path, weights: bool = True) -> Any:
    """The folder's; without weights, where it has none, one that only counts."""
    if not weights and not (folder / "tokenizer_config.json").is_file():
        return NoTokenizer()
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def load_network(kind: Any, folder: Path, config: Any, weights: bool = True) -> Any:
    """``kind.from_pretrained``, but safetensors alone, float32, and every tensor there; or with random weights.

    Raises:
        WeightsError: tensors are missing, too many or of the wrong size.
    """
    if not weights:
        return kind(config).float()  # whatever it is stored in
    with quiet():
        network, found = kind.from_pretrained(
            folder, config=config, dtype=torch.float32, use_safetensors=True,
            local_files_only=True, output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    check_loaded(folder, kind.__name__, found, more=True)
    return network


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers; what matters is checked here and raised."""
    shown, before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if shown:
            logging.enable_progress_bar()
