"""Half precision: what autocast is asked for, and what is refused."""

from __future__ import annotations

import warnings

import pytest
import torch

from referee.errors import OptionError
from referee.hooks import Place
from referee.precision import HALVES, autocast, computes


@pytest.mark.parametrize("name", HALVES)
def test_products_are_cast_and_sums_are_not(name: str) -> None:
    cast, layer, stream = autocast(Place(dtype=name), "it"), torch.nn.Linear(2, 2), torch.ones(1, 2)
    with cast():
        product = layer(stream)
        assert product.dtype == (HALVES[name] or torch.float32)
        assert (stream + product).dtype == torch.float32
    assert layer(stream).dtype == torch.float32
    with cast():  # as often as one likes
        assert layer(stream).dtype == product.dtype


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(OptionError, match="it computes in float32, bfloat16, float16, not in 'float8'"):
        autocast(Place(dtype="float8"), "it")


def test_a_type_that_the_device_lacks_is_found_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert computes("cpu", torch.bfloat16)
        assert not computes("cpu", torch.float64)  # no CPU casts to it: torch would warn and go on in float32


def test_a_type_that_the_device_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(HALVES, "float64", torch.float64)
    with pytest.raises(OptionError, match=r"it: the device cpu does not compute in float64\. Say --dtype float32"):
        autocast(Place(dtype="float64"), "it")
