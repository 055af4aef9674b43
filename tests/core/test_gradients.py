"""A referee's gradient on the latent against finite differences, whatever the views and however they are portioned."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from referee.contract import Augmentation, Views
from referee.errors import PluginError
from referee.gradients import ViewPlan, referee_gradient, resize
from referee.prompt import Prompt
from referee.randomness import generator
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

SEEDS = (5, 11)
SIDE = 4


def latent() -> Tensor:
    return torch.randn(len(SEEDS), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def curved(views: Views) -> Tensor:
    """A loss that is another at every pixel and bends, so that a transposed or shifted gradient cannot pass."""
    ramp = torch.linspace(-1, 2, views[0].numel(), dtype=views.dtype).view(views.shape[1:])
    return (views * ramp).sum((1, 2, 3)).sin() + views.pow(3).mean((1, 2, 3))


class Shear:
    """Noise, and a mix of neighbours of its own strength for each view."""

    def __call__(self, x: Tensor, generators: list[torch.Generator]) -> Tensor:
        share = torch.stack([torch.rand(1, 1, 1, generator=g) for g in generators]).to(x)
        return ToyAugmentation(0.3)((1 - share) * x + share * x.roll(1, -1).square(), generators)


def by_hand(z: Tensor, loss: Callable[[Tensor], Tensor], size: int, count: int, aug: Augmentation | None) -> Tensor:
    """E_A[L(A(x), y)], summed over the samples: view by view, without any of the module under test."""
    x = ToyPrior().decode(z)
    if size != x.shape[-1]:
        x = F.interpolate(x, (size, size), mode="bilinear", antialias=True, align_corners=False)
    total = torch.zeros((), dtype=z.dtype)
    for i, seed in enumerate(SEEDS):
        for v in range(count):
            view = x[i : i + 1]
            if aug is not None:
                view = aug(view, [generator(seed, 3, f"view {v}")])
            total = total + loss(view)[0] / count
    return total


def differences(f: Callable[[Tensor], Tensor], z: Tensor, step: float = 1e-6) -> Tensor:
    """Central differences, one number of z at a time."""
    flat, g = z.flatten(), torch.zeros(z.numel(), dtype=z.dtype)
    for j in range(z.numel()):
        nudge = torch.zeros_like(flat)
        nudge[j] = step
        g[j] = (f((flat + nudge).view_as(z)) - f((flat - nudge).view_as(z))) / (2 * step)
    return g.view_as(z)


CASES: list[tuple[int, int, int, Augmentation | None]] = [
    (8, 1, 10, None),  # no resize, plain image
    (5, 1, 1, None),  # through a reduction that is no divisor
    (11, 1, 10, None),  # through an enlargement
    (8, 3, 10, Shear()),
    (5, 3, 2, Shear()),  # portions that cut across samples
    (5, 3, 1, ToyAugmentation(0.2)),
]


@pytest.mark.parametrize(("size", "count", "micro_batch", "aug"), CASES)
@pytest.mark.parametrize("loss", [curved, ToyReferee().read(Prompt("green"))], ids=["curved", "toy"])
def test_gradient_is_that_of_finite_differences(
    loss: Callable[[Tensor], Tensor], size: int, count: int, micro_batch: int, aug: Augmentation | None
) -> None:
    z = latent().requires_grad_()
    plan = ViewPlan(SEEDS, 3, count, micro_batch, aug)
    means, g = referee_gradient(loss, size, ToyPrior().decode(z), z, plan, keep_graph=False)

    def total(at: Tensor) -> Tensor:
        return by_hand(at, loss, size, count, aug)

    torch.testing.assert_close(g, differences(total, latent()), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(means.sum().double(), total(latent()), rtol=1e-5, atol=1e-5)


def test_losses_are_each_samples_own_mean() -> None:
    z = latent().requires_grad_()
    plan = ViewPlan(SEEDS, 3, 3, 2, Shear())
    means, _ = referee_gradient(curved, 8, ToyPrior().decode(z), z, plan, keep_graph=False)
    x = ToyPrior().decode(latent())
    for i, seed in enumerate(SEEDS):
        views = torch.cat([Shear()(x[i : i + 1], [generator(seed, 3, f"view {v}")]) for v in range(3)])
        torch.testing.assert_close(means[i].double(), curved(views).mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 6, 100])
def test_micro_batches_change_memory_alone(micro_batch: int) -> None:
    whole, portions = ((latent().requires_grad_(), size) for size in (6, micro_batch))
    (a, g), (b, h) = (
        referee_gradient(
            curved, 5, ToyPrior().decode(z), z, ViewPlan(SEEDS, 3, 3, size, ToyAugmentation()), keep_graph=False
        )
        for z, size in (whole, portions)
    )
    torch.testing.assert_close(a, b)
    torch.testing.assert_close(g, h)


@pytest.mark.parametrize("micro_batch", [1, 2, 4, 5, 6, 100])
def test_no_more_views_than_a_micro_batch_are_scored_at_once(micro_batch: int) -> None:
    seen: list[int] = []

    def counting(views: Views) -> Tensor:
        seen.append(len(views))
        return curved(views)

    z = latent().requires_grad_()
    plan = ViewPlan(SEEDS, 3, 3, micro_batch, ToyAugmentation())
    referee_gradient(counting, 8, ToyPrior().decode(z), z, plan, keep_graph=False)
    assert max(seen) <= micro_batch
    assert sum(seen) == 6


def test_each_view_is_of_its_own() -> None:
    x = torch.zeros(2, 3, 4, 4)
    plan = ViewPlan((5, 5), 0, 3, 10, ToyAugmentation())
    (portion,) = plan.portions()
    views = plan.views(x, portion)
    assert len({tuple(view.flatten().tolist()) for view in views[:3]}) == 3
    assert torch.equal(views[:3], views[3:])  # equal seeds: nothing but seed, step and number decides
    assert not torch.equal(views, ViewPlan((5, 5), 1, 3, 10, ToyAugmentation()).views(x, portion))


def test_the_graph_serves_a_second_referee_only_if_kept() -> None:
    z = latent().requires_grad_()
    x, plan = ToyPrior().decode(z), ViewPlan(SEEDS, 0, 1, 10, None)
    _, first = referee_gradient(curved, 8, x, z, plan, keep_graph=True)
    _, again = referee_gradient(curved, 8, x, z, plan, keep_graph=False)
    assert torch.equal(first, again)
    with pytest.raises(RuntimeError, match="second time"):
        referee_gradient(curved, 8, x, z, plan, keep_graph=False)


def test_no_grad_around_the_call_does_no_harm() -> None:
    z = latent().requires_grad_()
    x, plan = ToyPrior().decode(z), ViewPlan(SEEDS, 0, 1, 10, None)
    _, plain = referee_gradient(curved, 5, x, z, plan, keep_graph=True)
    with torch.no_grad():
        _, inside = referee_gradient(curved, 5, x, z, plan, keep_graph=False)
    assert torch.equal(plain, inside)


WRONG: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "one number": (lambda views: curved(views).mean(), r"shape \(\) for 2 views"),
    "a column": (lambda views: curved(views)[:, None], r"shape \(2, 1\)"),
    "too few": (lambda views: curved(views)[:1], r"shape \(1,\) for 2 views"),
    "no gradient": (lambda views: curved(views).detach(), r"\(2,\) without gradient"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_loss_is_named(wrong: str) -> None:
    loss, text = WRONG[wrong]
    z = latent().requires_grad_()
    x, plan = ToyPrior().decode(z), ViewPlan(SEEDS, 0, 1, 10, None)
    with pytest.raises(PluginError, match=f"'fred' gave a loss of .*{text}.*expected \\(2,\\)"):
        referee_gradient(loss, 8, x, z, plan, keep_graph=False, name="fred")


def test_a_loss_that_does_not_see_the_views_is_named() -> None:
    weight = torch.ones((), requires_grad=True)
    z = latent().requires_grad_()
    x, plan = ToyPrior().decode(z), ViewPlan(SEEDS, 0, 1, 10, None)
    with pytest.raises(PluginError, match="'fred' gave a loss that does not depend on the views"):
        referee_gradient(lambda v: weight * curved(v.detach()), 8, x, z, plan, keep_graph=False, name="fred")


def test_resize_keeps_a_flat_colour_and_the_right_size() -> None:
    x = torch.full((1, 3, 8, 12), 0.3)
    assert resize(x, 5).shape == (1, 3, 5, 5)
    torch.testing.assert_close(resize(x, 5), torch.full((1, 3, 5, 5), 0.3))
    square = torch.rand(1, 3, 5, 5)
    assert resize(square, 5) is square
