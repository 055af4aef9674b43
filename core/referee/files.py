"""Files that a person names, or a stranger's run: plain ones of bounded size are read, and nothing else is opened.

A pipe would be waited for, and a device be read, for ever.
"""

from __future__ import annotations

import stat
from pathlib import Path


class NotPlain(ValueError):
    """What is wrong with a file, to be said after its name."""


def is_plain(path: Path, *, links: bool = True) -> bool:
    """Whether there is a plain file, or a link to one if ``links`` are followed.

    >>> is_plain(Path("/dev/null"))
    False
    """
    try:
        return stat.S_ISREG((path.stat() if links else path.lstat()).st_mode)
    except (OSError, ValueError):  # ValueError: a null character in the name
        return False


def read_plain(path: Path, limit: int, *, links: bool = True) -> bytes:
    """All of a plain file.

    Raises:
        NotPlain: it is something else, or larger than ``limit`` bytes.
        OSError, ValueError: it is not there, cannot be read, or has a name that none can have.
    """
    found = path.stat() if links else path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise NotPlain("is no plain file")
    if found.st_size > limit:
        raise NotPlain(f"has {found.st_size:,} bytes; at most {limit:,} are read")
    with path.open("rb") as file:
        return file.read(limit)
