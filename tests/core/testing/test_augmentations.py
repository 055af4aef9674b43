"""Every check of an augmentation can fail: one with one fault fails the check that looks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from referee.contract import Image, Views
from referee.hooks import Spec
from referee.testing import (
    Outcome,
)

Outcomes = Callable[..., dict[str, Outcome]]
Make = Callable[..., Spec]


def each(function: Callable[[Image, Sequence[Generator]], Views]) -> Callable[[], Any]:
    return lambda: function


def drawn(x: Image, generator: Generator) -> Tensor:
    return torch.randn(x.shape, generator=generator)


AUGMENTATIONS: dict[str, tuple[str, str, Callable[[], Any]]] = {
    "not callable": ("keeps_the_contract", "is no augmentation", object),
    "resized": ("keeps_shape_and_type", "of the same size", each(lambda x, g: x[..., :32, :32])),
    "type": ("keeps_shape_and_type", "same size, type", each(lambda x, g: x.double())),
    "in place": (
        "keeps_shape_and_type",
        "changes the image in place",
        each(lambda x, g: x.mul_(0.5) if not x.requires_grad else x * 0.5),
    ),
    "normalised": ("stays_in_range", "Normalising is the referee's own business", each(lambda x, g: (x - 0.5) / 0.2)),
    "nan": ("stays_in_range", "NaN", each(lambda x, g: x / 0 - x / 0)),
    "one generator": ("row_draws_from_its_own_generator", "batched with", each(lambda x, g: x + drawn(x, g[0]))),
    "batch": ("row_draws_from_its_own_generator", "batched with", each(lambda x, g: x - x.mean(0))),
    "threshold": ("gradient_reaches_the_image", "zero or not finite", each(lambda x, g: x.round())),
    "detached": ("gradient_reaches_the_image", "carry no gradient", each(lambda x, g: x.detach() * 1)),
    "no repetition": ("repeats_itself", "Two calls", each(lambda x, g: x + torch.randn(x.shape))),
    "global draw": ("leaves_global_seeds_alone", "It draws", each(lambda x, g: x + torch.randn(x.shape))),
}


@pytest.mark.parametrize("fault", AUGMENTATIONS)
def test_an_augmentation_with_a_fault_is_caught(fault: str, spec: Make, outcomes: Outcomes) -> None:
    check, says, make = AUGMENTATIONS[fault]
    found = outcomes("augmentation", spec(make))[check]
    assert found.status == "failed", found
    with pytest.raises(AssertionError, match=says):
        raise AssertionError(found.says)
