"""A run at a real terminal, a pseudo one that answers as some do: colours, pixels, plain lines."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from referee.command.app import main

if TYPE_CHECKING:
    from conftest import Desk

NO_PIXELS = {b"\x1b[c": b"\x1b[?62;22c"}
SIXEL = {b"\x1b[c": b"\x1b[?62;4;22c"}
KITTY = {b"\x1b[c": b"\x1b[?62;22c", b"\x1b_G": b"\x1b_Gi=1;OK\x1b\\"}
"""What a terminal says when it is asked what it can do."""
COLOUR = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[;m]")
without = pytest.mark.skipif(
    find_spec("textual_image") is None, reason="textual-image is not installed: pip install 'vlm-referee[terminal]'"
)


def at_terminal(desk: Desk, answers: dict[bytes, bytes], *words: str, **environment: str) -> tuple[int, str]:
    """Exit code, and all that the terminal was sent, by a child that has it for its standard streams."""
    child, terminal = pty.fork()
    if child == 0:
        code = 99
        try:
            sys.stdin, sys.stdout, sys.stderr = sys.__stdin__, sys.__stdout__, sys.__stderr__
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 1200, 800))
            for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
                os.environ.pop(name, None)
            os.environ.update({"TERM": "xterm-256color", "COLORTERM": "truecolor", **environment})
            sys.argv = ["referee", *words, *desk.TOYS]
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    sent, waiting = b"", dict(answers)
    while True:
        try:
            piece = os.read(terminal, 1 << 16)
        except OSError:  # the child is gone
            break
        if not piece:
            break
        sent += piece
        for asked in [each for each in waiting if each in sent]:
            os.write(terminal, waiting.pop(asked))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.close(terminal)
    return code, sent.decode(errors="replace")


def test_half_blocks_where_there_are_no_pixels(desk: Desk) -> None:
    code, sent = at_terminal(desk, NO_PIXELS, *desk.RUN, "--no-report")
    assert code == 0, sent
    assert "▀" in sent
    assert COLOUR.search(sent)
    assert "out/picture-4.png" in sent


@without
@pytest.mark.parametrize(("answers", "there"), [(SIXEL, "\x1bP"), (KITTY, "\U0010eeee")], ids=["sixel", "kitty"])
def test_pixels_where_there_are(desk: Desk, answers: dict[bytes, bytes], there: str) -> None:
    code, sent = at_terminal(desk, answers, *desk.RUN, "--no-report")
    assert code == 0, sent
    assert there in sent
    assert "▀" not in sent


def test_no_colour_where_it_is_not_wanted(desk: Desk) -> None:
    code, sent = at_terminal(desk, NO_PIXELS, *desk.RUN, "--no-report", NO_COLOR="1")
    assert code == 0, sent
    assert "|gradient|" in sent
    assert not COLOUR.search(sent)
    assert "▀" not in sent


def test_plain_lines_on_a_terminal_that_only_types(desk: Desk) -> None:
    code, sent = at_terminal(desk, NO_PIXELS, *desk.RUN, "--no-report", TERM="dumb", COLORTERM="")
    assert code == 0, sent
    assert "\x1b" not in sent
    assert "step   14/14" in sent


def test_quiet_is_quiet_at_a_terminal(desk: Desk) -> None:
    code, sent = at_terminal(desk, NO_PIXELS, *desk.RUN, *desk.FEW)
    assert (code, sent.split()) == (0, ["out/picture-3.png", "out/picture-4.png"])
