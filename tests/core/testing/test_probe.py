"""What the checks look with, and the fixtures."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from referee.plugins import Registry
from referee.testing import (
    ToyPrior,
    ToyReferee,
)
from referee.testing.probe import apart, in_double, modules_in, pictures

pytest_plugins = ["referee.testing.fixtures"]


def test_models_are_found_wherever_they_are_held() -> None:
    model = nn.Linear(1, 1)

    class Slotted:
        __slots__ = ("inner",)

        def __init__(self) -> None:
            self.inner = {"deep": [model]}

    assert modules_in(Slotted()) == [model]
    assert modules_in(lambda x: model(x)) == [model]
    assert modules_in(model.forward) == [model]
    assert modules_in(ToyReferee()) == []
    library = nn

    def uses_a_library() -> Any:
        return library

    assert modules_in(uses_a_library) == []  # its imports are not its own


def test_models_come_back_from_double_with_the_same_numbers() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with in_double([model]):
        assert model[0].weight.dtype == torch.float64
        assert model.eval()(torch.zeros(2, 3).double()).dtype == torch.float64
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[0].weight.dtype == torch.float32


def test_pictures_are_pictures() -> None:
    x = pictures(2, 16, 24)
    assert x.shape == (2, 3, 16, 24)
    assert x.min() >= 0.05
    assert x.max() <= 0.95
    assert x.std() > 0.1
    assert torch.equal(x, pictures(2, 16, 24))
    assert apart(x, x) == 0
    assert apart(x, x[:1]) == float("inf")


def test_fixtures(registry: Registry, toy_prior: ToyPrior, toy_image: Tensor) -> None:
    assert registry.plugins == []
    assert toy_prior.encode(toy_image).shape == (1, *toy_prior.latent_shape(64, 64))
