"""Parts that hang: a referee's ``timeout`` says how long a step waits for it, ``--timeout`` how long the step may take.

Foreign code cannot be stopped in every state that it may be in, so there are two watches. An alarm raises TimeoutError
where Python stands: in a loop, at a lock, at a socket; the run then ends as after any fault, with a checkpoint. Where
Python does not come to a word, in a kernel that never ends, the second watch, of C (`faulthandler`), writes to stderr
where each thread stands and ends the process: exit code 1, and the checkpoint before is what is left.

A process has one alarm and one such watch: of the limits that hold at a moment, one within another, they keep the
nearest.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch

GRACE = 10.0
"""Seconds from the first watch to the second."""
AGAIN = 0.5
"""Seconds from one alarm to the next."""
SOON = 1e-3
STDERR = 2


@dataclass(eq=False, slots=True)
class _Limit:
    seconds: float
    alarms: bool
    end: float = 0.0
    rung: bool = False

    def again(self) -> None:
        """Begin the time anew."""
        self.end = time.monotonic() + self.seconds
        _set()


_holding: list[_Limit] = []


@contextmanager
def limited(seconds: float | None) -> Iterator[Callable[[], None]]:
    """Do something within so many seconds; None for no end. The first watch needs a Unix and the main thread.

    Yields:
        What begins the time anew.

    Raises:
        TimeoutError: it took longer.

    >>> from time import sleep
    >>> with limited(60), limited(0.01):
    ...     sleep(60)
    Traceback (most recent call last):
    TimeoutError: no answer within 0.01 seconds
    """
    if seconds is None:
        yield lambda: None
        return

    limit = _Limit(seconds, hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread())
    before = signal.signal(signal.SIGALRM, _ring) if limit.alarms else None
    _holding.append(limit)
    try:
        limit.again()
        yield limit.again
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # a GPU works behind Python's back
    finally:
        _holding.remove(limit)
        _set()
        if limit.alarms:
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


def _ring(number: int, frame: FrameType | None) -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    nearest = min(
        (limit for limit in _holding if limit.alarms and not limit.rung), key=lambda limit: limit.end, default=None
    )
    if nearest:  # else it came just as the last one was lifted
        nearest.rung = True
        raise TimeoutError(f"no answer within {nearest.seconds:g} seconds")


def _set() -> None:
    """Both watches to the nearest of the limits that hold."""
    now = time.monotonic()
    if hasattr(signal, "SIGALRM"):
        rings = [limit.end - now for limit in _holding if limit.alarms and not limit.rung]
        # Again until Python hears it: a call that begins to wait just as an alarm comes sleeps through that one.
        signal.setitimer(signal.ITIMER_REAL, max(min(rings), SOON) if rings else 0, AGAIN if rings else 0)
    faulthandler.cancel_dump_traceback_later()
    if ends := [limit.end - now + (GRACE if limit.alarms else 0) for limit in _holding]:
        faulthandler.dump_traceback_later(max(min(ends), SOON), exit=True, file=STDERR)
