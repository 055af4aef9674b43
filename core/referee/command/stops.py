"""SIGTERM, and SIGHUP of a terminal that is lost, end a command as Ctrl-C does: what it has begun it puts in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


class Stop:
    """What the shell is told of a command that was stopped: 128 and the signal's number."""

    code = INTERRUPTED

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.code = 128 + number
        raise KeyboardInterrupt


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Within it both signals raise KeyboardInterrupt; not if somebody else wants them. The innermost is told."""
    stop, main = Stop(), threading.current_thread() is threading.main_thread()
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if main and hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    taken = [number for number in numbers if before[number] is signal.SIG_DFL or isinstance(before[number], Stop)]
    for number in taken:
        signal.signal(number, stop)
    try:
        yield stop
    finally:
        for number in taken:
            signal.signal(number, before[number])
