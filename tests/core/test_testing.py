"""The toys keep the contract that they stand in for."""

from __future__ import annotations

import pytest
import torch

from referee.contract import Augmentation, Prior, Progress, Prompt, Referee, Sampler
from referee.errors import OptionError, PromptError
from referee.randomness import generators
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee


def test_toys_are_parts() -> None:
    assert isinstance(ToyReferee(), Referee)
    assert isinstance(ToyPrior(), Prior)
    assert isinstance(ToyPrior(), Sampler)
    assert isinstance(ToyAugmentation(), Augmentation)
    assert not isinstance(ToyReferee(), Prior)


def test_prior_decodes_what_it_encodes() -> None:
    prior = ToyPrior()
    assert prior.latent_shape(16, 24) == (3, 8, 12)
    z = torch.full((2, 3, 4, 4), 0.7)
    torch.testing.assert_close(prior.encode(prior.decode(z)), z)
    with pytest.raises(OptionError, match="both must be even"):
        prior.latent_shape(15, 16)


def test_pull_is_each_samples_own_and_points_away_from_grey() -> None:
    pull = ToyPrior(2.0).read(Prompt("red"))
    z = torch.ones(2, 3, 2, 2)
    both = pull(z, Progress(0, 1), generators((1, 2), 0, "prior"))
    assert torch.equal(both[1:], pull(z[1:], Progress(0, 1), generators((2,), 0, "prior")))
    assert (both.mean() - 2.0).abs() < 0.3


def test_referee_likes_the_first_colour_named() -> None:
    red = torch.tensor([1.0, 0, 0])[None, :, None, None].expand(1, 3, 8, 8)
    assert ToyReferee().read(Prompt("a Red thing on green"))(red).tolist() == [0]
    assert ToyReferee().read(Prompt("green"))(red).item() == pytest.approx(2 / 3)
    with pytest.raises(PromptError, match="finds none of red, green, blue, white in 'mauve'"):
        ToyReferee().read(Prompt("mauve"))


def test_views_are_each_samples_own() -> None:
    x = torch.zeros(2, 3, 4, 4)
    both = ToyAugmentation()(x, generators((1, 2), 0, "view"))
    assert torch.equal(both[1:], ToyAugmentation()(x[1:], generators((2,), 0, "view")))
    assert not torch.equal(both[0], both[1])


def test_progress() -> None:
    assert [Progress(k, 4).fraction for k in range(4)] == [0, 0.25, 0.5, 0.75]
