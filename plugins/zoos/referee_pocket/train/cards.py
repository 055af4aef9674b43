"""A model card beside each model: what it is, what opens it, what it was taught, what was measured, where it fails."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

Metrics = Mapping[str, Mapping[str, float]]

CARDS: dict[str, tuple[str, str, str, str]] = {
    "vae": (
        "prior/vae",
        "Pocket VAE",
        "diffusers `AutoencoderTiny`, f = 8, 8 latent channels. `AutoencoderTiny.from_pretrained(folder)`.",
        "Taught by 64 px scenes of the pocket world (training split): squared error, pooled and edge L1. Paints "
        "nothing but coloured shapes on soft backgrounds.",
    ),
    "clip": (
        "clip",
        "Pocket CLIP",
        "open_clip, 3 + 2 layers of width 96. `open_clip.create_model_and_transforms('local-dir:' + folder)`.",
        "Taught contrastively by augmented scenes and their captions. Near chance at telling a caption from one with "
        "attributes exchanged: it reads like a bag of words, as large CLIPs do.",
    ),
    "prior": (
        "prior",
        "Pocket prior",
        "A Stable Diffusion pipeline folder: `UNet2DConditionModel`, the pocket CLIP's frozen text tower as "
        "`CLIPTextModel`, the pocket VAE, DDIM. `StableDiffusionPipeline.from_pretrained(folder)`.",
        "Taught by 60,000 scenes, captions dropped for guidance with p = 0.12. Weak at shapes, on purpose no larger "
        "than two CPU cores can teach.",
    ),
    "blip2": (
        "blip2",
        "Pocket BLIP-2",
        "transformers `Blip2ForImageTextRetrieval` + a caption head (`caption_head.safetensors`). "
        "`referee_blip2.model.Blip2.load(folder)`; the transformers class opens the folder too.",
        "Taught to see (cell by cell), to read (matching, captions, contrast), to bind (exchanged attributes refused). "
        "Near chance on relations, as the large one is.",
    ),
    "vqa": (
        "vqa",
        "Pocket BLIP-VQA",
        "transformers `BlipForQuestionAnswering`. `referee_grounding_vqa.vqa.Vqa.load(folder)`; the transformers class "
        "opens the folder too. Questions open with [ENC] and are never padded.",
        "Taught to say yes or no to phrases (`a red striped circle?`), true ones and near misses, of augmented, bent "
        "and re-coded scenes, with the pocket BLIP-2's vision tower to start from. A phrase without a texture means a "
        "plain thing. Says nothing about where things are.",
    ),
    "detector": (
        "detector",
        "Pocket OWLv2",
        "transformers `Owlv2ForObjectDetection`. `referee_grounding_vqa.detector.Detector.load(folder)`; the "
        "transformers class opens the folder too. Its objectness head was not trained.",
        "Taught at every patch that a thing covers: the thing's phrase among all phrases of a batch, and its box.",
    ),
    "judge": (
        "judge",
        "Pocket judge",
        "`referee_pocket.judge.Detector`: a convolutional heat-map detector. `referee_pocket.judge.Judge(folder)`.",
        "Taught by scenes of its own seed, held-out combinations included, bent shapes and mis-drawn ones under the "
        "name 'none'. Never a referee.",
    ),
}


def write_cards(out: Path, metrics: Metrics) -> None:
    """Write ``README.md`` into each model's folder."""
    for part, (folder, title, opens, taught) in CARDS.items():
        rows = "".join(f"| {name} | {value:.4g} |\n" for name, value in metrics[part].items())
        text = (
            f"---\nlicense: mit\n---\n# {title}\n\n{opens}\n\n{taught}\n\n"
            f"| measured on held-out scenes | |\n|---|---|\n{rows}\n"
            f"Rebuild: `python -m referee_pocket.train {part}`. Stored in half precision; measured as stored.\n"
        )
        (out / folder / "README.md").write_text(text, encoding="utf-8")
