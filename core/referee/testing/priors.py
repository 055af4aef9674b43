"""Checks of a prior: a latent space that decodes with a gradient and encodes, and a pull that is each row's own."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from torch import Tensor

from referee.contract import Encoder, FewStep, Image, Latent, Prior, Progress
from referee.errors import OptionError
from referee.randomness import generators, normal
from referee.testing.case import PLAYED, SHARED, Case
from referee.testing.outcome import Check, CheckFailed, LeftOut
from referee.testing.probe import apart, pictures

MIDDLE = Progress(5, 10)
SEEDS = (0, 1, 2)


def play(case: Case) -> Sequence[Tensor]:
    """Image, its gradient, the image's latent, and the pull."""
    z = _latents(case)
    x, gradient = _decoded(case, z)
    encoded = [case.part.encode(x)] if _encodes(case) else []
    return x, gradient, *encoded, case.part.read(case.prompt)(z, MIDDLE, generators(SEEDS, 5, "prior"))


def _encodes(case: Case) -> bool:
    return isinstance(case.part, Encoder)


def _latents(case: Case) -> Latent:
    return normal(SEEDS, 0, "start", case.part.latent_shape(*case.size)).to(case.place.device)


def _decoded(case: Case, z: Latent) -> tuple[Image, Latent]:
    """The images, and the gradients of a weighted sum of their pixels; each row's own."""
    z = z.detach().clone().requires_grad_()
    x = case.part.decode(z)
    if not x.requires_grad:
        raise CheckFailed(
            "The decoded image carries no gradient, and no referee can move the latent. Usual reasons: torch.no_grad "
            "or inference_mode around the decoder, .detach() or .numpy() on the way, a post-processor through PIL."
        )
    weights = pictures(1, *x.shape[-2:], seed=9).to(x) - 0.5
    (gradient,) = torch.autograd.grad((x * weights).sum(), z)
    return x.detach(), gradient


def keeps_the_contract(case: Case) -> None:
    """It has ``latent_shape``, ``decode`` and ``read``."""
    if not isinstance(case.part, Prior):
        raise CheckFailed(
            f"A {type(case.part).__name__} is no prior: it needs latent_shape(height, width), decode(z) and "
            f"read(prompt). See referee.contract.Prior."
        )


def latent_shape_fits(case: Case) -> str:
    """Three positive numbers for a size that it takes; OptionError for one that it does not."""
    shape = case.part.latent_shape(*case.size)
    if not (isinstance(shape, tuple) and len(shape) == 3 and all(isinstance(n, int) and n > 0 for n in shape)):
        raise CheckFailed(f"latent_shape{case.size} is {shape!r}; expected are three ints above 0, (c, h, w).")
    for height, width in ((case.size[0] + 1, case.size[1] + 3), (0, 0), (1, 1)):
        try:
            odd = case.part.latent_shape(height, width)
            decoded = case.part.decode(torch.zeros(1, *odd, device=case.place.device))
        except OptionError:
            continue
        except Exception as error:
            raise CheckFailed(
                f"A size that it cannot draw, {height} x {width}, ends in {type(error).__name__}: {error}. Raise an "
                "OptionError in latent_shape that names the nearest sizes: it is asked before anything is drawn."
            ) from error
        if decoded.shape[-2:] != (height, width):
            raise CheckFailed(
                f"It takes the size {height} x {width} and draws {tuple(decoded.shape[-2:])}. Raise an OptionError in "
                f"latent_shape that names the nearest sizes."
            )
    return f"{case.size[0]} x {case.size[1]} pixels are {shape}"


def decodes_images(case: Case) -> None:
    """(n, 3, H, W) in [0, 1], of z's type, also far from the middle of the latent space."""
    z = _latents(case)
    for scale in (0, 1, 5):
        x = case.part.decode(scale * z)
        if x.shape != (len(z), 3, *case.size) or x.dtype != z.dtype:
            raise CheckFailed(
                f"It decodes to {x.dtype} {tuple(x.shape)}; expected is {z.dtype} {(len(z), 3, *case.size)}: RGB at "
                "the size that was asked for, in the latent's own type."
            )
        if not x.isfinite().all() or x.min() < -1e-4 or x.max() > 1 + 1e-4:
            raise CheckFailed(
                f"At {scale} times an ordinary latent it decodes to values from {float(x.min()):.3g} to "
                f"{float(x.max()):.3g}; expected is [0, 1]. Undo the decoder's own range (x / 2 + 0.5), then clamp; a "
                "clamp whose gradient dies at saturated pixels keeps them saturated."
            )


def decode_has_a_gradient(case: Case) -> None:
    """Finite and not zero, for each row of z."""
    _, gradient = _decoded(case, _latents(case))
    if not gradient.isfinite().all() or not (gradient.flatten(1).norm(dim=1) > 0).all():
        raise CheckFailed(
            "The gradient from the image to the latent is zero or not finite for a row of z. Usual reasons: a decoder "
            "in float16 that overflows (upcast it), rounding to 8 bits, a clamp on an image that lies outside [0, 1]."
        )


