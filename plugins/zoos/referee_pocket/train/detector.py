"""The pocket OWLv2: transformers' Owlv2ForObjectDetection at small size, taught to find the world's things.

Every patch that a thing covers is told the thing's phrase among all phrases of the batch, wrong ones near the true ones
included, and its box; OWL's set matching, which picks one patch per thing, would leave most of 64 patches untaught.
As for the other vision towers, a head that is thrown away names each patch's shape, colour and texture.
"""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import Generator, Tensor, nn
from transformers import Owlv2Config

from referee_grounding_vqa.detector import Detector
from referee_grounding_vqa.loss import soft_centres
from referee_pocket import world
from referee_pocket.train.blip2 import Cells, pictures
from referee_pocket.train.clip import tokenize
from referee_pocket.train.data import augmented, chance, moved, recoded, trained_vae
from referee_pocket.train.loop import fit, generator
from referee_pocket.train.misdrawn import NONE, bend
from referee_pocket.train.tokens import CONTEXT, clip_tokenizer
from referee_pocket.train.vqa import HALF, near
from referee_pocket.words import SHAPES, Thing

BATCH = 40
STEPS = 500
PATCH = 8


def build() -> Detector:
    """An untrained OWLv2 of about 0.7 M parameters, started with logits that are wide enough to learn from."""
    tokenizer = clip_tokenizer()
    config = Owlv2Config(
        vision_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 4, "num_attention_heads": 4,
            "image_size": world.SIZE, "patch_size": PATCH,
        },
        text_config={
            "hidden_size": 96, "intermediate_size": 288, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT,
            "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        projection_dim=96,
    )  # fmt: skip
    detector = Detector.fresh(config, tokenizer, HALF)
    head = detector.network.class_head
    nn.init.zeros_(detector.network.box_head.dense2.weight)
    for layer in (head.logit_scale, head.logit_shift):
        nn.init.zeros_(layer.weight)
    nn.init.constant_(head.logit_scale.bias, 12.0)
    nn.init.constant_(head.logit_shift.bias, -0.6)
    return detector


class Taught(nn.Module):
    """The model with the head that only training needs."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model
        self.cells = Cells(96)


Query = Thing | int
"""A thing, or a shape's index: that shape in any colour and texture."""


def words(query: Query) -> str:
    """As the detector is asked."""
    return f"a {SHAPES[query]}" if isinstance(query, int) else str(query)


def fits(query: Query, thing: Thing) -> bool:
    """Whether the thing is what is asked for."""
    return thing.shape == query if isinstance(query, int) else thing == query


def queries(things: list[list[Thing]], choose: random.Random) -> list[Query]:
    """What a batch is asked: its things, one near each, and a few bare shapes."""
    found: list[Query] = []
    for row in things:
        for thing in row:
            if thing.shape == NONE:
                continue
            found += [thing, near(thing, [o for o in row if o is not thing and o.shape != NONE], choose)]
    found += [choose.randrange(8) for _ in range(3)]
    return list(dict.fromkeys(found))


def detection_loss(
    model: Detector, grid: Tensor, masks: Tensor, things: list[list[Thing]], asked: list[Query]
) -> Tensor:
    """Binary cross entropies of every patch and phrase, a choice among the phrases at covered patches, and boxes.

    Args:
        grid: features (n, 8, 8, d).
        masks: (n, 3, 64, 64), where each thing lies.
        things: what lies there; shape `NONE` fits no phrase.
        asked: the phrases.
    """
    device = grid.device
    ids = tokenize(model.tokenizer, [words(query) for query in asked]).to(device)
    logits, boxes = model.heads(grid, model.embed(ids))
    share = F.avg_pool2d(masks, PATCH).flatten(2)  # (n, 3, 64)
    most, slot = share.max(1)
    fit_ = torch.zeros(len(things), world.SLOTS, len(asked), dtype=torch.bool)
    for i, row in enumerate(things):
        for j, thing in enumerate(row):
            fit_[i, j] = torch.tensor([fits(query, thing) for query in asked])
    rows = torch.arange(len(things))[:, None]
    target = (fit_[rows, slot] & (most > 0.35)[..., None]).float().to(device)  # (n, 64, k)
    sure = ((most > 0.35) | (most < 0.1)).to(device)[..., None]
    each = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * sure
    # Focal weights (Lin et al. 2017, arXiv 1708.02002): nearly all pairs of patch and phrase are easy.
    wrong = (target - logits.sigmoid()).abs().detach()
    total = (each * wrong.square()).sum() / target.sum().clamp_min(1) * 4
    inside = target.bool().any(-1)
    chosen = logits[inside].log_softmax(-1)
    total = total - ((chosen * target[inside]).sum(-1) / target[inside].sum(-1)).mean()
    goal = _boxes(masks)[rows, slot].to(device)
    covered = (most > 0.2).to(device)
    return total + 5 * F.l1_loss(boxes[covered], goal[covered])


