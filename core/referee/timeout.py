"""A referee that hangs: its ``timeout`` says how long a step waits for it.

Foreign code cannot be stopped in every state that it may be in, so there are two watches. An alarm raises TimeoutError
where Python stands: in a loop, at a lock, at a socket; the run then ends as after any fault, with a checkpoint. Where
Python does not come to a word, in a kernel that never ends, the second watch, of C (`faulthandler`), writes to stderr
where each thread stands and ends the process: exit code 1, and the checkpoint before is what is left.
"""

from __future__ import annotations

import faulthandler
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

import torch

GRACE = 10.0
"""Seconds from the first watch to the second."""
AGAIN = 0.5
"""Seconds from one alarm to the next."""
STDERR = 2


@contextmanager
def limited(seconds: float | None) -> Iterator[None]:
    """Do something within so many seconds; None for no end. The first watch needs a Unix and the main thread.

    Raises:
        TimeoutError: it took longer.

    >>> from time import sleep
    >>> with limited(0.01):
    ...     sleep(60)
    Traceback (most recent call last):
    TimeoutError: no answer within 0.01 seconds
    """
    if seconds is None:
        yield
        return

    first = hasattr(signal, "SIGALRM") and threading.current_thread() is threading.main_thread()
    faulthandler.dump_traceback_later(seconds + (GRACE if first else 0), exit=True, file=STDERR)
    try:
        with _alarm(seconds) if first else nullcontext():
            yield
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()  # a GPU works behind Python's back
    finally:
        faulthandler.cancel_dump_traceback_later()


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        raise TimeoutError(f"no answer within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    try:
        # Again until Python hears it: a call that begins to wait just as an alarm comes sleeps through that one.
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before or signal.SIG_DFL)
