"""What can go wrong, as one tree; each message says what was found, what was expected and what mends it.

RefereeError                exit code 2: the input was refused, nothing was written; 1 if a run had begun
|-- PromptError             the prompt is empty, too long, or has words that the zoo cannot draw
|   `-- NothingToJudge      it has nothing of what a referee judges
|-- OptionError             an option, setting or schedule has the wrong name, type or value
|-- PluginError             a plug-in is unknown, failed to load, or two share one name; a referee failed at a step
|-- WeightsError            a checkpoint is missing, cut short, or of another kind
|-- RunError                a run's folder or picture cannot be read back
`-- OutputError             the output folder cannot be written to
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import PurePath
from unicodedata import category


def controls(text: str) -> bool:
    r"""Whether it holds characters that steer a terminal instead of being shown, or broken ones. Lines and tabs are
    text.

    >>> controls("\x1b[2J"), controls("\udcff"), controls("one\ntwo")
    (True, True, False)
    """
    return any(category(char) in ("Cc", "Cs") and char not in "\n\t" for char in text)


def shown(text: str) -> str:
    r"""Text that may be anybody's, for a terminal: `controls` are written out.

    >>> print(shown("\x1b[2J"))
    \x1b[2J
    """
    return "".join(ascii(char)[1:-1] if controls(char) else char for char in text)


ALARM = "referee.timeout"
"""The module whose alarm rings in the midst of what hangs."""


class RefereeError(Exception):
    """The input cannot be used; the message is one a person can act on, and safe to show whatever it quotes."""

    def __str__(self) -> str:
        return shown(super().__str__())


class PromptError(RefereeError):
    """The prompt is empty, too long, or says what the chosen zoo cannot draw."""


class NothingToJudge(PromptError):
    """Nothing in the prompt is a referee's to judge. On a panel it sits the run out; alone it cannot play."""


class OptionError(RefereeError):
    """An option, setting or schedule has the wrong name, type or value."""


class PluginError(RefereeError):
    """A plug-in is unknown, failed to load, shares its name with another, or failed at a step."""


class WeightsError(RefereeError):
    """A checkpoint file is missing, cut short, or not what its role needs."""


class RunError(RefereeError):
    """A run's folder or picture is missing, broken, or nothing that a run wrote."""


class OutputError(RefereeError):
    """The output folder cannot be written to."""


def out_of_memory(error: BaseException) -> bool:
    """Whether a library raised this because a device, or the machine, has no memory left.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."))
    True
    >>> out_of_memory(RuntimeError("shapes do not fit"))
    False
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which imports torch
        return True
    said = str(error).lower()
    words = ("out of memory", "can't allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError) and any(each in said for each in words)


def short_of_memory(error: BaseException) -> OptionError:
    """What is said of it."""
    first = str(error).partition("\n")[0] or type(error).__name__
    return OptionError(f"Out of memory: {first.rstrip('.')}. `referee plan --fit 12GB` says what needs less.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the names nearest to a misspelt one, or all of them.

    >>> nearest("clop", ["clip", "blip2"])
    "Did you mean 'clip'?"
    >>> nearest("zzz", ["clip", "blip2"])
    'There are: blip2, clip.'
    """
    names = sorted(known)
    if close := get_close_matches(name, names, n=3, cutoff=0.6):
        return "Did you mean " + " or ".join(f"'{c}'" for c in close) + "?"
    return f"There are: {', '.join(names)}." if names else "There are none."


def where(error: BaseException) -> str:
    """An exception on one line, with the file and line that raised it; of a part that hung, where it stood.

    >>> try:
    ...     {}["x"]
    ... except KeyError as error:
    ...     where(error)
    "KeyError: 'x' (<doctest referee.errors.where[0]>, line 2)"
    """
    walked = traceback.walk_tb(error.__traceback__)
    frames = [(frame, line) for frame, line in walked if frame.f_globals.get("__name__") != ALARM]
    place = f" ({PurePath(frames[-1][0].f_code.co_filename).name}, line {frames[-1][1]})" if frames else ""
    return " ".join(f"{type(error).__name__}: {error}".split()) + place


@contextmanager
def blamed(name: str, k: int) -> Iterator[None]:
    """What a part raises at a step, ``sys.exit`` as well, becomes a PluginError that names it.

    A RefereeError says enough by itself, and memory that ran out is for those who can do something about it.

    >>> with blamed("clip", 7):
    ...     raise KeyError("tokens")
    Traceback (most recent call last):
    referee.errors.PluginError: 'clip' failed at step 7: KeyError: 'tokens' (<doctest referee.errors.blamed[0]>, line 2)
    """
    try:
        yield
    except RefereeError:
        raise
    except (Exception, SystemExit) as error:
        if out_of_memory(error):
            raise
        raise PluginError(f"'{name}' failed at step {k}: {where(error)}") from error
