"""The two benches with real models: the pocket zoo's, which know shapes and colours, and tiny ones that answer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    SiglipImageProcessor,
)
from typer.testing import CliRunner

from referee.bench.contract import Bench, Item, Named, Naming, Seeded
from referee.command.app import app
from referee.errors import OptionError, RefereeError, WeightsError
from referee.hooks import Place
from referee.pixels import to_pillow
from referee.plugins import discover
from referee_compbench import CompBenchOptions, GenEvalOptions
from referee_compbench.blip import Answers, pixels
from referee_compbench.boxes import Box
from referee_compbench.clip import Similarity, crop
from referee_compbench.compbench import CompBench
from referee_compbench.geneval import COLOURS
from referee_compbench.geneval_bench import GenEval
from referee_compbench.models import family
from referee_compbench.names import file_name
from referee_compbench.options import QUESTION
from referee_compbench.owl import Finder, squared
from referee_compbench.scores import attribute_score, rounded, three_in_one
from referee_compbench.vlm import YesNo
from referee_pocket import WEIGHTS
from referee_pocket.world import Scenes, render

CIRCLE, SQUARE = (0, 0), (2, 1)
"""A red circle, a blue square: colour and shape of the pocket world."""
LEFT, RIGHT = (16, 32), (48, 32)
OURS = {
    "vqa": str(WEIGHTS / "vqa"), "vqa_size": 0, "detector": str(WEIGHTS / "detector"), "line": "{name}",
    "clip": str(WEIGHTS / "clip"), "parser": "template",
}  # fmt: skip
"""The pocket zoo's models: they know no word but its own."""


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def scene(*things: tuple[tuple[int, int], tuple[int, int]]) -> Tensor:
    """A picture of the pocket world, (1, 3, 64, 64): things of 10 px radius at places."""
    slots = [*things, *[things[0]] * (3 - len(things))]
    kinds = torch.tensor([kind for kind, _ in slots]).T[:, None]
    places = torch.tensor([[place for _, place in slots]], dtype=torch.float32)
    return render(
        Scenes(
            torch.tensor([len(things)]), kinds[0], kinds[1], torch.zeros(1, 3, dtype=torch.long), places,
            torch.full((1, 3), 10.0), torch.full((1, 3, 2, 2), 0.85), torch.zeros(1, 3, 3),
        )
    )  # fmt: skip


def picture(x: Tensor) -> Pillow.Image:
    return to_pillow(x[0])


def noise(height: int = 50, width: int = 70, seed: int = 0) -> Pillow.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Pillow.fromarray(values)


@cache
def answers(size: int = 0) -> Answers:
    return Answers.load(WEIGHTS / "vqa", size, "cpu")


@cache
def finder(line: str = "{name}") -> Finder:
    return Finder.load(WEIGHTS / "detector", line, "cpu")


@cache
def similarity() -> Similarity:
    return Similarity.load(WEIGHTS / "clip", "cpu")


# --- BLIP-VQA ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 96])
def test_blip_vqa_is_the_benchmarks_formula(size: int) -> None:
    """Against transformers' parts put together from the benchmark's description: size and filter of the picture,
    epsilon, [ENC], no padding, [DEC] alone, sigmoid(l_yes - l_no), both roundings."""
    config = BlipConfig.from_pretrained(WEIGHTS / "vqa")
    config.vision_config.layer_norm_eps = 1e-6
    network = BlipForQuestionAnswering.from_pretrained(WEIGHTS / "vqa", config=config, dtype=torch.float32).eval()
    ours = answers(size)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (ours.vqa.normalisation.mean, ours.vqa.normalisation.std))
    shown = noise().resize((size or 64, size or 64), Pillow.Resampling.BICUBIC)  # squeezed, whatever its shape
    values = torch.tensor(np.asarray(shown) / 255, dtype=torch.float32).permute(2, 0, 1)
    words = ours.vqa.tokenizer.get_vocab()
    phrases = ["a red circle", "a blue striped square", "a star"]
    wanted = []
    with torch.no_grad():
        seen = network.vision_model((values - mean)[None] / std, interpolate_pos_encoding=True)[0]
        for phrase in phrases:
            ids = ours.vqa.tokenizer(f"{phrase}?", return_tensors="pt").input_ids
            ids[:, 0] = ours.vqa.encode_id
            read = network.text_encoder(ids, torch.ones_like(ids), encoder_hidden_states=seen)[0]
            start = torch.tensor([[ours.vqa.decode_id]])
            logits = network.text_decoder(start, encoder_hidden_states=read).logits[0, 0]
            wanted.append(torch.sigmoid(logits[words["yes"]] - logits[words["no"]]).item())
    found = ours(noise(), phrases)
    assert found == pytest.approx(wanted, abs=1e-6)
    assert [f"{p:.4f}" for p in found] == [f"{p:.4f}" for p in wanted]
    assert len(set(found)) == 3
    product = np.prod([np.float32(f"{p:.4f}") for p in wanted], dtype=np.float32)
    assert attribute_score(found) == float(f"{product:.4f}")


