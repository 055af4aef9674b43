"""The pocket VAE: diffusers' AutoencoderTiny, f = 8, 8 channels, 64 px images in 8 x 8 x 8 numbers.

Small autoencoders stall at painting the background. What gets this one going: mean squared error first (an L1 loss is
content with the median), a start in which the encoder learns the principal components of 8 x 8 patches and the
decoder learns to draw from them, whole images (textures keep their phase), and a Kaiming start.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Generator, Tensor, nn

from referee_pocket import world
from referee_pocket.train.loop import DEVICE, fit, generator

CHANNELS = 8
STEPS = 8000
BATCH = 8


def build() -> AutoencoderTiny:
    """An untrained VAE, started so that signals keep their size."""
    vae = AutoencoderTiny(
        latent_channels=CHANNELS,
        encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32),
        num_encoder_blocks=(0, 1, 1, 2),
        num_decoder_blocks=(2, 2, 1, 0),
    )
    for name, module in vae.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
            if name.endswith("conv.4"):  # the last of a residual block: start near the identity
                module.weight.data.mul_(0.1)
    return vae


def principal_components(n: int = 2000) -> tuple[Tensor, Tensor]:
    """(mean, basis) of 8 x 8 patches: (192,), (192, 8), scaled so that codes have unit deviation."""
    patches = F.unfold(_batch(n, generator("vae", "patches")), 8, stride=8).transpose(1, 2).reshape(-1, 192)
    mean = patches.mean(0)
    _, s, v = torch.linalg.svd(patches - mean, full_matrices=False)
    return mean, v[:CHANNELS].T / (s[:CHANNELS] / len(patches) ** 0.5)


def _batch(n: int, draw: Generator) -> Tensor:
    """Images in [-1, 1]."""
    return world.render(world.sample(n, draw)) * 2 - 1


def reconstruction_loss(y: Tensor, x: Tensor, sharp: float) -> Tensor:
    """4 * MSE + L1 of pooled images + ``sharp`` * (L1 + L1 of differences), in [-1, 1] units."""
    loss = 4 * F.mse_loss(y, x)
    for k in (2, 4, 8):
        loss = loss + 0.3 * F.l1_loss(F.avg_pool2d(y, k), F.avg_pool2d(x, k))
    if sharp:
        edges = (y.diff(dim=-1) - x.diff(dim=-1)).abs().mean() + (y.diff(dim=-2) - x.diff(dim=-2)).abs().mean()
        loss = loss + sharp * (F.l1_loss(y, x) + 0.5 * edges)
    return loss


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save to ``out/vae``; returns the measures on held-out scenes."""
    torch.manual_seed(0)
    vae = build()
    mean, basis = (t.to(DEVICE) for t in principal_components())

    def loss(step: int, draw: Generator) -> Tensor:
        x = _batch(BATCH, draw).to(DEVICE)
        noise = torch.randn(BATCH, CHANNELS, 8, 8, generator=draw).to(DEVICE)
        progress = step / STEPS
        if progress < 0.1:
            patches = F.unfold(x, 8, stride=8).transpose(1, 2)
            code = ((patches - mean) @ basis).transpose(1, 2).reshape(BATCH, CHANNELS, 8, 8)
            drawn = vae.decoder(code + 0.1 * noise)
            return F.mse_loss(vae.encoder(x), code) + reconstruction_loss(drawn, x, 0.0)
        z = vae.encoder(x)
        spread: Tensor = (z.std() - 1).square() + 0.1 * z.mean().square()
        drawn = reconstruction_loss(vae.decoder(z + 0.07 * noise), x, 0.3 * min(1.0, progress * 2))
        return drawn + 0.1 * spread

    fit("vae", vae, loss, steps=STEPS, lr=2e-3, work=work, weight_decay=0.0)
    return finish(vae, out)


@torch.no_grad()
def finish(vae: AutoencoderTiny, out: Path) -> dict[str, float]:
    """Set the scale at which z has deviation 1, save, and measure on scenes that training never showed."""
    vae.half().float()  # measured as it is stored
    draw = generator("vae", "test")
    x = world.render(world.sample(512, draw, with_held_out=True)).to(DEVICE)
    z = torch.cat([vae.encoder(part * 2 - 1) for part in x.split(64)])
    vae.register_to_config(scaling_factor=round(1 / z.std().item(), 4))
    y = torch.cat([(vae.decoder(part) / 2 + 0.5).clamp(0, 1) for part in z.split(64)])
    psnr = -10 * (x - y).square().mean().log10()
    per_image = -10 * (x - y).square().mean((1, 2, 3)).log10()
    save(vae, out / "prior" / "vae")
    return {"psnr_db": psnr.item(), "psnr_db_mean_per_image": per_image.mean().item(), "latent_std": z.std().item()}


def save(vae: AutoencoderTiny, folder: Path) -> None:
    """Save in half precision, without the config entry that diffusers writes and then warns of when it reads it."""
    vae.half().save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config.pop("block_out_channels", None)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
