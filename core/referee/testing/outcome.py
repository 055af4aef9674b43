"""What a check says: ok, failed with the reason and its usual mend, or left out with the reason."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from referee.errors import OptionError, nearest, where


class CheckFailed(AssertionError):
    """A part does not keep a promise; the message says what that means and how it is usually mended."""


class LeftOut(Exception):
    """A check that cannot be made of this part; the message says why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one check.

    Attributes:
        check: its name, as ``skip`` takes it.
        status: ok, failed, or skipped.
        says: what failed and the mend, why it was left out, or what was measured.
    """

    check: str
    status: Literal["ok", "failed", "skipped"]
    says: str = ""


Check = Callable[[Any], str | None]
"""Takes a case; returns what it measured, if anything, and raises `CheckFailed` or `LeftOut`."""


def run(checks: Sequence[Check], case: Any, skip: Iterable[str] = ()) -> Iterator[Outcome]:
    """One outcome per check, in order; an exception of the part's own is a failure like another.

    Raises:
        OptionError: ``skip`` names no check.
    """
    names = [check.__name__ for check in checks]
    skip = set(skip)
    if unknown := sorted(skip - set(names)):
        raise OptionError(f"There is no check '{unknown[0]}' to skip. {nearest(unknown[0], names)}")
    return (_outcome(check, case, check.__name__ in skip) for check in checks)


def _outcome(check: Check, case: Any, left_out: bool) -> Outcome:
    name = check.__name__
    if left_out:
        return Outcome(name, "skipped", "as asked")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of a prompt too long: nobody here typed it
            return Outcome(name, "ok", check(case) or "")
    except CheckFailed as failure:
        return Outcome(name, "failed", str(failure))
    except LeftOut as reason:
        return Outcome(name, "skipped", str(reason))
    except Exception as error:  # a stranger's part may raise anything
        return Outcome(name, "failed", f"It raised {where(error)}.")


def demand(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """All outcomes, if none failed.

    Raises:
        CheckFailed: with a paragraph per failure.
    """
    found = list(outcomes)
    if failed := [f"{outcome.check}: {outcome.says}" for outcome in found if outcome.status == "failed"]:
        raise CheckFailed("\n\n".join(failed))
    return found
