"""Checks of a referee: views in, one number per view out, and a gradient that is the number's own slope."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from statistics import median

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from referee.contract import Loss, Losses, Referee, Viewer, Views
from referee.errors import PromptError
from referee.gradients import resize
from referee.prompt import Prompt
from referee.randomness import normal
from referee.testing.case import PLAYED, SHARED, Case, options_can_be_typed
from referee.testing.outcome import Check, CheckFailed, LeftOut
from referee.testing.probe import MOST_PARAMETERS, apart, in_double, mixed, modules_in, parameters, pictures
from referee.testing.toys import ToyPrior

OTHER = Prompt("a blue square and a green star")
CUT = (
    "Usual reasons: .detach(), .item() or .numpy() on the way; torch.no_grad around the image tower; a processor that "
    "goes through PIL (resize and normalise in torch); a hard choice (top-k, argmax, thresholds, non-maximum "
    "suppression) whose indices alone are used."
)


def play(case: Case) -> Sequence[Tensor]:
    """Losses and gradients of two views."""
    return slopes(case, pictures(2, *_square(case), device=case.place.device))


def slopes(case: Case, views: Views, loss: Loss | None = None) -> tuple[Losses, Views]:
    """Losses and their gradients, each view's own."""
    views = views.detach().clone().requires_grad_()
    losses = (loss or case.part.read(case.prompt))(views)
    if not losses.requires_grad:
        raise CheckFailed(f"The loss carries no gradient. {CUT}")
    (gradient,) = torch.autograd.grad(losses.sum(), views, allow_unused=True)
    if gradient is None:
        raise CheckFailed(f"The loss does not depend on the views. {CUT}")
    return losses.detach(), gradient


def _square(case: Case) -> tuple[int, int]:
    return case.part.input_size, case.part.input_size


def _views(case: Case, count: int = 1) -> Views:
    return pictures(count, *_square(case), device=case.place.device)


def keeps_the_contract(case: Case) -> str:
    """It has an ``input_size`` and a ``read``."""
    if not isinstance(case.part, Referee):
        raise CheckFailed(
            f"A {type(case.part).__name__} is no referee: it needs `input_size` (an int, in pixels) and "
            "`read(prompt)`, which returns the loss. See referee.contract.Referee."
        )
    size = case.part.input_size
    if not isinstance(size, int) or size < 1:
        raise CheckFailed(f"Its input_size is {size!r}; it must be a number of pixels, as an int above 0.")
    return f"views of {size} x {size} pixels"


def gives_one_number_per_view(case: Case) -> None:
    """(b, 3, S, S) in, (b,) out."""
    losses = case.part.read(case.prompt)(_views(case, 3))
    if not isinstance(losses, Tensor) or losses.shape != (3,) or not losses.is_floating_point():
        found = f"{losses.dtype} {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise CheckFailed(
            f"For 3 views it gave {found}; expected are 3 floating-point numbers, a tensor of shape (3,). Do not "
            "average over views: reduce all dimensions but the first."
        )


def gradient_reaches_the_pixels(case: Case) -> str:
    """Finite, and not zero, for each view."""
    _, gradient = slopes(case, _views(case, 3))
    if not gradient.isfinite().all():
        raise CheckFailed(
            "The gradient has NaN or infinity in it. Usual reasons: the square root or norm of something that is 0, "
            "the logarithm of a probability that is 0 (use log_softmax, or cross_entropy on logits), float16 that "
            "overflows."
        )
    sizes = gradient.flatten(1).norm(dim=1)
    if not (sizes > 0).all():
        raise CheckFailed(
            f"The gradient of {int((sizes == 0).sum())} in 3 views is exactly 0: nothing would be drawn. {CUT} Or the "
            "loss has reached a floor (a clamp, a hinge) on an ordinary picture."
        )
    return f"{float((gradient != 0).float().mean()):.0%} of the numbers of a view count"


def gradient_is_the_slope(case: Case) -> str:
    """Along five directions, against central differences: in float64 if the model goes there, or else in float32."""
    views = _views(case)
    modules = modules_in(case.part, case.part.read(case.prompt))
    if parameters(modules) <= MOST_PARAMETERS:
        try:
            with in_double(modules):
                if not _off(case, views.double(), step=1e-6, tolerance=0.02):  # small: top-k bends often
                    return "in float64"
        except Exception:  # types that do not mix, autocast: float32 decides
            pass
    if off := _off(case, views, step=1e-2, tolerance=0.1):
        raise CheckFailed(
            f"The gradient is not the slope of the loss: {'; '.join(off)}. A part of the way is cut off or "
            f"straightened. {CUT}"
        )
    return "in float32"