def test_a_question_hangs_on_no_other() -> None:
    phrases = ["a red circle", "a blue striped square", "a star", "a cyan ring"]
    together = answers()(noise(), phrases)
    assert together == [answers()(noise(), [phrase])[0] for phrase in phrases]
    assert answers()(noise(), []) == []


def test_pictures_are_shown_in_whole_steps_as_pillow_resizes_them() -> None:
    shown = pixels(noise(), 32)
    assert shown.shape == (1, 3, 32, 32)
    assert torch.equal((shown * 255).round() / 255, shown)
    square = noise().resize((32, 32), Pillow.Resampling.BICUBIC)
    assert np.array_equal((shown[0] * 255).byte().permute(1, 2, 0).numpy(), np.asarray(square))


def test_blip_vqa_tells_right_from_wrong() -> None:
    for one, other in ((LEFT, RIGHT), (RIGHT, LEFT)):
        shown = picture(scene((CIRCLE, one), (SQUARE, other)))
        right = answers()(shown, ["a red circle", "a blue square"])
        swapped = answers()(shown, ["a blue circle", "a red square"])
        assert min(right) > 0.9
        assert max(swapped) < min(right) - 0.3
        assert attribute_score(swapped) < 0.3 < 0.8 < attribute_score(right)


# --- OWL -------------------------------------------------------------------------------------------------------------


def centre_of(x: Tensor, name: str, names: list[str]) -> tuple[float, float]:
    found = finder()(x, names, 0.3)[name]
    sides = list(zip(*(one.box.centre for one in found), strict=True))
    return sum(sides[0]) / len(found), sum(sides[1]) / len(found)


def test_things_are_found_where_they_are() -> None:
    names = ["red circle", "blue square"]
    x = scene((CIRCLE, (16, 16)), (SQUARE, (48, 48)))
    assert centre_of(x, "red circle", names) == pytest.approx((16, 16), abs=4)
    assert centre_of(x, "blue square", names) == pytest.approx((48, 48), abs=4)
    assert finder()(x, ["black ring"], 0.3) == {"black ring": []}


def test_confidences_and_boxes_are_transformers_own() -> None:
    owl, x = finder().detector, scene((CIRCLE, LEFT), (SQUARE, RIGHT))
    ids = owl.tokenizer(["red circle", "blue square"], return_tensors="pt", padding=True)
    with torch.no_grad():
        out = owl.network(input_ids=ids.input_ids, attention_mask=ids.attention_mask,
                          pixel_values=(x - owl.mean) / owl.std)  # fmt: skip
    best = out.logits[0].sigmoid().max(0).values
    found = finder()(x, ["red circle", "blue square"], 0.3)
    assert [found[name][0].confidence for name in ("red circle", "blue square")] == pytest.approx(best.tolist())
    patch = int(out.logits[0, :, 0].argmax())
    cx, cy, w, h = (64 * out.pred_boxes[0, patch]).tolist()
    assert found["red circle"][0].box == pytest.approx((cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), abs=1e-3)


def test_a_patch_goes_to_the_name_that_it_likes_best() -> None:
    x = scene((CIRCLE, LEFT))
    alone = finder()(x, ["red star"], 0.05)
    assert alone["red star"]  # a little like one
    both = finder()(x, ["red star", "red circle"], 0.05)
    assert len(both["red star"]) < len(alone["red star"])
    assert both["red circle"][0].confidence > 0.5


def test_what_is_not_square_is_padded_and_boxes_stay_in_its_pixels() -> None:
    square = scene((CIRCLE, (16, 16)))
    wide = square[:, :, :40]
    assert squared(wide).shape == (1, 3, 64, 64)
    assert torch.equal(squared(wide)[:, :, :40], wide)
    assert not squared(wide)[:, :, 40:].any()
    assert centre_of(wide, "red circle", ["red circle"]) == pytest.approx((16, 16), abs=5)
    for one in finder()(wide, ["red circle", "blue square"], 0.0)["red circle"]:
        assert one.box.y1 <= 40
        assert 0 <= one.box.x0 <= one.box.x1 <= 64


