"""Every check of a balancer can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from referee import balance
from referee.hooks import Spec
from referee.testing import (
    Outcome,
)

Outcomes = Callable[..., dict[str, Outcome]]
Make = Callable[..., Spec]


Rows = Mapping[str, Tensor]


def weighted(rows: Rows, weights: Rows) -> Tensor:
    return torch.stack([weights[name][:, None, None, None] * g for name, g in rows.items()]).sum(0)


def first(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return next(iter(rows.values())) * 1


def batch_length(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    push = balance.mean_direction(rows, weights)
    return push / push.norm()


def unweighted(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return balance.norm(rows, {name: torch.ones(len(g)) for name, g in rows.items()}, pull)


def shouting(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    return weighted(rows, weights)


def unguarded(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    push = weighted({n: torch.where(g.isfinite(), g, 0.0) for n, g in rows.items()}, weights)
    return push / push.flatten(1).norm(dim=1)[:, None, None, None]


def consuming(rows: Rows, weights: Rows, pull: Tensor | None) -> Tensor:
    for g in rows.values():
        g.mul_(2)
    return balance.norm(rows, weights, pull)


BALANCERS: dict[str, tuple[str, str, Any]] = {
    "not callable": ("keeps_the_contract", "is no balancer", 3),
    "shape": ("keeps_the_contract", "The push has the shape", lambda rows, w, p: next(iter(rows.values()))[:1]),
    "in place": ("keeps_the_contract", "changes the gradients in place", consuming),
    "infinite": ("keeps_the_contract", "not finite", lambda rows, w, p: first(rows, w, p) / 0),
    "order": ("order_does_not_matter", "Named in another order", first),
    "sign": ("one_referee_is_followed", "cosine of -1.000", lambda rows, w, p: -balance.norm(rows, w, p)),
    "batch": ("samples_stand_alone", "per sample", batch_length),
    "weights": ("weight_0_is_absence", "A referee of weight 0 moves the push", unweighted),
    "nan": ("bears_bad_rows", "NaN gradient of weight 0", shouting),
    "length": ("bears_bad_rows", "all zero make the push not finite", unguarded),
    "global draw": ("leaves_global_seeds_alone", "It draws", lambda r, w, p: shouting(r, w, p) + torch.randn(())),
    "no repetition": ("repeats_itself", "Two calls", lambda r, w, p: shouting(r, w, p) + torch.randn(())),
}


@pytest.mark.parametrize("fault", BALANCERS)
def test_a_balancer_with_a_fault_is_caught(fault: str, spec: Make, outcomes: Outcomes) -> None:
    check, says, rule = BALANCERS[fault]
    found = outcomes("balancer", spec(lambda: rule))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)
