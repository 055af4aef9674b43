"""The pocket zoo: a little world and every model that plays in it, small enough to ship.

Vocabulary and grammar are in `words`, the renderer in `world`, the held-out judge in `judge`; ``python -m
referee_pocket.train`` rebuilds the weights. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from referee.errors import WeightsError
from referee.hooks import ZooSpec, hookimpl
from referee.weights import check_folder
from referee_pocket.words import check_prompt

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
MANIFEST = "manifest.json"
"""Every file of the weights with its size in bytes and sha256."""

PRESETS = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "presets").glob("*.toml")}


MEND = "Install the package again: pip install --force-reinstall vlm-referee"
FOLDERS = {"blip2": "blip2", "clip": "clip", "stable-diffusion": "prior"}
"""Where each part's files lie, below the weights."""


class _File(BaseModel):
    bytes: int
    sha256: str


def manifest() -> dict[str, _File]:
    """What the weights should be, by file.

    Raises:
        WeightsError: it is missing, cut short, or says something else.
    """
    check_folder(WEIGHTS, [MANIFEST], mend=MEND)
    try:
        return TypeAdapter(dict[str, _File]).validate_json((WEIGHTS / MANIFEST).read_bytes())
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise WeightsError(f"{WEIGHTS / MANIFEST} is cut short or no manifest: {why}. {MEND}") from error


def check_files() -> None:
    """Refuse a copy of the zoo that lacks a file or has a cut one.

    Raises:
        WeightsError: naming the file.
    """
    files = manifest()
    check_folder(WEIGHTS, files, mend=MEND)
    for name, entry in files.items():
        if (size := (WEIGHTS / name).stat().st_size) != entry.bytes:
            raise WeightsError(f"{WEIGHTS / name} has {size:,} bytes and should have {entry.bytes:,}. {MEND}")


def hashes(part: str) -> dict[str, str]:
    """sha256 of a part's weights by file."""
    above = f"{FOLDERS.get(part, part)}/"
    return {n: f.sha256 for n, f in manifest().items() if n.startswith(above) and n.endswith(".safetensors")}


@hookimpl
def referee_zoos(register: Callable[[ZooSpec], None]) -> None:
    checkpoints = {part: {"model": str(WEIGHTS / folder)} for part, folder in FOLDERS.items()}
    summary = "an embedded little world: 8 shapes x 8 colours x 4 textures at 64 px, for a laptop"
    register(ZooSpec("pocket", summary, "pocket", checkpoints, PRESETS, check_prompt, check_files, hashes))
