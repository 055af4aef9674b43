"""OWL's open-vocabulary detector as a differentiable map of where each phrase is.

transformers' ``Owlv2ForObjectDetection`` (Minderer et al. 2023, arXiv 2306.09683) or ``OwlViTForObjectDetection``
(Minderer et al. 2022, arXiv 2205.06230): one fixed grid of patches, for each patch a box and a logit per phrase. No
top-k, no sampling, nothing detached (the objectness head, which detaches, is not used), so the gradient is exact.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    Owlv2ForObjectDetection,
    OwlViTForObjectDetection,
)

from referee.errors import WeightsError
from referee.weights import FAULTS
from referee_grounding_vqa.preprocess import (
    Normalisation,
    load_network,
    load_normalisation,
    load_tokenizer,
    quiet,
    save_normalisation,
)

Pixels = Float[Tensor, "b 3 S S"]
Queries = Float[Tensor, "k d"]

CLASSES: dict[str, Any] = {"owlv2": Owlv2ForObjectDetection, "owlvit": OwlViTForObjectDetection}
"""By ``model_type`` of the configuration."""
PROCESSORS = {"owlv2": "Owlv2ImageProcessor", "owlvit": "OwlViTImageProcessor"}


class Detector(nn.Module):
    """Finds phrases in an image.

    Args:
        network: the transformers model.
        tokenizer: CLIP's.
        normalisation: of images in [0, 1].
    """

    mean: Float[Tensor, "3 1 1"]
    std: Float[Tensor, "3 1 1"]

    def __init__(self, network: Any, tokenizer: Any, normalisation: Normalisation) -> None:
        super().__init__()
        self.network = network
        self.tokenizer = tokenizer
        self.normalisation = normalisation
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(normalisation.std).view(3, 1, 1), persistent=False)

    @classmethod
    def fresh(cls, config: Any, tokenizer: Any, normalisation: Normalisation) -> Detector:
        """Random weights, for training. transformers starts the heads at a deviation of 1, whose logits run into the
        hundreds; here they start as wide as they are deep."""
        network = CLASSES[config.model_type](copy.deepcopy(config))
        for head in (network.class_head, network.box_head):
            for layer in head.children():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
        return cls(network, tokenizer, normalisation)

    @classmethod
    def load(cls, folder: str | Path, *, weights: bool = True) -> Detector:
        """Read a transformers folder, in float32 whatever it is stored in, in evaluation mode; or all but its weights.

        Raises:
            WeightsError: it is no OWL model, or tensors are missing, too many or of the wrong size.
        """
        folder = Path(folder)
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if config.model_type not in CLASSES:
                raise ValueError(f"it is of type '{config.model_type}', not one of {', '.join(CLASSES)}")
            network = load_network(CLASSES[config.model_type], folder, config, weights)
            tokenizer = load_tokenizer(folder, weights)
        except (*FAULTS, StrictDataclassError) as error:
            raise WeightsError(f"The detector in {folder} cannot be loaded: {error}") from error
        return cls(network, tokenizer, load_normalisation(folder)).eval()

    def save(self, folder: str | Path) -> None:
        """Write a folder that transformers reads too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            self.network.save_pretrained(folder, max_shard_size="1TB")
        self.tokenizer.save_pretrained(folder)
        kind = PROCESSORS[self.network.config.model_type]
        save_normalisation(folder, self.normalisation, self.image_size, kind, resample=2)

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        size: int = self.network.config.vision_config.image_size
        return size

    @property
    def _body(self) -> Any:
        return getattr(self.network, self.network.base_model_prefix)

    def queries(self, phrases: Sequence[str]) -> Queries:
        """The phrases as unit vectors, in one row each.

        Warns:
            UserWarning: the end of a phrase is cut; names the phrase.
        """
        most: int = self.network.config.text_config.max_position_embeddings
        rows = []
        for phrase in phrases:
            ids: Tensor = self.tokenizer(phrase.lower(), return_tensors="pt").input_ids
            if ids.shape[1] > most:
                warnings.warn(f"The detector reads {most} tokens; the end of '{phrase}' is cut.", stacklevel=2)
                ids = torch.cat([ids[:, : most - 1], ids[:, -1:]], dim=1)
            rows.append(self.embed(ids.to(self.mean.device)))
        return torch.cat(rows)

    def embed(self, ids: Tensor) -> Queries:
        """Ids (k, T), all of one length or padded past their end mark, to unit vectors."""
        pooled = self._body.text_model(input_ids=ids).pooler_output
        return nn.functional.normalize(self._body.text_projection(pooled), dim=-1)

    def features(self, images: Pixels) -> Float[Tensor, "b g g v"]:
        """Images in [0, 1] to the grid of features that both heads read."""
        pixels = (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)
        grid: Tensor = self.network.image_embedder(pixel_values=pixels)[0]
        return grid

    def find(self, images: Pixels, queries: Queries) -> tuple[Float[Tensor, "b P k"], Float[Tensor, "b P 4"]]:
        """Logits of each phrase at each patch, and each patch's box: centre x, centre y, width, height in [0, 1]."""
        return self.heads(self.features(images), queries)

    def heads(
        self, grid: Float[Tensor, "b g g v"], queries: Queries
    ) -> tuple[Float[Tensor, "b P k"], Float[Tensor, "b P 4"]]:
        """What `find` gives, from features."""
        flat = grid.flatten(1, 2)
        logits: Tensor = self.network.class_predictor(flat, queries.expand(len(flat), -1, -1))[0]
        boxes: Tensor = self.network.box_predictor(flat, grid)
        return logits, boxes
