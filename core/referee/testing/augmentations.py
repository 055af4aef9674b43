"""Checks of an augmentation: one view per row, from the row's own generator, differentiable."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from referee.contract import Augmentation, Image, Views
from referee.randomness import generators
from referee.testing.case import PLAYED, SHARED, Case
from referee.testing.outcome import Check, CheckFailed
from referee.testing.probe import apart, pictures

SEEDS = (3, 4, 5, 6)


def play(case: Case) -> Sequence[Tensor]:
    """Views and the gradients through them."""
    return _viewed(case, _images(case), SEEDS)


def _images(case: Case) -> Image:
    return pictures(len(SEEDS), *case.size, device=case.place.device)


def _viewed(case: Case, x: Image, seeds: Sequence[int]) -> tuple[Views, Image]:
    x = x.detach().clone().requires_grad_()
    views = case.part(x, generators(seeds, 0, "view 0"))
    if not views.requires_grad:
        raise CheckFailed(
            "The views carry no gradient, and no referee can move the image. Usual reasons: a transform through PIL, "
            "numpy or 8-bit numbers, torch.no_grad, .detach()."
        )
    weights = pictures(1, *views.shape[-2:], seed=9).to(views) - 0.5
    (gradient,) = torch.autograd.grad((views * weights).sum(), x)
    return views.detach(), gradient


def keeps_the_contract(case: Case) -> None:
    """It can be called with images and their generators."""
    if not isinstance(case.part, Augmentation):
        raise CheckFailed(
            f"A {type(case.part).__name__} is no augmentation: it needs __call__(x, generators), which returns the "
            "views. See referee.contract.Augmentation."
        )


def keeps_shape_and_type(case: Case) -> None:
    """One view per row, of the image's size and type, at any size; the image itself stays as it is."""
    for height, width in (case.size, (33, 33), (8, 8)):
        x = pictures(2, height, width, device=case.place.device)
        before = x.clone()
        views = case.part(x, generators(SEEDS[:2], 0, "view 0"))
        if views.shape != x.shape or views.dtype != x.dtype or views.device != x.device:
            raise CheckFailed(
                f"Images {x.dtype} {tuple(x.shape)} became views {views.dtype} {tuple(views.shape)} on {views.device}; "
                "expected is one view per row, of the same size, type and device. Every referee asks for its own size."
            )
        if not torch.equal(x, before):
            raise CheckFailed("It changes the image in place: the next referee would see another one. Work on a copy.")


def stays_in_range(case: Case) -> str:
    """In [0, 1], but for added noise."""
    x = pictures(16, *case.size, device=case.place.device)
    views = case.part(x, generators(range(16), 0, "view 0"))
    if not views.isfinite().all():
        raise CheckFailed("Views have NaN or infinity in them. Usual reason: a division or power at a black pixel.")
    low, high = (float(torch.quantile(views.float().flatten()[:1_000_000], q)) for q in (0.01, 0.99))
    if low < -0.5 or high > 1.5:
        raise CheckFailed(
            f"Views lie between {low:.2g} and {high:.2g}; expected is [0, 1], but for some added noise. Normalising is "
            "the referee's own business; clamp after a change of colours."
        )
    return f"98 in 100 values lie in [{low:.2f}, {high:.2f}]"


def row_draws_from_its_own_generator(case: Case) -> None:
    """Row b is made from ``generators[b]`` alone: the same view in any batch and in any order."""
    x = _images(case)
    views, gradient = _viewed(case, x, SEEDS)
    mend = (
        "How many views are made at once depends on memory, so pictures would depend on memory. Draw row b's numbers "
        "from generators[b] alone, always the same count of them, in the same order, whatever they are used for."
    )
    for i, seed in enumerate(SEEDS):
        alone, own = _viewed(case, x[i : i + 1], [seed])
        if (difference := max(apart(alone, views[i : i + 1]), apart(own, gradient[i : i + 1]))) > 1e-4:
            raise CheckFailed(f"A view depends on what it is batched with, by {difference:.1g} of its size. {mend}")
    order = [2, 0, 3, 1]
    shuffled, _ = _viewed(case, x[order], [SEEDS[i] for i in order])
    if (difference := apart(shuffled, views[order])) > 1e-4:
        raise CheckFailed(f"A view depends on the order of the rows, by {difference:.1g} of its size. {mend}")


def gradient_reaches_the_image(case: Case) -> str:
    """Finite, and not zero, for each row."""
    _, gradient = _viewed(case, _images(case), SEEDS)
    if not gradient.isfinite().all() or not (gradient.flatten(1).norm(dim=1) > 0).all():
        raise CheckFailed(
            "The gradient from a view to its image is zero or not finite. Usual reasons: a hard threshold or "
            "rounding, a view that shows nothing of the image, the power or root of a black pixel."
        )
    return f"{float((gradient != 0).float().mean()):.0%} of the numbers of an image count"


CHECKS: tuple[Check, ...] = (
    *SHARED, keeps_the_contract, keeps_shape_and_type, stays_in_range, row_draws_from_its_own_generator,
    gradient_reaches_the_image, *PLAYED,
)  # fmt: skip