def test_the_line_is_what_the_detector_reads() -> None:
    x = scene((CIRCLE, LEFT))
    bare, article = (finder(line)(x, ["red circle"], 0.1)["red circle"][0] for line in ("{name}", "a {name}"))
    assert bare.confidence != article.confidence


# --- CLIP ------------------------------------------------------------------------------------------------------------


def test_clipscore_is_open_clips_raw_cosine() -> None:
    name = f"local-dir:{WEIGHTS / 'clip'}"
    model, prepare = open_clip.create_model_from_pretrained(name)
    model.eval()
    text = "a red circle and a blue square"
    with torch.no_grad():
        image = model.encode_image(prepare(noise())[None])
        words = model.encode_text(open_clip.get_tokenizer(name)([text]))
        wanted = torch.nn.functional.cosine_similarity(image, words).item()
    assert similarity().cosine(noise(), text) == pytest.approx(wanted, abs=1e-6)
    values = [similarity().cosine(noise(seed=seed), text) for seed in range(8)]
    assert all(-1 <= value <= 1 for value in values)
    assert min(values) < 0  # not cut off


def test_colours_are_told_on_the_crop() -> None:
    shown = picture(scene((CIRCLE, LEFT), (SQUARE, RIGHT)))
    assert similarity().colour(shown, Box(6, 22, 26, 42), "circle") == "red"
    assert similarity().colour(shown, Box(38, 22, 58, 42), "square") == "blue"
    assert {"red", "blue"} <= set(COLOURS)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        (Box(1.4, 2.6, 10.5, 20.2), (9, 17)), (Box(5, 5, 5, 5), (1, 1)), (Box(70, 50, 70, 50), (1, 1)),
        (Box(0, 0, 70, 50), (70, 50)),
    ],
)  # fmt: skip
def test_a_crop_has_at_least_a_pixel(box: Box, size: tuple[int, int]) -> None:
    assert crop(noise(), box).size == size


# --- P(Yes) ----------------------------------------------------------------------------------------------------------

TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for c in m['content'] %}{% if c['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKS = [
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
]  # fmt: skip


def letters(*words: str, marks: list[str], **named: str) -> PreTrainedTokenizerFast:
    """Byte-level pairs in which some words are one token."""
    vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    merges = []
    for word in words:
        for i in range(1, len(word)):
            merges.append((word[:i], word[i]))
            vocabulary.setdefault(word[: i + 1], len(vocabulary))
    for mark in marks:
        vocabulary[mark] = len(vocabulary)
    pairs = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=pairs, additional_special_tokens=marks, **named)


def write_qwen(folder: Path, *words: str) -> Path:
    """A random Qwen2.5-VL in its own file format."""
    tokens = letters(*words, marks=MARKS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    number = tokens.convert_tokens_to_ids
    torch.manual_seed(0)
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(tokens), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 512,
            "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
            "bos_token_id": number("<|endoftext|>"), "eos_token_id": number("<|im_end|>"),
            "pad_token_id": number("<|endoftext|>"), "initializer_range": 0.3,
        },
        vision_config={
            "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32,
            "window_size": 56, "fullatt_block_indexes": [1], "initializer_range": 0.3,
        },
        image_token_id=number("<|image_pad|>"), video_token_id=number("<|video_pad|>"),
        vision_start_token_id=number("<|vision_start|>"), vision_end_token_id=number("<|vision_end|>"),
        initializer_range=0.3,
    )  # fmt: skip
    Qwen2_5_VLForConditionalGeneration(config).save_pretrained(folder)
    sizes = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}
    Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**sizes), tokens, Qwen2VLVideoProcessor(**sizes), chat_template=TEMPLATE
    ).save_pretrained(folder)
    return folder