def _off(case: Case, views: Views, *, step: float, tolerance: float) -> list[str]:
    """The directions in which gradient and differences disagree, if they are more than one: one may meet a kink."""
    loss = case.part.read(case.prompt)
    losses, gradient = slopes(case, views, loss)
    if losses.dtype != views.dtype:
        raise TypeError(f"computes in {losses.dtype}")
    off, flat = [], 0
    with torch.no_grad():
        for direction in _directions(gradient):
            up, down = (float(loss(views + sign * step * direction).double().sum()) for sign in (1, -1))
            found, told = (up - down) / (2 * step), float((gradient * direction).double().sum())
            noise = 64 * torch.finfo(views.dtype).eps * max(abs(up), abs(down)) / step
            flat += max(abs(found), abs(told)) < 2 * noise
            if abs(found - told) > tolerance * max(abs(found), abs(told)) + noise:
                off.append(f"{told:.3g} where the loss moves by {found:.3g}")
    if flat == 5:
        raise LeftOut("the loss is too flat here for its slope to be measured")
    return off if len(off) > 1 else []


def _directions(gradient: Tensor) -> Iterator[Tensor]:
    """Along the gradient, two of large patches, two of single pixels; the largest entry is 1."""
    generator = Generator().manual_seed(3)
    yield gradient / gradient.abs().max().clamp_min(1e-30)
    for side in (4, 4, gradient.shape[-1], gradient.shape[-1]):
        signs = torch.randn(1, 3, side, side, generator=generator).sign()
        yield F.interpolate(signs, gradient.shape[-2:], mode="nearest").to(gradient)


def scores_each_view_alone(case: Case) -> None:
    """A view's loss and gradient are the same alone, in company, and in any order."""
    views = mixed(case.part.input_size, device=case.place.device)
    order = torch.tensor([2, 0, 3, 1])
    losses, gradient = slopes(case, views)
    shuffled, _ = slopes(case, views[order])
    singles = [slopes(case, view[None]) for view in views]
    alone = torch.cat([loss for loss, _ in singles])
    most = 1e-4 if case.place.dtype == "float32" else 0.05
    mend = (
        "Memory decides how many views are scored at once, so pictures would depend on memory. Usual reasons: "
        "BatchNorm in training mode (call .eval()), a mean, softmax or normalisation over dimension 0, a padding mask "
        "that is made for another batch size."
    )
    if (worst := float((losses - alone).abs().max() / (1 + losses.abs().max()))) > most:
        raise CheckFailed(f"A view's loss depends on what it is batched with, by {worst:.1g}. {mend}")
    if (worst := float((losses[order] - shuffled).abs().max() / (1 + losses.abs().max()))) > most:
        raise CheckFailed(f"A view's loss depends on the order of the views, by {worst:.1g}. {mend}")
    if (worst := apart(gradient, torch.cat([g for _, g in singles]))) > 100 * most:
        raise CheckFailed(f"A view's gradient depends on what it is batched with, by {worst:.1g} of its size. {mend}")


def keeps_prompts_apart(case: Case) -> None:
    """Reading another prompt changes nothing for the first; reading the same one twice gives the same loss."""
    views = _views(case, 2)
    loss = case.part.read(case.prompt)
    before = loss(views).detach()
    try:
        other = case.part.read(OTHER)
        other(views)
    except PromptError as refusal:
        raise LeftOut(f"it refuses '{OTHER.text}': {refusal}") from refusal
    if apart(loss(views), before) > 1e-5:
        raise CheckFailed(
            "Reading a second prompt changes what it says to the first: the words are kept in the referee itself. "
            "Keep them in the function that `read` returns."
        )
    if apart(case.part.read(case.prompt)(views), before) > 1e-5:
        raise CheckFailed(
            "Read a second time, the same prompt gives another loss. Usual reasons: a tokenizer whose padding or "
            "cutting was changed by the prompt before, a padding mask that is not handed to the text tower, a cache "
            "with a wrong key."
        )


