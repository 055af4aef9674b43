"""What a run leaves behind: pictures that know how they were made, its settings, its numbers, its evolution.

    OUT/
      picture-SEED.png     with prompt, seed, settings and versions in its text chunks
      run.toml             settings after all defaults: `--config OUT/run.toml` repeats the run
      metrics.jsonl        a line per step
      evolution.png        each picture at a few steps, first to last
      panel.png            losses, agreement, and where on the picture each referee and the prior pulled
      maps-SEED.webp       the same maps one below the other, in the order that run.toml names them in
      frames-SEED.webp     a picture's film, see `referee.folder.film`; if asked for: preview-STEP.png,
                           evolution.webp, .gif or .mp4
      tensorboard/         if asked for, see `referee.watching.board`
      report.html          all of it on one page, see `referee.watching.report`
      checkpoint*          until it is finished: where it stands, see `referee.folder.checkpoint`

Files are written whole: to a temporary name, then renamed. `referee.folder.run` reads them back.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
import unicodedata
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import tomli_w
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from referee import zoos
from referee.errors import OutputError
from referee.files import is_plain
from referee.hooks import ZooSpec
from referee.plugins import Kind, Registry
from referee.settings import NO_ZOO, Part, Settings

LOG = logging.getLogger("referee")
WRITTEN = (
    "run.toml", "picture-*.png", "metrics.jsonl", "evolution.*", "panel.png", "frames-*.webp", "maps-*.webp",
    "preview-*.png", "report.html", "checkpoint*", "tensorboard",
)  # fmt: skip
MOST = 64
"""Files of weights of one option that are summed up."""
MAX_WEIGHTS = 1 << 37
"""Bytes of one of them."""
LIBRARIES = (
    "vlm-referee", "torch", "diffusers", "transformers", "open_clip_torch", "kornia", "numpy", "pillow", "safetensors",
)  # fmt: skip


def choose_folder(out: Path | None, prompt: str, seed: int) -> Path:
    """Where a run will write: as asked, or a fresh folder under ``runs/`` named after prompt and seed. Makes nothing.

    Raises:
        OutputError: it holds files of another run, is a file, or cannot be written to.
    """
    if out is None:
        base = Path("runs") / f"{slug(prompt)}-{seed}"
        out, count = base, 2
        while os.path.lexists(out):  # a link that leads nowhere is taken as well
            out, count = base.with_name(f"{base.name}-{count}"), count + 1
    above = out
    try:
        if found := next((path for pattern in WRITTEN for path in out.glob(pattern)), None):
            raise OutputError(f"{out} holds another run ({found.name}). Choose another --out, or remove it.")
        while not os.path.lexists(above) and above.parent != above:
            above = above.parent
        if not above.is_dir():
            raise OutputError(f"--out {out}: {above} is a file, not a folder.")
    except OSError as error:  # a name too long, a folder that may not be looked into
        raise OutputError(f"--out {out}: {error.strerror or error}. Choose another --out.") from error
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"--out {out}: {above} cannot be written to. Choose another --out.")
    return out


def slug(text: str) -> str:
    """A file name of at most 60 plain characters; prompts are data, never paths.

    >>> slug("A red/../circle & ein Würfel")
    'a-red-circle-ein-wurfel'
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall("[a-z0-9]+", plain))[:60].strip("-") or "picture"


def write_whole(path: Path, content: bytes) -> None:
    """All of a file or nothing: to a temporary name beside it, then renamed.

    Raises:
        OutputError: the disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:  # x: what lies there already, a link to elsewhere, is not written through
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}.") from error
    else:
        LOG.debug("wrote %s, %s bytes", path, f"{len(content):,}")
    finally:
        with suppress(OSError):  # after Ctrl-C, too; renamed or never made, it is not there
            temporary.unlink()


def describe(
    prompt: str, settings: Settings, registry: Registry | None, *, command: str = "generate", device: str = ""
) -> dict[str, Any]:
    """run.toml: all settings, and under [run] what else shaped the run.

    Args:
        command: what was asked for: "generate" or "sample".
        device: where the run computed, after "auto"; "" if nobody knows.
    """
    run: dict[str, Any] = {"prompt": prompt, "command": command, "python": platform.python_version()}
    run |= {"platform": f"{platform.system()} {platform.machine()}", "libraries": versions()}
    if device:
        run["device"] = hardware(device)
    if registry:
        run["plugins"] = {
            p.name: f"{p.distribution} {p.version}".strip() for p in registry.plugins if p.status == "active"
        }
        run["parts"] = origins(settings, registry)
        run["weights"] = hashes(settings, registry)
    # TOML has no null: what is None is left out, and reads back as None; but no zoo must be said, its default is one.
    return {**settings.model_dump(mode="json", exclude_none=True), "zoo": settings.zoo or NO_ZOO, "run": run}


def _played(settings: Settings) -> list[tuple[Kind, Part]]:
    one: list[tuple[Kind, Part | None]] = [
        ("prior", settings.prior), ("augmentation", settings.augmentation), ("balancer", settings.balancer),
    ]  # fmt: skip
    scoring = (*settings.referees, *([settings.judge] if settings.judge else []))
    referees: list[tuple[Kind, Part]] = [("referee", part) for part in scoring]
    return referees + [(kind, part) for kind, part in one if part]


def origins(settings: Settings, registry: Registry) -> list[dict[str, str]]:
    """For each part that plays, the distribution that brought it, with its version."""
    found = []
    for kind, name in dict.fromkeys((kind, part.name) for kind, part in _played(settings)):
        distribution, _, short = name.rpartition(":")
        found += [
            {"kind": kind, "name": short, "distribution": plugin.distribution, "version": plugin.version}
            for plugin in registry.plugins
            if (kind, short) in plugin.offers and distribution in ("", plugin.distribution)
        ]
    return found


def hashes(settings: Settings, registry: Registry) -> dict[str, str]:
    """sha256 of the weights by file: of the zoo's as published, of those of which nobody published one, and of those in
    folders of the person's own, as they are."""
    zoo: ZooSpec | None = registry.find("zoo", settings.zoo) if settings.zoo in registry.names("zoo") else None
    parts = [(part.name.rpartition(":")[2], part.options) for _, part in _played(settings)]
    own = {file: found for name, options in parts for file, found in weights_of(name, options).items()}
    if zoo is None:
        return own
    shelf = zoos.needed(zoo.checkpoints(), parts)
    files = [(one, file) for one in shelf for file in one.files if file.name.endswith(".safetensors")]
    published = {file.name: file.sha256 for _, file in files if file.sha256}
    made = {
        f"{one.name} {file.name}": _sha256(path)
        for one, file in files
        if not file.sha256 and is_plain(path := one.folder / file.name)
    }
    return own | published | made


