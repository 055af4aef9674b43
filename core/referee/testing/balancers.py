"""Checks of a balancer: one finite direction per sample, that of the referees who play, whoever is named first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Generator, Tensor

from referee.contract import Balancer, Latent
from referee.testing.case import PLAYED, SHARED, Case, options_can_be_typed
from referee.testing.outcome import Check, CheckFailed
from referee.testing.probe import apart

SHAPE = (3, 4, 8, 8)
NAMES = ("a", "b", "c")


def play(case: Case) -> Sequence[Tensor]:
    """The push of three referees, with a prior and without one."""
    rows = _rows(case)
    return _push(case, rows, pull=_pull(rows)), _push(case, rows, pull=None)


def _rows(case: Case) -> dict[str, Latent]:
    """Three gradients that share a direction, so that no rule has to give up."""
    generator = Generator().manual_seed(0)
    common = torch.randn(SHAPE, generator=generator)
    made = {name: common + torch.randn(SHAPE, generator=generator) for name in NAMES}
    return {name: (scale * g).to(case.place.device) for (name, g), scale in zip(made.items(), (1, 3, 0.2), strict=True)}


def _pull(rows: Mapping[str, Latent]) -> Latent:
    """A pull that goes along with the referees."""
    first = next(iter(rows.values()))
    return 0.7 * first + 0.1 * torch.randn(SHAPE, generator=Generator().manual_seed(1)).to(first)


def _push(
    case: Case, rows: Mapping[str, Latent], weights: Mapping[str, Tensor] | None = None, *, pull: Latent | None
) -> Latent:
    ones = {name: torch.ones(len(g), device=g.device) for name, g in rows.items()}
    given = {name: g.clone() for name, g in rows.items()}
    push: Latent = case.part(given, {**ones, **(weights or {})}, pull)
    like = next(iter(rows.values()))
    if push.shape != like.shape:
        raise CheckFailed(f"The push has the shape {tuple(push.shape)}; expected is {tuple(like.shape)}, that of z.")
    if any(not torch.equal(given[name], g) for name, g in rows.items() if g.isfinite().all()):
        raise CheckFailed("It changes the gradients in place: what is reported of them would be wrong. Work on copies.")
    return push


def keeps_the_contract(case: Case) -> None:
    """It can be called with gradients, weights and a pull; with a prior and without one."""
    if not isinstance(case.part, Balancer):
        raise CheckFailed(
            f"A {type(case.part).__name__} is no balancer: it needs __call__(rows, weights, pull), which returns the "
            "push. See referee.contract.Balancer."
        )
    for push in play(case):
        if not push.isfinite().all():
            raise CheckFailed("Of three ordinary gradients it makes a push that is not finite.")


def order_does_not_matter(case: Case) -> None:
    """The push is the same, whoever is named first."""
    rows = _rows(case)
    back = {name: rows[name] for name in reversed(rows)}
    for pull in (None, _pull(rows)):
        if (difference := apart(_push(case, back, pull=pull), _push(case, rows, pull=pull))) > 1e-4:
            raise CheckFailed(
                f"Named in another order, the referees push elsewhere, by {difference:.1g} of the push. Usual reason: "
                "gradients are projected one after the other (project each on the unchanged others), or weights taken "
                "by position."
            )


def one_referee_is_followed(case: Case) -> None:
    """Alone at the table, a referee is pushed along its own gradient."""
    rows = {"a": _rows(case)["a"]}
    for pull in (None, _pull(rows)):
        push = _push(case, rows, pull=pull)
        cosine = torch.cosine_similarity(push.flatten(1), rows["a"].flatten(1))
        if not (cosine > 0.999).all():
            raise CheckFailed(
                f"One referee alone is not followed: the push has a cosine of {float(cosine.min()):.3f} with its "
                "gradient (1 is expected; -1 is a sign: the push is subtracted, as a gradient is)."
            )


def samples_stand_alone(case: Case) -> None:
    """A sample's push does not depend on the others of its batch."""
    rows = _rows(case)
    whole = _push(case, rows, pull=_pull(rows))
    for i in range(SHAPE[0]):
        alone = _push(case, {n: g[i : i + 1] for n, g in rows.items()}, pull=_pull(rows)[i : i + 1])
        if (difference := apart(alone, whole[i : i + 1])) > 1e-4:
            raise CheckFailed(
                f"A sample's push depends on its batch, by {difference:.1g} of its size: the same seed would draw "
                "another picture. Take lengths, cosines and means per sample: flatten(1), never over dimension 0."
            )


def weight_0_is_absence(case: Case) -> None:
    """A referee of weight 0 changes nothing: neither its gradient nor its being there."""
    rows = _rows(case)
    two = {name: rows[name] for name in "ab"}
    off = {"c": torch.zeros(SHAPE[0], device=rows["c"].device)}
    for pull in (None, _pull(rows)):
        if (difference := apart(_push(case, rows, off, pull=pull), _push(case, two, pull=pull))) > 1e-4:
            raise CheckFailed(
                f"A referee of weight 0 moves the push, by {difference:.1g} of its size. Its weight is 0 where it sits "
                "out: leave it out of every sum, count and cosine, for that sample."
            )


def bears_bad_rows(case: Case) -> None:
    """Zero, NaN (with weight 0), opposite, tiny and huge gradients: the push stays finite, other samples unharmed."""
    rows = _rows(case)
    clean = _push(case, rows, pull=_pull(rows))
    off = {"c": torch.ones(SHAPE[0], device=rows["c"].device)}
    off["c"][0] = 0
    for name, value in {"zero": 0.0, "NaN": float("nan"), "infinite": float("inf")}.items():
        bad = {**rows, "c": rows["c"].clone()}
        bad["c"][0] = value
        push = _push(case, bad, off, pull=_pull(rows))
        if not push.isfinite().all():
            raise CheckFailed(
                f"A {name} gradient of weight 0 makes the push not finite. 0 times NaN is NaN: choose with "
                "torch.where, do not multiply; guard divisions by a length (see referee.balance.directions)."
            )
        if apart(push[1:], clean[1:]) > 1e-4:
            raise CheckFailed(f"A {name} gradient in one sample moves the push of the others.")
    a = rows["a"]
    for name, two in {
        "all zero": {"a": a * 0, "b": a * 0},
        "opposite": {"a": a, "b": -a},
        "tiny": {"a": a * 1e-12, "b": rows["b"] * 1e-12},
        "huge": {"a": a * 1e12, "b": rows["b"] * 1e12},
    }.items():
        for pull in (None, _pull(rows)):
            if not _push(case, two, pull=pull).isfinite().all():
                raise CheckFailed(
                    f"Gradients that are {name} make the push not finite: guard divisions by a length or a sum, and "
                    "take lengths in float64 (see referee.balance.lengths)."
                )
    nobody = {name: torch.zeros(SHAPE[0], device=g.device) for name, g in rows.items()}
    if not _push(case, rows, nobody, pull=_pull(rows)).isfinite().all():
        raise CheckFailed("Where all sit out (every weight 0) the push is not finite: it should be 0.")


CHECKS: tuple[Check, ...] = (
    *SHARED, options_can_be_typed, keeps_the_contract,
    order_does_not_matter, one_referee_is_followed, samples_stand_alone,
    weight_0_is_absence, bears_bad_rows, *PLAYED,
)  # fmt: skip