def write_paligemma(folder: Path) -> Path:
    """A random PaliGemma in its own file format; it has no chat template."""
    tokens = letters("Yes", marks=["<pad>", "<bos>", "<eos>"], bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")
    pictures = SiglipImageProcessor(size={"height": 28, "width": 28}, image_seq_length=4)
    processor = PaliGemmaProcessor(pictures, tokens)
    number = processor.tokenizer.convert_tokens_to_ids
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = PaliGemmaConfig(
        vision_config={**layers, "image_size": 28, "patch_size": 14, "model_type": "siglip_vision_model"},
        text_config={
            **layers, "model_type": "gemma", "vocab_size": len(processor.tokenizer), "num_key_value_heads": 1,
            "head_dim": 16, "bos_token_id": number("<bos>"), "eos_token_id": number("<eos>"),
            "pad_token_id": number("<pad>"), "initializer_range": 0.3,
        },
        image_token_index=number("<image>"), projection_dim=32,
    )  # fmt: skip
    PaliGemmaForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@cache
def judges(base: Path) -> dict[str, Path]:
    return {"qwen": write_qwen(base / "qwen", "Yes"), "paligemma": write_paligemma(base / "paligemma")}


@pytest.fixture
def vlms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return judges(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("kind", ["qwen", "paligemma"])
def test_p_yes_is_the_share_of_the_whole_vocabulary_at_the_first_position(vlms: dict[str, Path], kind: str) -> None:
    judge = YesNo.load(vlms[kind], QUESTION, "cpu", "float32")
    inputs = judge.inputs(noise(56, 56), "a red circle")
    with torch.no_grad():
        words = judge.model(**inputs).logits[0, -1].softmax(-1)
    assert len(words) > 250
    assert judge.processor.tokenizer.decode([judge.yes_id]) == "Yes"
    found = judge(noise(56, 56), "a red circle")
    assert found == pytest.approx(words[judge.yes_id].item(), rel=1e-4)
    others = [judge(noise(56, 56), "a blue star"), judge(noise(56, 56, seed=1), "a red circle")]
    assert len({found, *others}) == 3  # it reads the prompt and sees the picture
    assert not any(p.requires_grad for p in judge.model.parameters())


def test_the_question_is_vqascores(vlms: dict[str, Path]) -> None:
    asked = 'Does this figure show "a red circle"? Please answer yes or no.'
    qwen = YesNo.load(vlms["qwen"], QUESTION, "cpu", "float32")
    line = qwen.processor.tokenizer.decode(qwen.inputs(noise(56, 56), "a red circle").input_ids[0])
    assert line.endswith(f"<|vision_end|>{asked}<|im_end|>\n<|im_start|>assistant\n")
    assert line.count("<|image_pad|>") == 4  # 56 px, 14 px a patch, 2 x 2 of them together
    pali = YesNo.load(vlms["paligemma"], QUESTION, "cpu", "float32")
    line = pali.processor.tokenizer.decode(pali.inputs(noise(56, 56), "a red circle").input_ids[0])
    assert line == "<image>" * 4 + f"<bos>{asked}\n"
    own = YesNo.load(vlms["qwen"], "Is it {prompt}?", "cpu", "float32")
    assert "Is it a red circle?" in own.processor.tokenizer.decode(own.inputs(noise(), "a red circle").input_ids[0])


def test_half_precision_is_the_vision_language_models_own(vlms: dict[str, Path]) -> None:
    half = YesNo.load(vlms["qwen"], QUESTION, "cpu", "bfloat16")
    assert half.model.dtype == torch.bfloat16
    exact = YesNo.load(vlms["qwen"], QUESTION, "cpu", "float32")
    assert half(noise(56, 56), "a red circle") == pytest.approx(exact(noise(56, 56), "a red circle"), rel=0.3)


def test_a_tokenizer_without_the_word_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="makes 3 tokens of 'Yes'"):
        YesNo.load(write_qwen(tmp_path / "qwen", "No"), QUESTION, "cpu", "float32")


def test_half_a_vision_language_model_is_refused(vlms: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "qwen"
    shutil.copytree(vlms["qwen"], folder)
    state = load_file(folder / "model.safetensors")
    name = next(name for name in sorted(state) if "layers.1" in name)
    del state[name]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match="missing keys"):
        YesNo.load(folder, QUESTION, "cpu", "float32")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(WeightsError, match="cannot be loaded"):
        YesNo.load(folder, QUESTION, "cpu", "float32")


def test_families() -> None:
    named = {
        "qwen2_5_vl": "qwen",
        "qwen3_vl": "qwen",
        "paligemma": "paligemma",
        "blip-2": "blip",
        "llava_next": "llava",
    }
    assert {kind: family(kind) for kind in named} == named


# --- T2I-CompBench ---------------------------------------------------------------------------------------------------

COLOR = "a red circle and a blue square"
SPATIAL = "a circle on the left of a square"
ACTION = "a red circle and a blue square."
COMPLEX = "a red circle on the left of a blue square."
BOTH = "a red circle near a blue square."
FILES = {
    "color_val.txt": COLOR, "spatial_val.txt": SPATIAL, "non_spatial_val.txt": COLOR,
    "complex_val.txt": f"{ACTION}\n{COMPLEX}\n{BOTH}", "complex_val_spatial.txt": COMPLEX,
    "complex_val_action.txt": ACTION,
}  # fmt: skip


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text + "\n")
    objects = ["red circle", "blue square"]  # the pocket detector knows shapes by their colours alone
    given = {
        prompt: {"phrases": ["a red circle", "a blue square"], "objects": objects, "plain": COLOR}
        for prompt in (SPATIAL, ACTION, COMPLEX, BOTH)
    }
    (folder / "phrases.json").write_text(json.dumps({"made by": "hand", "prompts": given}))
    return folder


