"""Training the judge: its own architecture, seed and scenes, held-out combinations included, and mis-drawn shapes."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors.torch import save_file
from torch import Generator, Tensor

from referee_pocket import world
from referee_pocket.judge import NONE, SIZES, STRIDE, THRESHOLD, Detector, detections, verdict
from referee_pocket.train.blip2 import recoded
from referee_pocket.train.loop import DEVICE, fit, generator
from referee_pocket.words import Wanted

STEPS = 2600
BATCH = 24
WOBBLY, FAKE = 24, 24
"""Shapes a batch adds to the atlas: true ones a little bent, and ones that are none."""


def bent(distances: Tensor, amount: float, draw: Generator) -> Tensor:
    """Signed distances displaced by smooth noise; ``amount`` in units of a thing's radius."""
    n, size = len(distances), distances.shape[-1]
    shift = F.interpolate(2 * torch.rand(n, 2, 5, 5, generator=draw) - 1, (size, size), mode="bicubic").permute(
        0, 2, 3, 1
    )
    grid = F.affine_grid(torch.eye(2, 3).expand(n, 2, 3), [n, 1, size, size], align_corners=False)
    return F.grid_sample(
        distances[:, None], grid + amount / world.ATLAS_EXTENT * shift, padding_mode="border", align_corners=False
    )[:, 0]


def atlas(draw: Generator) -> tuple[Tensor, Tensor]:
    """The world's shapes, bent ones and fakes, (56, 80, 80), and what the judge should call each."""
    true = F.avg_pool2d(world.shape_atlas()[None], 2)[0]
    size = true.shape[-1]
    names = torch.randint(8, (WOBBLY,), generator=draw)
    other = (names + torch.randint(1, 8, (WOBBLY,), generator=draw)) % 8
    share = 0.12 * torch.rand(WOBBLY, 1, 1, generator=draw)
    wobbly = bent((1 - share) * true[names] + share * true[other], 0.10, draw)
    a = torch.randint(8, (FAKE,), generator=draw)
    b = (a + torch.randint(1, 8, (FAKE,), generator=draw)) % 8
    share = 0.38 + 0.24 * torch.rand(FAKE, 1, 1, generator=draw)
    mixed = (1 - share) * true[a] + share * true[b]
    axis = ((torch.arange(size) + 0.5) / size * 2 - 1) * world.ATLAS_EXTENT
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn = 2 * math.pi * torch.rand(FAKE, 1, 1, generator=draw)
    cut = torch.maximum(true[a], x * turn.cos() + y * turn.sin() - 0.1 + 0.25 * torch.rand(FAKE, 1, 1, generator=draw))
    angle, wave = torch.atan2(y, x), torch.zeros(FAKE, size, size)
    for k in range(2, 6):
        phase = 2 * math.pi * torch.rand(FAKE, 1, 1, generator=draw)
        wave += (0.08 + 0.14 * torch.rand(FAKE, 1, 1, generator=draw)) * torch.cos(k * angle + phase)
    blob = torch.hypot(x, y) - 0.75 - wave
    kinds = torch.arange(FAKE) % 3
    fakes = bent(torch.stack([mixed, cut, blob])[kinds, torch.arange(FAKE)], 0.08, draw)
    labels = torch.cat([torch.arange(8), names, torch.full((FAKE,), NONE)])
    return torch.cat([true, wobbly, fakes]), labels


def draw_batch(n: int, draw: Generator) -> tuple[world.Scenes, Tensor, Tensor]:
    """Scenes, their pictures, and the judge's name of each thing's shape."""
    scenes = world.sample(n, draw, with_held_out=True)
    shapes, labels = atlas(draw)
    roll = torch.rand(n, 3, generator=draw)
    wobbly = torch.randint(WOBBLY, (n, 3), generator=draw)
    fake = torch.randint(FAKE, (n, 3), generator=draw)
    index = torch.where(roll < 0.35, scenes.shape, 8 + wobbly)
    index = torch.where(roll > 0.80, 8 + WOBBLY + fake, index)
    scenes.shape = index
    return scenes, world.render(scenes, shapes), labels[index]


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
    vae = AutoencoderTiny.from_pretrained(out / "prior" / "vae", torch_dtype=torch.float32).to(DEVICE)

    def step_loss(step: int, draw: Generator) -> Tensor:
        scenes, x, shape = draw_batch(BATCH, draw)
        x = x.to(DEVICE)
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
    fakes, x, shape = draw_batch(n, draw)
    seen = detections(detector(recoded(vae, x, draw)))
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
