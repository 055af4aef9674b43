"""The paper's balancing rule for one referee, and what it keeps of it for many. Each property is one function."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from referee import balance

N, SHAPE = 4, (3, 2, 2)


def draw(seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(N, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(*values: float) -> dict[str, Tensor]:
    return {name: torch.full((N,), value, dtype=torch.float64) for name, value in zip("abcdef", values, strict=False)}


def rows(*seeds: int) -> dict[str, Tensor]:
    return {name: draw(seed, 10.0 ** (seed % 5 - 2)) for name, seed in zip("abcdef", seeds, strict=False)}


def test_one_referee_is_the_papers_rule() -> None:
    g, pull = draw(1, 1e3), draw(2)
    for row in range(N):
        expected = g[row] * pull[row].norm() / g[row].norm()  # Algorithm 1: |g_p| g_r / |g_r|
        for weight in (1.0, 0.1, 7.0):  # alone, it has the whole say
            push = balance.norm({"a": g}, weights(weight), pull)
            torch.testing.assert_close(push[row], expected)


def test_many_referees_are_the_weighted_mean_of_unit_directions() -> None:
    given, shares, pull = rows(1, 2, 3), weights(1.0, 2.0, 0.5), draw(9)
    push = balance.norm(given, shares, pull)
    for row in range(N):
        parts = [w * given[name][row] / given[name][row].norm() for name, w in (("a", 1.0), ("b", 2.0), ("c", 0.5))]
        torch.testing.assert_close(push[row], sum(parts) / 3.5 * pull[row].norm())


def test_weights_are_per_sample() -> None:
    given, pull = rows(1, 2), draw(9)
    shares = {"a": torch.tensor([1.0, 0.0, 1.0, 1.0]), "b": torch.tensor([1.0, 1.0, 0.0, 1.0])}
    push = balance.norm(given, shares, pull)
    torch.testing.assert_close(push[1], balance.norm({"b": given["b"]}, {"b": torch.ones(N)}, pull)[1])
    torch.testing.assert_close(push[2], balance.norm({"a": given["a"]}, weights(1.0), pull)[2])


@pytest.mark.parametrize("order", ["abc", "cab", "bca", "cba"])
def test_the_order_of_referees_does_not_matter(order: str) -> None:
    given, shares, pull = rows(1, 2, 3), weights(1.0, 2.0, 0.5), draw(9)
    turned = balance.norm({name: given[name] for name in order}, {name: shares[name] for name in order}, pull)
    torch.testing.assert_close(turned, balance.norm(given, shares, pull))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_length_of_a_gradient_does_not_matter(scale: float) -> None:
    given, shares, pull = rows(1, 2, 3), weights(1.0, 2.0, 0.5), draw(9)
    scaled = {**given, "b": scale * given["b"]}
    torch.testing.assert_close(balance.norm(scaled, shares, pull), balance.norm(given, shares, pull))
    single = {name: g.float() for name, g in scaled.items()}  # float32, where 1e-30 squared is 0 and 1e30 squared inf
    torch.testing.assert_close(balance.norm(single, shares, pull).double(), balance.norm(given, shares, pull))


def test_the_scale_of_all_weights_does_not_matter() -> None:
    given, pull = rows(1, 2), draw(9)
    torch.testing.assert_close(
        balance.norm(given, weights(0.1, 0.3), pull), balance.norm(given, weights(10.0, 30.0), pull)
    )


def test_opposite_rows_are_a_deadlock() -> None:
    g = draw(1)
    given, shares = {"a": g, "b": -3 * g}, weights(1.0, 1.0)
    assert balance.norm(given, shares, draw(2)).abs().max() < 1e-12
    assert balance.agreement(given, shares).max() < 1e-6


def test_equal_rows_are_unanimous() -> None:
    g, pull = draw(1), draw(2)
    given, shares = {"a": g, "b": 5 * g}, weights(1.0, 3.0)
    torch.testing.assert_close(balance.agreement(given, shares), torch.ones(N))
    torch.testing.assert_close(balance.norm(given, shares, pull), balance.norm({"a": g}, weights(1.0), pull))


@pytest.mark.parametrize("seed", range(20))
def test_the_push_is_agreement_times_the_pull_and_never_longer(seed: int) -> None:
    given, shares, pull = rows(seed, seed + 1, seed + 2), weights(1.0, 0.2, 3.0), draw(seed + 50)
    agreed = balance.agreement(given, shares)
    assert (agreed >= 0).all()
    assert (agreed <= 1 + 1e-6).all()
    length = balance.lengths(balance.norm(given, shares, pull))
    assert (length <= balance.lengths(pull) * (1 + 1e-9)).all()
    torch.testing.assert_close(length, agreed.double() * balance.lengths(pull), rtol=1e-6, atol=1e-9)


def test_without_a_prior_the_push_has_unit_root_mean_square() -> None:
    push = balance.norm({"a": draw(1, 1e4)}, weights(1.0), None)
    torch.testing.assert_close(push.square().mean((1, 2, 3)).sqrt(), torch.ones(N, dtype=torch.float64))


@pytest.mark.parametrize("poison", [torch.nan, torch.inf, -torch.inf])
def test_a_row_with_one_number_that_is_not_finite_gives_no_direction(poison: float) -> None:
    g = draw(1)
    g[2, 0, 1, 1] = poison
    assert balance.usable(g).tolist() == [True, True, False, True]
    unit = balance.directions({"a": g})["a"]
    assert (unit[2] == 0).all()
    torch.testing.assert_close(balance.lengths(unit)[[0, 1, 3]], torch.ones(3, dtype=torch.float64))


def test_a_zero_row_gives_no_direction() -> None:
    g = draw(1)
    g[0] = 0
    assert balance.usable(g).tolist() == [False, True, True, True]
    assert (balance.directions({"a": g})["a"][0] == 0).all()


def test_nobody_left_pushes_nobody() -> None:
    given, shares = {"a": torch.zeros(N, *SHAPE), "b": torch.full((N, *SHAPE), torch.nan)}, weights(0.0, 0.0)
    assert (balance.norm(given, shares, draw(1)) == 0).all()
    assert (balance.agreement(given, shares) == 0).all()
