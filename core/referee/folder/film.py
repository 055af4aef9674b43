"""A picture's film: how it looked at a few moments, for the report, for an animation, and for looking at on the way.

On disk a film is one picture, `frames-SEED.webp`: the frames one below the other, oldest first; `run.toml` says after
how many steps each was taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from math import ceil, sqrt
from pathlib import Path

from PIL import Image

from referee.folder.record import write_whole

Frames = Mapping[int, Sequence[Image.Image]]
"""The pictures, one per seed, by how many steps they had taken."""

MOMENTS = 25
"""Frames of a film, with the last step; every third is in evolution.png."""
SIDE, SIDE_OF_MANY, MANY = 512, 256, 8
"""Longer side of a frame at most, in pixels; in batches of more than so many. A film stays below WebP's 16383."""
FRAME_MS, REST_MS, RATE = 120, 1600, 25
"""How long an animation shows a frame, and the last one, in milliseconds; pictures per second of a film as MP4."""
LOSSLESS = 128
"""Pixels: smaller pictures are kept exactly, as every one of their pixels is seen."""


def moments(steps: int, count: int = MOMENTS, *, first: int = 0) -> list[int]:
    """After how many steps to look: up to ``count`` times, from the first one played to the end. Their distances grow,
    as the picture finds its form early.

    >>> moments(90, 4), moments(2)
    ([0, 10, 40, 90], [0, 1, 2])
    """
    return sorted({first + round((i / (count - 1)) ** 2 * (steps - first)) for i in range(count)})


def shrink(image: Image.Image, pictures: int = 1) -> Image.Image:
    """A frame at the size that a film of so many pictures keeps."""
    side = SIDE if pictures <= MANY else SIDE_OF_MANY
    if (scale := side / max(image.size)) >= 1:
        return image
    return image.resize((max(round(image.width * scale), 1), max(round(image.height * scale), 1)))


def encode(image: Image.Image) -> bytes:
    """A picture as WebP, exact if it is small."""
    buffer = BytesIO()
    image.save(buffer, "webp", lossless=image.width <= LOSSLESS, quality=90)
    return buffer.getvalue()


def write_film(path: Path, frames: Sequence[Image.Image]) -> None:
    """Write the frames of one picture, all of one size, one below the other."""
    wide, high = frames[0].size
    film = Image.new("RGB", (wide, high * len(frames)))
    for i, frame in enumerate(frames):
        film.paste(frame, (0, i * high))
    write_whole(path, encode(film))


def grid(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Pictures of one size side by side, as near to a square as can be."""
    columns = ceil(sqrt(len(pictures)))
    rows = ceil(len(pictures) / columns)
    wide, high = pictures[0].size
    sheet = Image.new("RGB", (columns * (wide + gap) - gap, rows * (high + gap) - gap), "white")
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * (wide + gap), i // columns * (high + gap)))
    return sheet


def write_grid(path: Path, pictures: Sequence[Image.Image]) -> None:
    """Write the pictures of one moment as PNG."""
    buffer = BytesIO()
    grid(pictures).save(buffer, "png")
    write_whole(path, buffer.getvalue())


def write_animation(path: Path, frames: Frames, kind: str) -> None:
    """Write all pictures' way as an animation, webp, gif or mp4, that rests on the last frame; the first two loop."""
    sheets = [grid(pictures) for _, pictures in sorted(frames.items())]
    if max(sheets[0].size) < 256:  # small pictures are for looking at, too
        sheets = [sheet.resize((sheet.width * 4, sheet.height * 4), Image.Resampling.NEAREST) for sheet in sheets]
    if kind == "mp4":
        write_whole(path, film_mp4(sheets))
        return
    buffer = BytesIO()
    options = {"quality": 85} if kind == "webp" else {"optimize": False}
    shown = [FRAME_MS] * (len(sheets) - 1) + [REST_MS]
    sheets[0].save(buffer, kind, save_all=True, append_images=sheets[1:], loop=0, duration=shown, **options)
    write_whole(path, buffer.getvalue())


def film_mp4(sheets: Sequence[Image.Image]) -> bytes:
    """Pictures of one size as H.264, as every browser plays it; needs PyAV, which the extra ``mp4`` brings."""
    import av

    buffer = BytesIO()
    with av.open(buffer, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"crf": "16", "tune": "animation"})
        stream.pix_fmt = "yuv420p"
        stream.width, stream.height = (side + side % 2 for side in sheets[0].size)  # H.264 has even sides
        for i, sheet in enumerate(sheets):
            picture = sheet.resize((stream.width, stream.height))
            for _ in range((REST_MS if i == len(sheets) - 1 else FRAME_MS) * RATE // 1000):
                film.mux(stream.encode(av.VideoFrame.from_image(picture)))
        film.mux(stream.encode(None))
    return buffer.getvalue()
