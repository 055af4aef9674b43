"""The doors to the checks, one per kind: for a test, and for `referee plugins check NAME`.

Each makes the part once, as a run would, and looks at it from all sides. A check is a small function with a name; its
message says what the failure means and how it is usually mended. Files: `case` has what all kinds share, `referees`,
`priors`, `augmentations`, `balancers`, `zoos`, `converters` and `benches` have the rest.

    >>> from referee.hooks import Spec
    >>> from referee.testing import ToyReferee
    >>> toy = Spec("toy", "likes a colour", lambda options, place: ToyReferee())
    >>> found = check_referee(toy, skip=["imports_nothing_heavy"])
    >>> next(outcome.says for outcome in found if outcome.check == "gives_one_number_per_view"), len(found)
    ('', 19)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from referee.hooks import ConverterSpec, Place, Spec, ZooSpec
from referee.plugins import Kind, Registry
from referee.prompt import Prompt
from referee.testing import augmentations, balancers, benches, converters, priors, referees, zoos
from referee.testing.case import Case
from referee.testing.outcome import Outcome, demand, run

PROMPT = "a red circle"
SIZE = (64, 64)
HERE = Place()
_KINDS: dict[str, Any] = {
    "referee": referees, "prior": priors, "augmentation": augmentations, "balancer": balancers,
}  # fmt: skip


def examine(
    kind: Kind, spec: Spec, options: Mapping[str, object], *, prompt: str = PROMPT, place: Place = HERE,
    size: tuple[int, int] = SIZE, skip: Iterable[str] = (),
) -> Iterator[Outcome]:  # fmt: skip
    """All checks of a part, one after the other; nothing is raised for those that fail.

    Args:
        kind: what the part should be.
        spec: as a plug-in registers it.
        options: as after the colon on the command line.
        prompt: what it reads.
        place: where it computes.
        size: (height, width) in pixels of images, for priors and augmentations.
        skip: names of checks to leave out.

    Raises:
        RefereeError: the options are refused, files are missing, or ``skip`` names no check.
    """
    module = _KINDS[kind]
    return run(module.CHECKS, Case.of(kind, spec, options, prompt, place, size, module.play), skip)


def check_referee(
    spec: Spec, options: Mapping[str, object] | None = None, *, prompt: str = PROMPT, place: Place = HERE,
    skip: Iterable[str] = (),
) -> list[Outcome]:  # fmt: skip
    """All that a referee must keep: gradient, one number per view, batch, prompts, seeds, frozen, falling loss.

    Raises:
        CheckFailed: with what failed, why, and how it is usually mended.
        RefereeError: see `examine`.
    """
    return demand(examine("referee", spec, options or {}, prompt=prompt, place=place, skip=skip))


def check_prior(
    spec: Spec, options: Mapping[str, object] | None = None, *, prompt: str = PROMPT, place: Place = HERE,
    size: tuple[int, int] = SIZE, skip: Iterable[str] = (),
) -> list[Outcome]:  # fmt: skip
    """All that a prior must keep: shapes, range, gradient of the decoder, rows on their own, the pull. Raises as "
    "above."""
    return demand(examine("prior", spec, options or {}, prompt=prompt, place=place, size=size, skip=skip))


def check_augmentation(
    spec: Spec, options: Mapping[str, object] | None = None, *, place: Place = HERE, size: tuple[int, int] = SIZE,
    skip: Iterable[str] = (),
) -> list[Outcome]:  # fmt: skip
    """All that an augmentation must keep: shape, range, gradient, each row from its own generator. Raises as above."""
    return demand(examine("augmentation", spec, options or {}, place=place, size=size, skip=skip))


def check_balancer(
    spec: Spec, options: Mapping[str, object] | None = None, *, place: Place = HERE, skip: Iterable[str] = ()
) -> list[Outcome]:
    """All that a balancer must keep: order, weights, samples on their own, bad rows. Raises as above."""
    return demand(examine("balancer", spec, options or {}, place=place, skip=skip))


def examine_zoo(
    spec: ZooSpec, registry: Registry, *, prompt: str = PROMPT, skip: Iterable[str] = ()
) -> Iterator[Outcome]:
    """All checks of a zoo among the plug-ins of a registry; see `examine`."""
    return run(zoos.CHECKS, zoos.ZooCase(spec, registry, Prompt(prompt)), skip)


def check_zoo(spec: ZooSpec, registry: Registry, *, prompt: str = PROMPT, skip: Iterable[str] = ()) -> list[Outcome]:
    """All that a zoo must keep: whole files, presets that are settings, checkpoints that fit. Raises as above."""
    return demand(examine_zoo(spec, registry, prompt=prompt, skip=skip))


def examine_converter(
    spec: ConverterSpec, options: Mapping[str, object], *, skip: Iterable[str] = ()
) -> Iterator[Outcome]:
    """All checks of a converter, which converts twice into temporary folders.

    Args:
        spec: as a plug-in registers it.
        options: as on the command line of `referee convert`, a source that is there among them.
        skip: names of checks to leave out.

    Raises:
        RefereeError: the options are refused, or ``skip`` names no check.
    """
    desk = TemporaryDirectory(prefix="referee-check-")
    outcomes = run(converters.CHECKS, converters.ConverterCase(spec, options, Path(desk.name)), skip)

    def played() -> Iterator[Outcome]:
        with desk:
            yield from outcomes

    return played()


def check_converter(spec: ConverterSpec, options: Mapping[str, object], *, skip: Iterable[str] = ()) -> list[Outcome]:
    """All that a converter must keep: files of its own, alike each time, nothing else touched. Raises as above."""
    return demand(examine_converter(spec, options, skip=skip))


def examine_bench(
    spec: Spec, registry: Registry, options: Mapping[str, object], *, place: Place = HERE, skip: Iterable[str] = ()
) -> Iterator[Outcome]:
    """All checks of a bench, whose methods draw by the plug-ins of a registry; see `examine`."""
    return run(benches.CHECKS, benches.BenchCase(spec, options, registry, place), skip)


def check_bench(
    spec: Spec, registry: Registry, options: Mapping[str, object] | None = None, *, place: Place = HERE,
    skip: Iterable[str] = (),
) -> list[Outcome]:  # fmt: skip
    """All that a bench must keep: items with a place each, methods that are settings, its columns. Raises as above."""
    return demand(examine_bench(spec, registry, options or {}, place=place, skip=skip))
