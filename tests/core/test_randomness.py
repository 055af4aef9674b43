"""Draws by name: one generator per (seed, step, role), whatever it is batched with."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from referee.randomness import generator, generators, normal

KNOWN = 687833556481006077
names = st.tuples(st.integers(), st.integers(0, 10_000), st.text(max_size=20))


@given(names)
def test_a_name_is_enough(name: tuple[int, int, str]) -> None:
    assert torch.equal(*(torch.rand(5, generator=generator(*name)) for _ in range(2)))


def test_seed_step_and_role_each_matter() -> None:
    seen = {
        generator(seed, step, role).initial_seed()
        for seed in (-1, 0, 1, 11, 2**70)
        for step in (0, 1, 11)
        for role in ("noise", "start", "view 1", "view 11")
    }
    assert len(seen) == 5 * 3 * 4


def test_a_seed_draws_the_same_from_version_to_version() -> None:
    """If these numbers change, so does every picture that a run.toml promises to repeat."""
    assert generator(7, 3, "noise").initial_seed() == KNOWN
    first, second = generators((7, 8), 3, "noise")
    assert first.initial_seed() == KNOWN != second.initial_seed()


def test_normal_rows_are_each_samples_own() -> None:
    together = normal((3, 9, 4), 5, "noise", (2, 3))
    assert together.shape == (3, 2, 3)
    assert together.dtype == torch.float32
    for row, seed in zip(together, (3, 9, 4), strict=True):
        assert torch.equal(row, torch.randn(2, 3, generator=generator(seed, 5, "noise")))


def test_draws_leave_the_global_generator_alone() -> None:
    before = torch.get_rng_state()
    normal((1, 2), 0, "noise", (4,))
    assert torch.equal(before, torch.get_rng_state())


def test_normal_is_normal() -> None:
    x = normal(range(64), 0, "noise", (256,))
    assert abs(x.mean().item()) < 0.03
    assert abs(x.std().item() - 1) < 0.03
