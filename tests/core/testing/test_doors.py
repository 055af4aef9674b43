"""The doors to the checks: they raise with all that failed, and refuse options before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import BaseModel, ConfigDict, Field

from referee.contract import Image, Latent, Loss, Prompt
from referee.errors import OptionError
from referee.hooks import Spec
from referee.testing import (
    CheckFailed,
    ToyPrior,
    ToyReferee,
    check_augmentation,
    check_balancer,
    check_prior,
    check_referee,
)

Make = Callable[..., Spec]


class Noisy(ToyReferee):
    def read(self, prompt: Prompt) -> Loss:
        loss = super().read(prompt)
        return lambda views: loss(views) + torch.rand(len(views))


class Dark(ToyPrior):
    def decode(self, z: Latent) -> Image:
        return super().decode(z) - 1


def test_the_doors_raise_with_all_that_failed(spec: Make) -> None:
    with pytest.raises(CheckFailed) as caught:
        check_referee(spec(Noisy), skip=["imports_nothing_heavy"])
    assert "repeats_itself: " in str(caught.value)
    assert "\n\nleaves_global_seeds_alone: " in str(caught.value)
    with pytest.raises(CheckFailed, match="stays_in_range"):
        check_augmentation(spec(lambda: lambda x, g: (x - 0.5) / 0.2), skip=["imports_nothing_heavy"])
    with pytest.raises(CheckFailed, match="order_does_not_matter"):
        check_balancer(
            spec(lambda: lambda rows, weights, pull: next(iter(rows.values()))), skip=["imports_nothing_heavy"]
        )
    with pytest.raises(CheckFailed, match="decodes_images"):
        check_prior(spec(Dark), skip=["imports_nothing_heavy"])


def test_the_doors_take_options_and_refuse_wrong_ones() -> None:
    class Options(BaseModel):
        model_config = ConfigDict(extra="forbid", frozen=True)
        input_size: int = Field(8, description="pixels")

    def look(options: Options) -> None:
        if options.input_size > 100:
            raise OptionError("too large")

    made = Spec("toy", "", lambda o, p: ToyReferee(o.input_size), Options, look)
    found = check_referee(made, {"input_size": 12}, skip=["imports_nothing_heavy", "options_round_trip"])
    assert "views of 12 x 12 pixels" in [outcome.says for outcome in found]
    with pytest.raises(OptionError, match="referee 'toy': there is no 'input_sise'"):
        check_referee(made, {"input_sise": 12})
    with pytest.raises(OptionError, match="too large"):
        check_referee(made, {"input_size": 120})
    with pytest.raises(OptionError, match=r"no check 'cost' to skip\. Did you mean 'costs'"):
        check_referee(made, skip=["cost"])