def encodes_latents(case: Case) -> str:
    """Images give latents of the shape that ``latent_shape`` says, finite, and no others at a second call."""
    if not _encodes(case):
        raise LeftOut("it has no encode(x): its runs cannot begin with a picture (--init)")
    x = pictures(2, *case.size, device=case.place.device)
    z = case.part.encode(x)
    shape = (2, *case.part.latent_shape(*case.size))
    if z.shape != shape or not z.isfinite().all():
        raise CheckFailed(f"An image is encoded to {tuple(z.shape)}, expected is {shape}, all finite.")
    if apart(case.part.encode(x), z) > 1e-5:
        raise CheckFailed("The same image gives another latent at a second call: take the mean, do not sample.")
    return f"deviation {float(z.std()):.2f}; z starts with 1"


def denoises_with_a_gradient(case: Case) -> str:
    """Noise gives latents of its shape, finite, each row on its own, the same again, with a gradient on the noise."""
    if not isinstance(case.part, FewStep):
        raise LeftOut("it has no denoiser(prompt, steps): its noise cannot be optimised")
    for steps in (1, 2):
        denoise, noise = case.part.denoiser(case.prompt, steps), _latents(case).requires_grad_()
        z = denoise(noise)
        if z.shape != noise.shape or z.dtype != noise.dtype or not z.isfinite().all():
            raise CheckFailed(
                f"In {steps} steps it makes {z.dtype} {tuple(z.shape)} of noise; expected is {noise.dtype} "
                f"{tuple(noise.shape)}, all finite."
            )
        lengths = torch.autograd.grad(z.square().sum(), noise)[0].flatten(1).norm(dim=1) if z.requires_grad else None
        if lengths is None or not (lengths > 0).all():
            raise CheckFailed("Denoised latents carry no gradient to the noise: no torch.no_grad() in a denoiser.")
        with torch.no_grad():
            if apart(denoise(noise), z) > 1e-5:
                raise CheckFailed("The same noise gives other latents at a second call: a denoiser draws nothing.")
            if (difference := apart(denoise(noise[:1]), z[:1])) > 0.01:
                raise CheckFailed(f"Denoised latents of a row depend on its batch, by {difference:.1g} of their size.")
    return "in 1 and in 2 steps"


def rows_stand_alone(case: Case) -> None:
    """A row's image, latent and pull do not depend on its batch, nor on another row's generator."""
    z, pull_of = _latents(case), case.part.read(case.prompt)
    x, gradient = _decoded(case, z)
    pull = pull_of(z, MIDDLE, generators(SEEDS, 5, "prior"))
    mend = (
        "The same seed must draw the same picture in any batch. Usual reasons: BatchNorm in training mode (call "
        ".eval()), one draw for the whole batch, one noise level for all rows: row i draws from generators[i] alone."
    )
    for i, seed in enumerate(SEEDS):
        own, own_gradient = _decoded(case, z[i : i + 1])
        alone = {
            "image": (own, x[i : i + 1]),
            "decoder's gradient": (own_gradient, gradient[i : i + 1]),
            "pull": (pull_of(z[i : i + 1], MIDDLE, generators([seed], 5, "prior")), pull[i : i + 1]),
        }
        if _encodes(case):
            alone["latent"] = (case.part.encode(own), case.part.encode(x)[i : i + 1])
        for name, (single, batched) in alone.items():
            if (difference := apart(single, batched)) > 0.01:
                raise CheckFailed(f"The {name} of a row depends on its batch, by {difference:.1g} of its size. {mend}")


def pull_is_a_detached_gradient(case: Case) -> None:
    """Of z's shape, finite, without graph, from the first step to the last; z stays as it is."""
    z, pull_of = _latents(case), case.part.read(case.prompt)
    before = z.clone()
    for k in (0, 5, 9):
        pull = pull_of(z, Progress(k, 10), generators(SEEDS, k, "prior"))
        if pull.shape != z.shape:
            raise CheckFailed(f"The pull has the shape {tuple(pull.shape)}; expected is {tuple(z.shape)}, that of z.")
        if pull.requires_grad:
            raise CheckFailed("The pull carries a graph: it is a gradient already. Compute it under torch.no_grad().")
        if not pull.isfinite().all():
            raise CheckFailed(
                f"At step {k} of 10 the pull is not finite. Usual reasons: a noise level of exactly 0 or 1, float16 "
                "that overflows."
            )
    if not torch.equal(z, before):
        raise CheckFailed("The pull changes z in place: work on a copy.")


def costs(case: Case) -> str:
    """Time of a decoding with its gradient, and of a pull, per row; reported, never failed."""
    z, pull_of = _latents(case), case.part.read(case.prompt)
    start = time.perf_counter()
    _decoded(case, z)
    middle = time.perf_counter()
    pull_of(z, MIDDLE, generators(SEEDS, 5, "prior")).cpu()
    end = time.perf_counter()
    return (
        f"{(middle - start) / len(z) * 1000:.1f} ms to decode and back, {(end - middle) / len(z) * 1000:.1f} ms to pull"
    )


CHECKS: tuple[Check, ...] = (
    *SHARED, keeps_the_contract, latent_shape_fits, decodes_images, decode_has_a_gradient, encodes_latents,
    denoises_with_a_gradient, rows_stand_alone, pull_is_a_detached_gradient, *PLAYED, costs,
)  # fmt: skip
