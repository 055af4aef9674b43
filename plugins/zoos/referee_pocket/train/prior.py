"""The pocket prior: a UNet2DConditionModel that listens to the pocket CLIP's frozen text tower.

As in Stable Diffusion: latent diffusion with noise prediction and its noise schedule, captions dropped for
classifier-free guidance. Latents of a fixed set of scenes are computed once; each is seen with several captions.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Generator, Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from referee_pocket import world
from referee_pocket.train.clip import tokenize
from referee_pocket.train.data import chance, texts, trained_vae
from referee_pocket.train.loop import DEVICE, fit, generator

SCENES = 60_000
STEPS = 8000
BATCH = 48
DROP = 0.12


def build() -> UNet2DConditionModel:
    """An untrained UNet of 2.8 M parameters."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        block_out_channels=(64, 96),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=4,
        cross_attention_dim=96,
        norm_num_groups=16,
    )


def schedule() -> DDIMScheduler:
    """Stable Diffusion's."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )


@torch.no_grad()
def latents(folder: Path, n: int, name: str) -> tuple[list[world.Scenes], Tensor]:
    """n scenes in blocks of 500, and their latents (n, 8, 8, 8) at deviation 1."""
    vae = trained_vae(folder.parent)
    blocks = [world.sample(500, generator(name, block)) for block in range(n // 500)]
    codes = [vae.encode(world.render(b).to(DEVICE) * 2 - 1).latents * vae.config.scaling_factor for b in blocks]
    return blocks, torch.cat(codes).cpu()


def train(work: Path, out: Path) -> dict[str, float]:
    """Train and save a whole Stable Diffusion pipeline folder to ``out/prior``."""
    torch.manual_seed(2)
    folder = out / "prior"
    unet, scheduler = build(), schedule()
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).to(DEVICE).eval()
    blocks, codes = latents(folder, SCENES, "prior")

    # After Hang et al. 2023 (min-SNR weighting, arXiv 2303.09556, gamma = 5), less strictly: where there is little
    # noise, guessing it is hard and says little about shapes; but score distillation asks there too.
    ratio = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weight = (0.3 + 0.7 * ratio.clamp(max=5) / ratio).to(DEVICE)

    def loss(step: int, draw: Generator) -> Tensor:
        choose = chance(draw)
        picked = torch.randint(SCENES, (BATCH,), generator=draw)
        captions = [world.caption(blocks[i // 500], i % 500, choose) for i in picked.tolist()]
        lines = ["" if choose.random() < DROP else line for line in texts(captions, choose)]
        z = codes[picked].to(DEVICE)
        noise = torch.randn(z.shape, generator=draw).to(DEVICE)
        t = torch.randint(1000, (BATCH,), generator=draw).to(DEVICE)
        with torch.no_grad():
            words = text(tokenize(tokenizer, lines).to(DEVICE)).last_hidden_state
        errors = F.mse_loss(unet(scheduler.add_noise(z, noise, t), t, words).sample, noise, reduction="none")
        value: Tensor = (weight[t] * errors.mean((1, 2, 3))).mean()
        return value

    fit("prior", unet, loss, steps=STEPS, lr=1.2e-3, work=work, decay=0.998)
    finish(unet, folder)
    return {"parameters": float(sum(p.numel() for p in unet.parameters()))}


def finish(unet: UNet2DConditionModel, folder: Path) -> None:
    """Save what is not yet there of the pipeline, in half precision."""
    vae = AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float16, low_cpu_mem_usage=False)
    config = (folder / "vae" / "config.json").read_bytes()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float16)
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=unet.half(),
        scheduler=schedule(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    (folder / "vae" / "config.json").write_bytes(config)  # see vae.save
