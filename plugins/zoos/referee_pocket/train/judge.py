"""Training the judge: its own architecture, seed and scenes, held-out combinations included, and mis-drawn shapes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Generator, Tensor

from referee_pocket import world
from referee_pocket.judge import NONE, SIZES, STRIDE, THRESHOLD, Detector, detections, verdict
from referee_pocket.train.data import recoded, trained_vae
from referee_pocket.train.loop import DEVICE, fit, generator
from referee_pocket.train.misdrawn import bend
from referee_pocket.words import Wanted

STEPS = 2600
BATCH = 24


def loss(detector: Detector, x: Tensor, scenes: world.Scenes, shape: Tensor) -> Tensor:
    """Focal heat (CenterNet, eq. 1) and cross entropies in the 3 x 3 cells about each centre."""
    logits = detector(x)
    n, cells = len(x), logits.shape[-1]
    axis = (torch.arange(cells) + 0.5) * STRIDE
    dx = axis - scenes.centre[..., 0, None]
    dy = axis - scenes.centre[..., 1, None]
    distance = dx[:, :, None, :].square() + dy[:, :, :, None].square()
    distance = distance.masked_fill(~scenes.present[:, :, None, None], 1e6)
    nearest, slot = distance.min(1)
    goal = torch.exp(-nearest / (2 * 3.0**2)).to(x.device)
    heat = logits[:, 0]
    peak = (nearest <= distance.flatten(2).amin(2).gather(1, slot.flatten(1)).view_as(nearest)).to(x.device) & (
        goal > 0.5
    )
    p = heat.sigmoid().clamp(1e-4, 1 - 1e-4)
    focal = torch.where(peak, -((1 - p) ** 2) * p.log(), -((1 - goal) ** 4) * p**2 * (1 - p).log())
    total = focal.sum() / peak.sum().clamp_min(1)
    near = (nearest < (1.6 * STRIDE) ** 2).to(x.device)
    parts = logits[:, 1:].movedim(1, -1)[near].split(SIZES[1:], -1)
    for values, labels in zip(parts, (shape, scenes.colour, scenes.texture), strict=True):
        wanted = labels.gather(1, slot.flatten(1)).view(n, cells, cells).to(x.device)[near]
        total = total + F.cross_entropy(values, wanted)
    return total


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save to ``out/judge``; returns the measures on two-thing scenes it never saw."""
    torch.manual_seed(4)
    detector = Detector()
    vae = trained_vae(out)

    def step_loss(step: int, draw: Generator) -> Tensor:
        scenes = world.sample(BATCH, draw, with_held_out=True)
        shapes, shape = bend(scenes, draw)
        x = world.render(scenes, shapes).to(DEVICE)
        third = BATCH // 3
        x = torch.cat([recoded(vae, x[: 2 * third], draw), x[2 * third :]])
        noise = 0.06 * torch.rand(BATCH, 1, 1, 1, generator=draw) * torch.randn(x.shape, generator=draw)
        return loss(detector, x + noise.to(x), scenes, shape)

    fit("judge", detector, step_loss, steps=STEPS, lr=3e-3, work=work, decay=0.995)
    folder = out / "judge"
    folder.mkdir(parents=True, exist_ok=True)
    detector.cpu().half()
    save_file(
        {name: tensor.contiguous() for name, tensor in detector.state_dict().items()}, folder / "model.safetensors"
    )
    (folder / "config.json").write_text(json.dumps({"architecture": "Detector", "threshold": THRESHOLD}) + "\n")
    return measure(detector.float().eval(), vae.cpu())


@torch.no_grad()
def measure(detector: Detector, vae: AutoencoderTiny, n: int = 500) -> dict[str, float]:
    """Share of two-thing scenes in which every attribute of both, or the relation, is seen right; fakes refused."""
    draw = generator("judge", "test")
    scenes = world.sample(n, draw, with_held_out=True, count=2)
    clean = world.render(scenes)
    noisy = vae.decoder(
        vae.encoder(clean * 2 - 1) + 0.3 * torch.randn(n, 8, 8, 8, generator=draw) / vae.config.scaling_factor
    )
    images = {
        "clean": clean,
        "reconstructed": vae.decoder(vae.encoder(clean * 2 - 1)) / 2 + 0.5,
        "noisy_latent": noisy / 2 + 0.5,
    }
    result = {}
    for name, x in images.items():
        seen = detections(detector(x.clamp(0, 1)))
        verdicts = [verdict(found, Wanted(tuple(scenes.things(i)))) for i, found in enumerate(seen)]
        result[f"{name}/binding"] = sum(v.binding for v in verdicts) / n
        result[f"{name}/exact_count"] = sum(v.exact for v in verdicts) / n
    fakes = world.sample(n, draw, with_held_out=True)
    shapes, shape = bend(fakes, draw)
    seen = detections(detector(recoded(vae, world.render(fakes, shapes), draw)))
    counted = refused = 0
    for i, found in enumerate(seen):
        for slot in range(int(fakes.count[i])):
            if shape[i, slot] == NONE and found:
                cx, cy = fakes.centre[i, slot].tolist()
                nearest = min(found, key=lambda f: (f.x - cx) ** 2 + (f.y - cy) ** 2)
                counted += 1
                refused += nearest.thing.shape == NONE
    result["refuses_misdrawn"] = refused / counted
    return result