def bench(prompts: Path, **options: Any) -> CompBench:
    chosen = {"suites": "color+spatial+non_spatial+complex", "phrases": prompts / "phrases.json", **OURS, **options}
    return CompBench(CompBenchOptions(path=prompts, **chosen), Place())


def item(of: CompBench | GenEval, suite: str, index: int = 0) -> Item:
    return next(one for one in of.items() if (one.suite, one.index) == (suite, index))


def test_it_is_a_bench(prompts: Path) -> None:
    one = bench(prompts)
    for kind in (Bench, Named, Naming, Seeded):
        assert isinstance(one, kind)
    assert next(iter(one.columns)) == "score"
    assert list(one.seeds) == list(range(42, 52))
    assert one.name(item(one, "complex", 2), 7, 10) == f"complex/samples/{BOTH}_000027"
    assert one.name(item(one, "complex", 2), 11, 12) == f"complex/samples/{BOTH}_000035"
    assert one.methods()["plain"] == {"draw": "sample"}


def test_each_suite_has_its_own_measure(prompts: Path) -> None:
    one = bench(prompts)
    x = scene((CIRCLE, LEFT), (SQUARE, RIGHT))
    shown = picture(x)
    color = one.score(x, item(one, "color"), 42)
    blip = attribute_score(answers()(shown, ["a red circle", "a blue square"]))
    assert color == {"score": blip, "blip-vqa": blip}
    assert blip > 0.9
    spatial = one.score(x, item(one, "spatial"), 42)
    assert spatial.keys() == {"score", "spatial", "position"}
    assert spatial["score"] == spatial["spatial"] > 0.8
    assert spatial["position"] == 1
    action = one.score(x, item(one, "non_spatial"), 42)
    assert action == {"score": action["clip"], "clip": similarity().cosine(shown, COLOR)}
    seeds = [one.score(x, item(one, "color"), seed) for seed in (42, 43)]
    assert seeds[0] == seeds[1]


def test_complex_is_three_in_one_by_its_routes(prompts: Path) -> None:
    one = bench(prompts)
    x = scene((CIRCLE, LEFT), (SQUARE, RIGHT))
    for index, route in enumerate(("action", "spatial", "both")):
        of = item(one, "complex", index)
        assert of.data["route"] == route
        found = one.score(x, of, 42)
        parts = found["blip-vqa"], found["spatial"], found["clip"]
        assert found["score"] == three_in_one(*parts, route)
        assert found["clip"] == similarity().cosine(picture(x), COLOR)  # without adjectives, as the data has it
    assert one.score(x, item(one, "complex", 0), 42)["spatial"] == 0  # no relation in the prompt


def test_the_wrong_way_round_scores_nothing(prompts: Path) -> None:
    one = bench(prompts)
    x = scene((SQUARE, LEFT), (CIRCLE, RIGHT))
    found = one.score(x, item(one, "spatial"), 42)
    assert (found["score"], found["position"]) == (0, 0)
    only = one.score(scene((CIRCLE, LEFT)), item(one, "spatial"), 42)
    assert (only["score"], only["position"]) == (0, 0)


def test_what_is_left_out_is_left_out_of_scores_and_table(prompts: Path) -> None:
    x = scene((CIRCLE, LEFT), (SQUARE, RIGHT))
    one = bench(prompts, detector="")
    assert list(one.columns) == ["score", "blip-vqa", "clip"]
    assert one.score(x, item(one, "spatial"), 42) == {}
    assert one.score(x, item(one, "complex", 0), 42).keys() == {"score", "blip-vqa", "clip"}
    assert one.score(x, item(one, "complex", 1), 42).keys() == {"blip-vqa", "clip"}  # 3-in-1 lacks a part
    assert list(bench(prompts, suites="spatial").columns) == ["score", "spatial", "position"]


def test_every_column_says_whose_kin_it_is(prompts: Path, vlms: dict[str, Path]) -> None:
    columns = bench(prompts, vlm=str(vlms["qwen"])).columns
    families = {key: column.families for key, column in columns.items()}
    assert families == {
        "score": ("blip", "owl", "clip"), "blip-vqa": ("blip",), "spatial": ("owl",), "position": ("owl",),
        "clip": ("clip",), "p-yes": ("qwen",),
    }  # fmt: skip
    for key in ("spatial", "position", "score"):
        assert "-like" in columns[key].title
    registry = discover()
    assert set(registry.find("referee", "blip2").families) & set(families["blip-vqa"])
    assert set(registry.find("referee", "grounding-vqa").families) >= {"blip", "owl"}


