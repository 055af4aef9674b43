"""Picture files that a person names, opened with care and without torch: to begin a run with, to mask it, to score.

They may be anybody's: a file that is no plain one, of more bytes or pixels than a picture has, or of a format that
Pillow hands to another program, is refused before it is decoded.
"""

from __future__ import annotations

from hashlib import sha256
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageOps

from referee.errors import OptionError
from referee.files import NotPlain, read_plain

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MAX_BYTES = 1 << 28
MAX_PIXELS = 1 << 26
"""8192 x 8192."""


def read_photo(path: str | Path, said: str) -> tuple[Image.Image, str]:
    """A picture as it lies on the disk, decoded and the right way up, and the file's sha256.

    Args:
        path: of the file; a link is followed.
        said: what it was given for, e.g. "--init", for errors.

    Raises:
        OptionError: it is missing, no picture, or too large.
    """
    path = Path(path)
    try:
        content = read_plain(path, MAX_BYTES)
    except (NotPlain, FileNotFoundError) as error:
        what = error if isinstance(error, NotPlain) else "is not there"
        raise OptionError(f"{said}: {path} {what}. Name a picture: {', '.join(FORMATS)}.") from error
    except (OSError, ValueError) as error:
        raise OptionError(f"{said}: {path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    try:
        with Image.open(BytesIO(content), formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise OptionError(
                    f"{said}: {path} has {opened.width} x {opened.height} pixels; at most {MAX_PIXELS:,} are read."
                )
            opened.load()
            picture = ImageOps.exif_transpose(opened)  # a camera says in EXIF which side is up
    except OptionError:
        raise
    except Exception as error:  # for a stranger's file a decoder may raise anything
        kinds = f"it must be one of {', '.join(FORMATS)}" if "cannot identify" in str(error) else str(error)
        raise OptionError(f"{said}: {path} cannot be read as a picture: {kinds}.") from error
    return picture, sha256(content).hexdigest()


def flat(picture: Image.Image) -> Image.Image:
    """8-bit RGB, on white where it is transparent."""
    if picture.mode.startswith("I"):  # 16 bits of grey, which Pillow would cut off at 255
        import numpy as np  # slow to import

        picture = Image.fromarray((np.asarray(picture).clip(0, 65535) / 257).round().astype(np.uint8))
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    return picture.convert("RGB")


def fitted(picture: Image.Image, height: int, width: int) -> Image.Image:
    """Scaled until it covers so many pixels, and its middle cut out; one of that size stays as it is, bit for bit."""
    if picture.size == (width, height):
        return picture
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)
