"""The pocket zoo: a little world and every model that plays in it, small enough to ship.

Vocabulary and grammar are in `words`, the renderer in `world`, the held-out judge in `judge`; ``python -m
referee_pocket.train`` rebuilds the weights. Importing this package imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from referee.errors import WeightsError
from referee.hooks import ZooSpec, hookimpl
from referee.weights import check_folder
from referee_pocket.words import check_prompt

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
MANIFEST = "manifest.json"
"""Every file of the weights with its size in bytes and sha256."""

PRESETS = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "presets").glob("*.toml")}


def check_files() -> None:
    """Refuse a copy of the zoo that lacks a file or has a cut one.

    Raises:
        WeightsError: naming the file.
    """
    mend = "Install the package again: pip install --force-reinstall vlm-referee"
    check_folder(WEIGHTS, [MANIFEST], mend=mend)
    try:
        files = json.loads((WEIGHTS / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{WEIGHTS / MANIFEST} is cut short or no JSON: {error}. {mend}") from error
    check_folder(WEIGHTS, files, mend=mend)
    for name, entry in files.items():
        if (size := (WEIGHTS / name).stat().st_size) != entry["bytes"]:
            raise WeightsError(f"{WEIGHTS / name} has {size:,} bytes and should have {entry['bytes']:,}. {mend}")


@hookimpl
def referee_zoos(register: Callable[[ZooSpec], None]) -> None:
    checkpoints = {
        "blip2": {"model": str(WEIGHTS / "blip2")},
        "clip": {"model": str(WEIGHTS / "clip")},
        "grounding-vqa": {"vqa": str(WEIGHTS / "vqa"), "detector": str(WEIGHTS / "detector")},
        "stable-diffusion": {"model": str(WEIGHTS / "prior")},
    }
    summary = "an embedded little world: 8 shapes x 8 colours x 4 textures at 64 px, for a laptop"
    register(ZooSpec("pocket", summary, "pocket", checkpoints, PRESETS, check_prompt, check_files))
