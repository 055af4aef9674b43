"""The CLIP referee with all that open_clip has: SigLIP, published sizes, preprocessing, names and the hub, weights that
are pickles, precision and memory."""

from __future__ import annotations

import collections
import json
import pickle
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from open_clip.push_to_hf_hub import save_for_hf
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from referee.contract import Prompt, Viewer
from referee.errors import OptionError, WeightsError
from referee.hooks import Place
from referee.plugins import discover
from referee_clip.load import empty
from referee_clip.preprocess import Framing

WORDS = ["a", "red", "blue", "circle", "square", "and", "above"]
SHAPES = {"clip": 32, "siglip": 160}
CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 2, "hf_tokenizer_name": "."},
}
SIGLIP: dict[str, Any] = {  # the published one's configuration, but for its sizes
    "embed_dim": 96, "init_logit_bias": -10, "custom_text": True,
    "vision_cfg": {
        "image_size": 160, "timm_model_name": "test_vit3", "timm_model_pretrained": False, "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 6, "vocab_size": 50, "hf_tokenizer_name": ".", "tokenizer_kwargs": {"clean": "canonicalize"},
        "width": 96, "heads": 3, "layers": 2, "mlp_ratio": 3.7362, "no_causal_mask": True, "proj_bias": True,
        "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
    },
}  # fmt: skip


def words() -> PreTrainedTokenizerFast:
    """A word a token, as SigLIP's ends and pads: with </s>."""
    vocabulary = {"</s>": 0, "<unk>": 1} | {word: i + 2 for i, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", pad_token="</s>", unk_token="<unk>")


def write(folder: Path, kind: str, preprocess: dict[str, Any] | None = None) -> Path:
    """A small random model in open_clip's own format, by its own function."""
    torch.manual_seed(0)
    config = CLIP if kind == "clip" else SIGLIP
    made = {key: value for key, value in config.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if "custom_text" in config else open_clip.CLIP)(**made)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    how = {"size": SHAPES[kind], "mean": [0.5] * 3, "std": [0.5] * 3} | (preprocess or {})
    open_clip.factory.set_model_preprocess_cfg(model, how)
    folder.mkdir(exist_ok=True)
    save_for_hf(model, words(), config, str(folder), safe_serialization=True)
    return folder


@cache
def saved(base: Path, kind: str) -> Path:
    return write(base / f"small-{kind}", kind)


@pytest.fixture(params=SHAPES)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return saved(tmp_path_factory.getbasetemp(), request.param)


def make(model: object, place: Place | None = None, **options: Any) -> Any:
    """The referee as the command line makes it."""
    spec = discover().find("referee", "clip")
    chosen = spec.options(model=str(model), **options)
    spec.check(chosen)
    return spec.factory(chosen, place or Place())


def pictures(referee: Any, count: int, seed: int = 0) -> Tensor:
    shape = (count, 3, referee.input_size, referee.input_size)
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


# --- the loss -----------------------------------------------------------------------------------------------


def test_the_loss_is_one_minus_open_clips_cosine(checkpoint: Path) -> None:
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{checkpoint}")
    tokens = open_clip.get_tokenizer(f"local-dir:{checkpoint}")(["a red circle"])
    referee = make(checkpoint)
    views = pictures(referee, 2)
    with torch.no_grad():
        image = model.encode_image(preprocess.transforms[-1](views), normalize=True)
        wanted = 1 - image @ model.encode_text(tokens, normalize=True)[0]
    found = referee.read(Prompt("a red circle"))(views)
    torch.testing.assert_close(found, wanted)
    assert ((found >= 0) & (found <= 2)).all()
    assert not torch.allclose(referee.read(Prompt("a blue square"))(views), wanted)


def test_gradient_against_finite_differences(checkpoint: Path) -> None:
    referee = make(checkpoint)
    referee.model.double()
    loss = referee.read(Prompt("a red circle"))
    views = pictures(referee, 1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(views).sum(), views)
    generator, step = torch.Generator().manual_seed(1), 1e-5
    for _ in range(3):
        way = torch.randn(views.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(views + step * way) - loss(views - step * way)).item() / (2 * step)
        assert (gradient * way).sum().item() == pytest.approx(slope, rel=1e-5)


def test_siglips_tokens_and_bias(tmp_path: Path) -> None:
    write(tmp_path, "siglip")
    referee = make(tmp_path)
    assert referee.model.logit_bias.item() != 0  # of the sigmoid loss; the cosine has none
    assert "logit_bias" in load_file(tmp_path / "open_clip_model.safetensors")
    assert referee._tokenizer(["A Red; circle!"]).tolist() == [[2, 3, 5, 0, 0, 0]]  # canonicalised, padded with </s>
    with pytest.warns(UserWarning, match="'blue square' is cut"):  # 6 tokens: 5 words
        long = referee.read(Prompt("a red circle and a blue square"))
    short = referee.read(Prompt("a red circle and a"))
    torch.testing.assert_close(long(pictures(referee, 1)), short(pictures(referee, 1)))


# --- full size ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "image", "text", "whole", "context"),
    [("ViT-L-14", 303.97, 123.65, 427_616_513, 77), ("ViT-SO400M-14-SigLIP", 427.68, 449.68, 877_360_306, 16)],
)
def test_the_published_sizes(name: str, image: float, text: float, whole: int, context: int) -> None:
    model = empty(name)  # millions: open_clip's own table, docs/model_profile.csv
    counts = {
        part: sum(p.numel() for n, p in model.named_parameters() if n.startswith(part)) for part in ("visual.", "")
    }
    assert {p.device.type for p in model.parameters()} == {"meta"}
    assert counts[""] == whole
    assert counts["visual."] / 1e6 == pytest.approx(image, abs=0.005)
    assert (whole - counts["visual."]) / 1e6 == pytest.approx(text, abs=0.005)
    assert model.context_length == context
    assert model.encode_image(torch.empty(2, 3, 224, 224, device="meta")).shape[0] == 2