def bears_black_white_and_noise(case: Case) -> str:
    """Loss and gradient stay finite where nothing is to be seen; tells the losses, which should be high there."""
    told = []
    size = case.part.input_size
    noise = torch.rand(3, size, size, generator=Generator().manual_seed(4))
    for name, view in {"black": noise * 0, "white": noise * 0 + 1, "noise": noise, "noisy": noise * 3 - 1}.items():
        losses, gradient = slopes(case, view[None].to(case.place.device))
        if not (losses.isfinite().all() and gradient.isfinite().all()):
            raise CheckFailed(
                f"On a {name} view the loss is {float(losses[0]):.3g}, and its gradient is "
                f"{'finite' if gradient.isfinite().all() else 'not'}. Add a small number below the square root or the "
                "division (a flat view has no deviation); take log_softmax for logarithms; views with added noise "
                "leave [0, 1]."
            )
        told.append(f"{name} {float(losses[0]):.3g}")
    return f"loss on {', '.join(told)}"


def views_whole_pictures(case: Case) -> None:
    """A ``view`` of its own, if it has one: any picture becomes one square view, with a gradient."""
    if not isinstance(case.part, Viewer):
        raise LeftOut("it has no `view` of its own: pictures are resized to its input_size")
    for height, width in ((48, 80), (80, 48)):
        picture = pictures(1, height, width, device=case.place.device).requires_grad_()
        view = case.part.view(picture)
        if view.shape != (1, 3, *_square(case)) or not view.requires_grad or not view.isfinite().all():
            raise CheckFailed(
                f"Of a picture of {height} x {width} pixels its view is "
                f"{tuple(view.shape)}{'' if view.requires_grad else ', without gradient'}; expected is "
                f"{(1, 3, *_square(case))}, finite and differentiable: resize in torch, to the square input_size."
            )


def loss_falls(case: Case) -> str:
    """In 20 steps of plain descent on a latent of the toy prior: no optimiser, no augmentation, nobody else."""
    prior, side = ToyPrior(), max(8, min(64, case.part.input_size) // 2 * 2)
    loss, losses = case.part.read(case.prompt), []
    z = normal([0], 0, "start", prior.latent_shape(side, side)).to(case.place.device)
    for _ in range(20):
        z.requires_grad_()
        found = loss(resize(prior.decode(z), case.part.input_size))
        (gradient,) = torch.autograd.grad(found.sum(), z)
        z = (z - 0.1 * gradient / gradient.square().mean().sqrt().clamp_min(1e-30)).detach()
        losses.append(float(found.detach()))
    if not min(losses[-5:]) < losses[0]:
        raise CheckFailed(
            f"In 20 steps along its gradient the loss went from {losses[0]:.4g} to {losses[-1]:.4g}: lower must be "
            "better, and the gradient must point away from what lowers it. Usual reasons: a score returned as if it "
            "were a loss (take its negative), a sign lost in a backward pass of its own."
        )
    return f"{losses[0]:.4g} -> {losses[-1]:.4g}"


def costs(case: Case) -> str:
    """Time and memory of a view, forward and backward; reported, never failed."""
    count, views = 4, _views(case, 4)
    loss = case.part.read(case.prompt)
    slopes(case, views, loss)  # the first call warms up
    own = {
        t.untyped_storage().data_ptr() for m in modules_in(case.part, loss) for t in (*m.parameters(), *m.buffers())
    }  # fmt: skip
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    times = []
    for _ in range(3):
        start = time.perf_counter()
        slopes(case, views, loss)
        if case.place.device.startswith("cuda"):
            torch.cuda.synchronize(case.place.device)
        times.append(time.perf_counter() - start)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        slopes(case, views, loss)
    each = median(times) / count * 1000
    return f"{each:.2f} ms and {sum(kept.values()) / count / 2**20:.2f} MiB of graph per view, by {count}"


CHECKS: tuple[Check, ...] = (
    *SHARED, options_can_be_typed, keeps_the_contract,
    gives_one_number_per_view, gradient_reaches_the_pixels, gradient_is_the_slope,
    scores_each_view_alone, keeps_prompts_apart, bears_black_white_and_noise, views_whole_pictures, *PLAYED,
    loss_falls, costs,
)  # fmt: skip