def test_a_judge_of_another_family_is_asked_of_every_suite(prompts: Path, vlms: dict[str, Path]) -> None:
    one = bench(prompts, vlm=str(vlms["qwen"]), vqa="", detector="", clip="")
    assert list(one.columns) == ["p-yes"]
    x = scene((CIRCLE, LEFT))
    found = {of.suite: one.score(x, of, 42) for of in one.items()}
    assert all(scores.keys() == {"p-yes"} for scores in found.values())
    judge = YesNo.load(vlms["qwen"], QUESTION, "cpu", "float32")
    assert found["spatial"]["p-yes"] == pytest.approx(judge(picture(x), SPATIAL), rel=1e-5)


# --- GenEval ---------------------------------------------------------------------------------------------------------

NAMED = [
    ("single_object", [{"class": "red circle", "count": 1}], []),
    ("two_object", [{"class": "red circle", "count": 1}, {"class": "blue square", "count": 1}], []),
    ("counting", [{"class": "blue square", "count": 1}], [{"class": "blue square", "count": 17}]),
    ("colors", [{"class": "red circle", "count": 1, "color": "red"}], []),
    ("position", [{"class": "blue square", "count": 1},
     {"class": "red circle", "count": 1, "position": ["left of", 0]}], []),
    ("color_attr", [{"class": "red circle", "count": 1, "color": "red"},
     {"class": "blue square", "count": 1, "color": "blue"}], []),
]  # fmt: skip


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    path = tmp_path / "tasks.jsonl"
    lines = [
        {"tag": tag, "include": include, "exclude": exclude, "prompt": f"a photo for {tag}"}
        for tag, include, exclude in NAMED
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def geneval(tasks: Path, **options: Any) -> GenEval:
    chosen = {key: OURS[key] for key in ("detector", "line", "clip")} | {"confidence": 0.5, "counting": 0.5, **options}
    return GenEval(GenEvalOptions(path=tasks, **chosen), Place())


def test_all_six_tasks(tasks: Path) -> None:
    one = geneval(tasks)
    for kind in (Bench, Named, Naming, Seeded):
        assert isinstance(one, kind)
    right, turned = scene((CIRCLE, LEFT), (SQUARE, RIGHT)), scene((SQUARE, LEFT), (CIRCLE, RIGHT))
    none = scene(((7, 6), LEFT))  # a black ring
    found = [[one.score(x, of, 42)["correct"] for x in (right, turned, none)] for of in one.items()]
    assert [row[0] for row in found] == [1] * 6
    assert [row[1] for row in found] == [1, 1, 1, 1, 0, 1]  # only where they lie is wrong
    assert [row[2] for row in found] == [0] * 6
    assert one.name(one.items()[4], 3, 4) == "00004/samples/00003"
    assert list(one.seeds) == [42, 43, 44, 45]
    column = one.columns["correct"]
    assert column.pooled  # the mean of the six tasks' means
    assert column.title.endswith("-like")


def test_a_wrong_colour_is_wrong(tasks: Path) -> None:
    lines = [json.loads(line) for line in tasks.read_text().splitlines()]
    lines[3]["include"][0]["color"] = "green"
    tasks.write_text("".join(json.dumps(line) + "\n" for line in lines))
    one = geneval(tasks)
    assert one.score(scene((CIRCLE, LEFT)), item(one, "colors"), 42) == {"correct": 0}


# --- the plug-in and the command ------------------------------------------------------------------------------------


def run(*arguments: str) -> None:
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert done.exit_code == 0, done.output + str(done.exception or "")


def refused(*arguments: str) -> str:
    """What the command says before it ends with 2."""
    done = CliRunner().invoke(app, ["bench", *arguments])
    assert isinstance(done.exception, RefereeError), done.output
    return str(done.exception)


def typed(prompts: Path, name: str = "t2i-compbench", **options: Any) -> str:
    chosen = {"path": prompts, "suites": "color", **OURS, **options}
    return f"{name}:" + ",".join(f'{key}="{value}"' if isinstance(value, str) else f"{key}={value}" for key, value in
                                 chosen.items())  # fmt: skip


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(out.glob("records-*.jsonl")) for line in path.read_text().splitlines()]