# --- preprocessing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(32, 32), (64, 64), (97, 131), (131, 97), (100, 60), (300, 200), (33, 200), (20, 15)])
def test_framing_is_open_clips_on_pillow_images(size: tuple[int, int], mode: str, interpolation: str) -> None:
    config = PreprocessCfg(
        32, mean=(0, 0, 0), std=(1, 1, 1), interpolation=interpolation, resize_mode=mode, fill_color=77
    )
    x = torch.randint(0, 256, (1, 3, *size), generator=torch.Generator().manual_seed(0)).byte()
    picture = Image.fromarray(x[0].permute(1, 2, 0).numpy())
    wanted = (image_transform_v2(config, is_train=False)(picture) * 255).round()
    found = (Framing.of(vars(config), 32)(x / 255)[0] * 255).round()
    assert (found - wanted).abs().max() <= 1


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_whole_picture_is_scored_as_open_clip_scores_it(mode: str, tmp_path: Path) -> None:
    from referee.inversion import Seat
    from referee.play import score

    write(tmp_path, "clip", {"resize_mode": mode, "interpolation": "bilinear", "mean": [0.4, 0.5, 0.6]})
    referee = make(tmp_path)
    assert isinstance(referee, Viewer)
    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{tmp_path}")
    pixels = np.random.default_rng(0).integers(0, 256, (90, 60, 3), dtype=np.uint8)
    with torch.no_grad():
        image = model.encode_image(preprocess(Image.fromarray(pixels))[None], normalize=True)
        tokens = open_clip.get_tokenizer(f"local-dir:{tmp_path}")(["a red circle"])
        wanted = 1 - (image @ model.encode_text(tokens, normalize=True).T).item()
    found = score(Image.fromarray(pixels), "a red circle", [Seat("clip", referee)])
    assert found["clip"] == pytest.approx(wanted, abs=2e-3)
    views = pictures(referee, 2)
    assert torch.equal(referee.view(views), views)  # what fits already is left alone


def test_an_unknown_way_of_resizing_is_refused() -> None:
    with pytest.raises(WeightsError, match="'crop' and 'bicubic'; there are: shortest, longest, squash"):
        Framing.of({"resize_mode": "crop"}, 8)


# --- weights ------------------------------------------------------------------------------------------------