def weights_of(name: str, options: Mapping[str, object]) -> dict[str, str]:
    """sha256 of the safetensors files that a part's options point to, by part, option and file."""
    return {
        f"{name} {option} {path.relative_to(str(value)) if path != Path(str(value)) else path.name}": _sha256(path)
        for option, value in options.items()
        for path in _weights(value)
    }


def _weights(value: object) -> list[Path]:
    """The safetensors files that an option, maybe a stranger's, points to, itself or as their folder."""
    if not isinstance(value, str):
        return []
    path = Path(value)
    with suppress(OSError, ValueError):  # text that is no name of a file
        found = [path] if path.is_file() else sorted([*path.glob("*.safetensors"), *path.glob("*/*.safetensors")])
        some = (each for each in found if each.suffix == ".safetensors" and is_plain(each))
        return [each for each in islice(some, MOST) if each.stat().st_size <= MAX_WEIGHTS]
    return []


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:  # the part that reads it will say so
        return ""


def hardware(device: str) -> str:
    """A device with the name of its chip: "cuda (NVIDIA H200)"."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def versions() -> dict[str, str]:
    """Versions of the libraries that decide what a seed draws."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_run(folder: Path, description: Mapping[str, Any]) -> None:
    """Write ``run.toml``."""
    write_whole(folder / "run.toml", tomli_w.dumps(dict(description)).encode())


def write_metrics(folder: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write ``metrics.jsonl``, a line per step."""
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history).encode())


def write_picture(path: Path, image: Image.Image, description: Mapping[str, Any], seed: int) -> None:
    """Write a PNG whose text chunks say how to draw it again."""
    info = PngInfo()
    info.add_itxt("prompt", str(description["run"]["prompt"]))
    info.add_text("seed", str(seed))
    info.add_itxt("settings", tomli_w.dumps(dict(description)))
    info.add_text("Software", f"referee {versions().get('vlm-referee', '')}".strip())
    buffer = BytesIO()
    image.save(buffer, "png", pnginfo=info)
    write_whole(path, buffer.getvalue())


def strip(frames: Mapping[int, Sequence[Image.Image]], labels: Sequence[str], cell: int = 128) -> Image.Image:
    """A contact sheet: one row per picture, one column per step kept, oldest first.

    Args:
        frames: the pictures, one per row, by step number.
        labels: one per row.
        cell: longer side of a picture on the sheet, in pixels.
    """
    first = next(iter(frames.values()))[0]
    scale = cell / max(first.size)
    wide, high = round(first.width * scale), round(first.height * scale)
    how = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    rows, top, left = max(len(pictures) for pictures in frames.values()), 16, 70
    sheet = Image.new("RGB", (left + len(frames) * (wide + 2), top + rows * (high + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (k, pictures) in enumerate(sorted(frames.items())):
        draw.text((left + column * (wide + 2) + 2, 2), f"step {k}", "black")
        for row, picture in enumerate(pictures):
            sheet.paste(picture.resize((wide, high), how), (left + column * (wide + 2), top + row * (high + 2)))
    for row, label in enumerate(labels):
        draw.text((2, top + row * (high + 2) + high // 2), label, "black")
    return sheet


def write_strip(path: Path, sheet: Image.Image) -> None:
    """Write a contact sheet as PNG."""
    buffer = BytesIO()
    sheet.save(buffer, "png")
    write_whole(path, buffer.getvalue())