def test_pictures_are_drawn_with_the_benchmarks_names_and_seeds(prompts: Path, tmp_path: Path) -> None:
    (prompts / "color_val.txt").write_text(f"{COLOR}\na green star\n")
    out = tmp_path / "out"
    run(typed(prompts), "--methods", "plain", "--seeds", "2", "--out", str(out), "--device", "cpu")
    found = records(out)
    assert [(row["index"], row["seed"]) for row in found] == [(0, 42), (1, 42), (0, 43), (1, 43)]
    samples = out / "pictures" / "plain" / "color" / "samples"
    assert sorted(path.name for path in samples.iterdir()) == [
        "a green star_000010.png", "a green star_000011.png", f"{COLOR}_000000.png", f"{COLOR}_000001.png",
    ]  # fmt: skip
    assert all(row["scores"]["score"] == row["scores"]["blip-vqa"] for row in found)
    again = tmp_path / "again"
    run(typed(prompts), "--images", f"again={out / 'pictures' / 'plain'}", "--out", str(again), "--device", "cpu")
    scores = {(row["index"], row["seed"]): row["scores"] for row in records(again)}
    assert scores == {(row["index"], 10 * row["index"] + row["seed"] - 42): row["scores"] for row in found}


def test_the_seeds_can_be_moved(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    typed_ = typed(prompts, vqa="", detector="", suites="non_spatial")
    run(typed_, "--methods", "plain", "--seeds", "1", "--seed", "7", "--out", str(out), "--device", "cpu")
    assert [(row["seed"], row["picture"]) for row in records(out)] == [
        (7, f"pictures/plain/non_spatial/samples/{COLOR}_000000.png")
    ]
    assert "CLIPScore" in (out / "table.md").read_text()


def test_genevals_overall_is_the_mean_of_the_tasks_means(tasks: Path, tmp_path: Path) -> None:
    """Trap: tasks have unlike numbers of prompts."""
    lines = tasks.read_text().splitlines()
    tasks.write_text("\n".join([*lines, lines[0], lines[0]]) + "\n")  # three of the first task, one of each other
    images = tmp_path / "theirs"
    shown = [scene((CIRCLE, LEFT), (SQUARE, RIGHT))] * 6 + [scene(((7, 6), LEFT))] * 2
    for line, x in enumerate(shown):
        folder = images / f"{line:05d}" / "samples"
        folder.mkdir(parents=True)
        picture(x).save(folder / "00000.png")
    out = tmp_path / "out"
    options = {"path": tasks, "line": "{name}", "clip": OURS["clip"], "detector": OURS["detector"], "confidence": 0.5}
    text = "geneval:" + ",".join(f"{key}={value}" for key, value in options.items())
    run(text, "--images", str(images), "--out", str(out), "--device", "cpu")
    table = (out / "table.md").read_text()
    assert f"mean of the 6 suites' means: {(1 / 3 + 5) / 6:.3f}" in table  # and not 6 of 8
    assert len(records(out)) == 8


def test_who_is_steered_by_the_metrics_kin_has_a_mark(prompts: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = 'short={"rules": {"steps": 3, "tail": 0}}'
    run(typed(prompts), "--method", short, "--methods", "plain", "--seeds", "1", "--out", str(out), "--device", "cpu")
    rows = {line.split(" | ")[0].strip("| "): line for line in (out / "table.md").read_text().splitlines()}
    assert rows["short"].count("†") == 2  # BLIP-2 steers, BLIP-VQA measures: the score and what it is made of
    assert "†" not in rows["plain"]
    assert "BLIP-VQA (phrases by templates)" in rows["method"]


def test_a_folder_with_holes_and_broken_files(prompts: Path, tmp_path: Path) -> None:
    (prompts / "color_val.txt").write_text("a red circle\na blue square\na green star\n")
    images = tmp_path / "theirs"
    images.mkdir()
    for number, prompt in ((0, "a red circle"), (1, "a red circle"), (10, "a blue square"), (99, "a black ring")):
        picture(scene((CIRCLE, LEFT))).save(images / file_name(prompt, number))
    (images / file_name("a blue square", 11)).write_bytes(b"no picture")
    out = tmp_path / "out"
    said = refused(typed(prompts), "--images", str(images), "--out", str(out))
    assert "1 of 3 items lack pictures, 1 files cannot be read" in said
    assert "color 2 'a green star': no picture" in said
    assert "a blue square_000011.png" in said
    assert "a black ring_000099.png" in said
    assert "--partial scores the rest" in said
    assert not out.exists()
    run(typed(prompts), "--images", str(images), "--partial", "--out", str(out), "--device", "cpu")
    assert [(row["prompt"], row["seed"]) for row in records(out)] == [
        ("a red circle", 0), ("a red circle", 1), ("a blue square", 10)
    ]  # fmt: skip
    assert "3 of 6 pictures (50%)" in (out / "table.md").read_text()


def test_a_folder_that_was_repaired_is_gone_on_with(prompts: Path, tmp_path: Path) -> None:
    (prompts / "color_val.txt").write_text("a red circle\na blue square\n")
    images, out = tmp_path / "theirs", tmp_path / "out"
    images.mkdir()
    for number, prompt in ((0, "a red circle"), (1, "a red circle"), (10, "a blue square"), (11, "a blue square")):
        picture(scene((CIRCLE, LEFT), (SQUARE, (48, 20 + number)))).save(images / file_name(prompt, number))
    hole = images / file_name("a blue square", 10)
    content = hole.read_bytes()
    hole.unlink()
    words = (typed(prompts), "--images", str(images), "--out", str(out), "--device", "cpu")
    run(*words, "--partial")
    assert [(row["index"], row["seed"]) for row in records(out)] == [(0, 0), (0, 1), (1, 11)]
    hole.write_bytes(content)
    run(*words)
    assert [(row["index"], row["seed"]) for row in records(out)] == [(0, 0), (0, 1), (1, 11), (1, 10)]


def test_runs_that_measured_otherwise_are_not_joined(prompts: Path, tmp_path: Path) -> None:
    images = tmp_path / "theirs"
    images.mkdir()
    picture(scene((CIRCLE, LEFT), (SQUARE, RIGHT))).save(images / file_name(COLOR, 0))
    outs = [tmp_path / "one", tmp_path / "two"]
    for out, most in zip(outs, (8, 1), strict=True):
        run(typed(prompts, most=most), "--images", str(images), "--out", str(out), "--device", "cpu")
    assert "options.most: 8 and 1" in refused("table", *map(str, outs), "--out", str(tmp_path / "both"))
    assert records(outs[0])[0]["scores"]["blip-vqa"] == rounded(records(outs[0])[0]["scores"]["blip-vqa"])


def test_bad_input_is_refused_before_any_model_loads(prompts: Path, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "out"))
    for text, said in (
        (typed(tmp_path / "nowhere"), "is no folder"),
        (typed(prompts, suites="colour"), "colour"),
        (typed(prompts, vqa=str(tmp_path / "none")), "There is no folder"),
        (typed(prompts, vqa=str(WEIGHTS / "detector")), "of type 'owlv2', not blip"),
        (typed(prompts, suites="spatial", detector=str(WEIGHTS / "vqa")), "of type 'blip', not owlv2 or owlvit"),
        (typed(prompts, vlm="nobody/nothing"), "hf download nobody/nothing"),
        ("geneval:path=none.jsonl", "cannot be read"),
    ):
        assert said in refused(text, *out)
    assert not (tmp_path / "out").exists()


def test_only_the_models_that_the_suites_need_are_wanted(prompts: Path) -> None:
    check = discover().find("bench", "t2i-compbench").check
    assert check is not None
    none = {"vqa": "nobody/vqa", "detector": "nobody/detector", "clip": "ViT-B-32:openai"}
    for suites, needs in (("color", {"vqa"}), ("spatial", {"detector"}), ("non_spatial", {"clip"})):
        chosen = {**OURS, **{key: value for key, value in none.items() if key not in needs}}
        check(CompBenchOptions(path=prompts, suites=suites, **chosen))
        for option in needs:
            with pytest.raises(RefereeError, match=none[option]):
                check(CompBenchOptions(path=prompts, suites=suites, **{**OURS, option: none[option]}))
            with pytest.raises(OptionError, match=f"nothing to measure {suites} with: {option} is left out"):
                check(CompBenchOptions(path=prompts, suites=suites, **{**OURS, option: ""}))


def test_a_cut_file_of_weights_is_refused(prompts: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vqa"
    shutil.copytree(WEIGHTS / "vqa", folder)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    spec = discover().find("bench", "t2i-compbench")
    chosen = CompBenchOptions(path=prompts, suites="color", **{**OURS, "vqa": str(folder)})
    with pytest.raises(WeightsError, match="bytes where its header promises"):
        spec.check(chosen)
    with pytest.raises(OptionError, match="patches of 8"):
        spec.check(CompBenchOptions.model_construct(**{**chosen.model_dump(), "vqa": WEIGHTS / "vqa", "vqa_size": 385}))


def test_importing_the_plug_in_is_light() -> None:
    code = (
        "import sys, referee_compbench; heavy = {'torch', 'transformers', 'open_clip', 'spacy', 'numpy'} & "
        "sys.modules.keys(); sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