class Code:
    """A pickle that would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


class Stumble:
    """A pickle of allowed names that ends in a TypeError, upon which open_clip reads the file a second time."""

    def __reduce__(self) -> Any:
        return collections.OrderedDict, (1,)


def test_pickled_tensors_are_read_and_pickled_code_is_not(tmp_path: Path) -> None:
    write(tmp_path, "clip")
    safe, bin_ = tmp_path / "open_clip_model.safetensors", tmp_path / "open_clip_pytorch_model.bin"
    wanted = make(tmp_path).model.state_dict()
    torch.save(load_file(safe), bin_)
    safe.unlink()
    for name, tensor in make(tmp_path).model.state_dict().items():
        assert torch.equal(tensor, wanted[name]), name
    mark = tmp_path / "mark"
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # it would have made it
    mark.unlink()
    for content in (Code(mark), {"state_dict": Code(mark)}, {"a": Stumble(), "b": Code(mark)}):
        torch.save(content, bin_)
        with pytest.raises(WeightsError, match="open_clip cannot load"):
            make(tmp_path)
        assert not mark.exists()
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(bin_))  # OpenAI's own format is a program
    with pytest.raises(WeightsError, match="open_clip cannot load"):
        make(tmp_path)


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "clip")
    file = tmp_path / "open_clip_pytorch_model.bin"
    torch.save(load_file(tmp_path / "open_clip_model.safetensors"), file)
    (tmp_path / "open_clip_model.safetensors").unlink()
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="open_clip cannot load"):
        make(tmp_path)


def changed(state: dict[str, Tensor], which: str) -> dict[str, Tensor]:
    if which == "another size":
        return {name: tensor[:-1].contiguous() if tensor.ndim else tensor for name, tensor in state.items()}
    return {name: tensor for name, tensor in state.items() if "bias" not in name}


@pytest.mark.parametrize(("which", "said"), [("less", r".*Missing key\(s\)"), ("another size", "shape")])
def test_weights_of_another_model_are_told_on_a_line_with_the_mend(which: str, said: str, tmp_path: Path) -> None:
    write(tmp_path, "clip")
    file = tmp_path / "open_clip_model.safetensors"
    save_file(changed(load_file(file), which), file)
    with pytest.raises(WeightsError, match=f"{tmp_path}: {said}.*open_clip_config.json. Get both from one") as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("model", "tag", "fetch"),
    [
        ("ViT-L-14-quickgelu", "openai", "hf download timm/vit_large_patch14_clip_224.openai"),
        ("ViT-L-14", "laion2b_s32b_b82k", "hf download laion/CLIP-ViT-L-14-laion2B-s32B-b82K"),
        ("ViT-B-16-SigLIP", "webli", "hf download timm/ViT-B-16-SigLIP"),
        ("hf-hub:laion/CLIP-ViT-L-14", "", "hf download laion/CLIP-ViT-L-14"),
    ],
)
def test_off_line_the_command_that_fetches_is_named(model: str, tag: str, fetch: str, tmp_path: Path) -> None:
    from huggingface_hub import constants

    if any(Path(constants.HF_HUB_CACHE).glob("models--*")):
        pytest.skip("this machine has models of the hub")
    with pytest.raises(WeightsError, match=f"{fetch}") as caught:
        make(model, pretrained=tag)
    assert "\n" not in str(caught.value)


def test_a_repository_brings_its_own_weights() -> None:
    with pytest.raises(OptionError, match="leave pretrained=openai out"):
        make("hf-hub:laion/CLIP", pretrained="openai")


def test_names_and_tags_of_open_clip_are_there() -> None:
    assert {"openai", "laion2b_s32b_b82k"} <= set(open_clip.list_pretrained_tags_by_model("ViT-L-14"))
    assert "ViT-SO400M-14-SigLIP" in open_clip.list_models()


# --- precision and memory -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_float32_numbers(checkpoint: Path, dtype: str) -> None:
    prompt, exact, half = Prompt("a red circle"), make(checkpoint), make(checkpoint, Place(dtype=dtype))
    views = pictures(exact, 2).requires_grad_()
    losses = half.read(prompt)(views)
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert {losses.dtype, gradient.dtype, *(p.dtype for p in half.model.parameters())} == {torch.float32}
    assert gradient.isfinite().all()
    wanted = exact.read(prompt)(views)
    assert not torch.equal(losses, wanted)
    torch.testing.assert_close(losses, wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("recomputed", [False, True])
def test_frozen_weights_get_no_gradient(checkpoint: Path, recomputed: bool) -> None:
    referee = make(checkpoint, recompute=recomputed)
    views = pictures(referee, 2).requires_grad_()
    referee.read(Prompt("a red circle"))(views).sum().backward()
    assert views.grad is not None
    assert views.grad.any()
    assert [name for name, p in referee.model.named_parameters() if p.requires_grad or p.grad is not None] == []


def test_recomputing_keeps_less_and_changes_no_bit(checkpoint: Path) -> None:
    found = {}
    for recomputed in (False, True):
        referee = make(checkpoint, recompute=recomputed)
        views = pictures(referee, 2).requires_grad_()
        kept: list[int] = []

        def keep(tensor: Tensor, kept: list[int] = kept) -> Tensor:
            kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = referee.read(Prompt("a red circle"))(views)
        (gradient,) = torch.autograd.grad(loss.sum(), views)
        found[recomputed] = loss.detach(), gradient, sum(kept)
    (loss, gradient, kept_all), (same, again, kept_few) = found[False], found[True]
    assert torch.equal(loss, same)
    assert torch.equal(gradient, again)
    assert kept_few < kept_all / 2


def test_a_configuration_from_another_open_clip_is_named(tmp_path: Path) -> None:
    write(tmp_path, "siglip")
    file = tmp_path / "open_clip_config.json"
    content = json.loads(file.read_text())
    content["model_cfg"]["vision_cfg"]["timm_model_name"] = "no_such_tower"
    file.write_text(json.dumps(content))
    with pytest.raises(WeightsError, match="no_such_tower"):
        make(tmp_path)


def test_weights_of_another_activation_are_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"'openai' were trained with QuickGELU.* Say model=ViT-B-32-quickgelu\."):
        make("ViT-B-32", pretrained="openai")
    names = set(open_clip.list_models())
    for name, tag in open_clip.list_pretrained():
        trained = open_clip.get_pretrained_cfg(name, tag).get("quick_gelu", False)
        if trained and not (open_clip.get_model_config(name) or {}).get("quick_gelu", False):
            assert f"{name}-quickgelu" in names, "the mend is one"