def _boxes(masks: Tensor) -> Tensor:
    """(n, 3, 4): centre and size of what is seen of each thing, in [0, 1]."""
    parts = []
    for axis in (-2, -1):  # x, then y: seen along the columns, then the rows
        seen = (masks > 0.5).any(axis)
        size = seen.shape[-1]
        index = torch.arange(size)
        low = torch.where(seen, index, size).amin(-1)
        high = torch.where(seen, index + 1, 0).amax(-1)
        parts.append(((low + high) / 2 / size, (high - low).clamp_min(0) / size))
    (x, w), (y, h) = parts
    return torch.stack([x, y, w, h], -1).clamp(0, 1)


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save to ``out/detector``; returns the measures on held-out scenes."""
    torch.manual_seed(12)
    taught = Taught(build())
    model, vae = taught.model, trained_vae(out)

    def loss(step: int, draw: Generator) -> Tensor:
        scenes = world.sample(BATCH, draw)
        drawn = replace(scenes)
        atlas, names = bend(drawn, draw, fakes=0.05)
        x, masks = pictures(drawn, draw, vae if step % 2 else None, atlas)
        things = [
            [replace(thing, shape=int(names[i, j])) for j, thing in enumerate(scenes.things(i))] for i in range(BATCH)
        ]
        grid = model.features(x)
        flat = grid.flatten(1, 2)
        cells = taught.cells.loss(torch.cat([flat[:, :1], flat], 1), scenes, masks)
        return detection_loss(model, grid, masks, things, queries(things, chance(draw))) + 0.3 * cells

    fit("detector", taught, loss, steps=STEPS, lr=1.5e-3, work=work, decay=0.997)
    model.cpu().half().save(out / "detector")
    return measure(Detector.load(out / "detector"), vae.cpu())


@torch.no_grad()
def measure(model: Detector, vae: AutoencoderTiny, n: int = 300) -> dict[str, float]:
    """On held-out two-thing scenes: how far off soft centres are in pixels, and whether relations are right."""
    draw = generator("detector", "test")
    scenes = world.sample(n, draw, with_held_out=True, count=2)
    kept = [i for i in range(n) if scenes.things(i)[0] != scenes.things(i)[1]]
    clean, masks = world.render(scenes), world.cover(scenes)
    coded = recoded(vae, clean, draw)
    state = draw.get_state()
    images = {
        "clean": (clean, masks),
        "recoded": (coded, masks),
        "augmented": (augmented(clean, draw), moved(masks, Generator().set_state(state))),
    }
    result: dict[str, float] = {}
    for kind, (x, places) in images.items():
        grid = model.features(x)
        true = _boxes(places)[:, :2, :2]
        found = torch.cat([_centres(model, grid[i : i + 1], scenes.things(i)) for i in kept])
        true = true[kept]
        error = (found - true).norm(dim=-1) * world.SIZE
        (dx, dy), (fx, fy) = (true[:, 0] - true[:, 1]).T, (found[:, 0] - found[:, 1]).T
        across = dx.abs() > dy.abs()
        right = torch.where(across, dx * fx > 0, dy * fy > 0)
        result[f"{kind}/centre_error_median_px"] = error.median().item()
        result[f"{kind}/centre_error_p90_px"] = error.flatten().quantile(0.9).item()
        result[f"{kind}/relation_right"] = right.float().mean().item()
    return result


def _centres(model: Detector, grid: Tensor, things: list[Thing]) -> Tensor:
    logits, boxes = model.heads(grid, model.queries([str(thing) for thing in things]))
    return soft_centres(logits, boxes, TEMPERATURE)


TEMPERATURE = 0.5
"""The referee's default."""
