"""One training loop for all of the zoo's models: AdamW, one cycle, averaged weights; stops and goes on anywhere.

Each step draws its data from a generator seeded by (stage, step), so a resumed training sees what an unbroken one sees.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Generator, Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

SAVE_EVERY = 60.0
"""Seconds between checkpoints."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def generator(*names: object) -> Generator:
    """A CPU generator seeded by names and numbers."""
    return Generator().manual_seed(zlib.crc32(repr(names).encode()))


def fit(
    stage: str,
    model: nn.Module,
    loss: Callable[[int, Generator], Tensor],
    *,
    steps: int,
    lr: float,
    work: Path,
    decay: float = 0.999,
    weight_decay: float = 0.01,
    warm: float = 0.05,
) -> None:
    """Train in place; on return the model holds the exponential average of its weights.

    Args:
        stage: names the checkpoint ``work/stage.pt``; a finished stage is only loaded.
        loss: (step, generator of that step) -> scalar.
        lr: highest learning rate, reached after the share ``warm`` of the steps, then a cosine to 0.
        decay: of the average of the weights.
    """
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"{stage}.pt"
    model.to(DEVICE).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
    trained = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.AdamW(trained, lr=lr, betas=(0.9, 0.98), weight_decay=weight_decay)
    cycle = torch.optim.lr_scheduler.OneCycleLR(adam, lr, total_steps=steps + 1, pct_start=warm, cycle_momentum=False)
    parts: dict[str, nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler] = {
        "model": model, "average": average, "adam": adam, "cycle": cycle,
    }  # fmt: skip
    start = 0
    if path.exists():
        saved = torch.load(path, weights_only=True, map_location=DEVICE)
        start = saved["step"]
        for name, part in parts.items():
            part.load_state_dict(saved[name])

    def save(step: int) -> None:
        temporary = path.with_suffix(".tmp")
        torch.save({"step": step, **{name: part.state_dict() for name, part in parts.items()}}, temporary)
        temporary.replace(path)

    began = saved_at = time.monotonic()
    running = 0.0
    for step in range(start, steps):
        value = loss(step, generator(stage, step))
        adam.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        adam.step()
        cycle.step()
        average.update_parameters(model)
        running = value.item() if step == start else 0.98 * running + 0.02 * value.item()
        now = time.monotonic()
        if step % 100 == 99 or step == steps - 1:
            left = (now - began) / (step - start + 1) * (steps - step - 1)
            print(f"{stage:12} {step + 1:6}/{steps}  loss {running:.4f}  {left / 60:5.1f} min left", flush=True)
        if now - saved_at >= SAVE_EVERY:
            save(step + 1)
            saved_at = now
    if start < steps:
        save(steps)
    model.load_state_dict(average.module.state_dict())
    model.eval()
