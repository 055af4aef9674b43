"""The grounding-VQA referee: the benchmark's BLIP-VQA to the letter, OWL's soft centres, and what is refused."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import BertTokenizer, BlipConfig, Owlv2Config, OwlViTConfig

from referee.contract import Prompt, Referee
from referee.errors import OptionError, PromptError, WeightsError
from referee.gradients import resize
from referee.hooks import Place
from referee.plugins import discover
from referee_grounding_vqa import Options
from referee_grounding_vqa.detector import Detector
from referee_grounding_vqa.loss import REACH, attribute_loss, relation_loss, soft_centres
from referee_grounding_vqa.preprocess import CLIP
from referee_grounding_vqa.referee import GroundingVqaReferee, resized
from referee_grounding_vqa.vqa import Vqa, marks, question
from referee_pocket.train.tokens import clip_tokenizer, question_tokenizer

SIZE, PATCH = 32, 8
RELATION, NONE = Prompt("a red circle to the left of a blue striped square"), Prompt("a red circle and a blue star")
VISION = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": SIZE, "patch_size": PATCH,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small_vqa(seed: int = 0) -> Vqa:
    """Untrained, with answers that differ from image to image."""
    torch.manual_seed(seed)
    tokenizer = question_tokenizer()
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(tokenizer), "max_position_embeddings": 40, "pad_token_id": 0, "sep_token_id": 3,
        "eos_token_id": 3, "bos_token_id": len(tokenizer) - 2, "initializer_range": 0.3,
    }  # fmt: skip
    config = BlipConfig(vision_config=VISION, text_config=text, initializer_range=0.3)
    return Vqa.fresh(config, tokenizer, CLIP).eval()


def small_detector(seed: int = 0, size: int = SIZE, kind: Any = Owlv2Config) -> Detector:
    """Untrained."""
    torch.manual_seed(seed)
    tokenizer = clip_tokenizer()
    text = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(tokenizer), "max_position_embeddings": 24, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    config = kind(vision_config=VISION | {"image_size": size}, text_config=text, projection_dim=32)
    return Detector.fresh(config, tokenizer, CLIP).eval()


def referee(
    vqa: Vqa | None = None, detector: Detector | None = None, place: Place | None = None, **options: Any
) -> GroundingVqaReferee:
    return GroundingVqaReferee(vqa, detector, Options(**options), place or Place())


@cache
def saved(base: Path) -> tuple[Path, Path]:
    small_vqa().save(base / "vqa")
    small_detector().save(base / "owl")
    return base / "vqa", base / "owl"


@pytest.fixture
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return saved(tmp_path_factory.getbasetemp())


def make(**options: Any) -> Any:
    """The referee as the command line makes it."""
    spec = discover().find("referee", "grounding-vqa")
    chosen = spec.options(**options)
    spec.check(chosen)
    return spec.factory(chosen, Place())


def pictures(count: int, seed: int = 0, size: int = SIZE) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


# --- the benchmark's BLIP-VQA, point by point ----------------------------------------------------------------


def test_a_question_is_the_phrase_as_the_benchmark_asks_it() -> None:
    assert question('A  Green "bench"!') == "a green bench?"
    assert question("a no.1 jersey") == "a no1 jersey?"  # taken out, not made a space
    vqa = small_vqa()
    words = vqa.tokenizer.convert_ids_to_tokens(vqa.ask("A red circle.")[0])
    assert words == ["[ENC]", "a", "red", "circle", "?", "[SEP]"]
    with pytest.warns(UserWarning, match="reads 35 tokens"):
        long = vqa.ask("red " * 40 + "circle")
    assert long.shape == (1, 35)
    assert long[0, -1] == vqa.tokenizer.convert_tokens_to_ids("[SEP]")


def test_enc_opens_the_question_and_counts() -> None:
    vqa = small_vqa()
    ids = vqa.ask("a red circle")
    assert ids[0, 0] == vqa.encode_id != vqa.tokenizer.cls_token_id
    embeds = vqa.see(pictures(1))
    other = ids.clone()
    other[0, 0] = vqa.tokenizer.cls_token_id
    assert (vqa.answers(embeds, [ids]) - vqa.answers(embeds, [other])).abs().item() > 1e-4


def test_published_tokenizers_have_no_marks_and_get_the_last_two_rows() -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no"]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    text = BlipConfig(text_config={"vocab_size": 9, "bos_token_id": 7}).text_config
    assert marks(tokenizer, text) == (7, 8)
    text.vocab_size = 8
    with pytest.raises(WeightsError, match="8 rows"):
        marks(tokenizer, text)


def test_questions_of_different_lengths_do_not_touch_each_other() -> None:
    vqa = small_vqa().double()
    embeds = vqa.see(pictures(2).double())
    questions = [vqa.ask(phrase) for phrase in ("a red circle", "a ring", "a blue striped square", "a cyan star")]
    together = vqa.answers(embeds, questions)
    alone = torch.cat([vqa.answers(embeds, [ids]) for ids in questions], dim=1)
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)
    assert together.unique().numel() == together.numel()


def test_answers_are_those_of_transformers_own_generation() -> None:
    vqa = small_vqa()
    phrases = ("a red circle", "a blue striped square")
    for phrase in phrases:
        ids, views = vqa.ask(phrase), pictures(1)
        out = vqa.network.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=(views - vqa.mean) / vqa.std,
            max_new_tokens=1, output_logits=True, return_dict_in_generate=True,
        )  # fmt: skip
        wanted = out.logits[0][0, vqa.yes_id] - out.logits[0][0, vqa.no_id]
        torch.testing.assert_close(vqa.answers(vqa.see(views), [ids])[0, 0], wanted, rtol=1e-5, atol=1e-5)


def test_the_epsilon_is_blips_whatever_the_folder_says(tmp_path: Path) -> None:
    small_vqa().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for said in (1e-5, None):
        config["vision_config"].pop("layer_norm_eps", None)
        config["vision_config"] |= {"layer_norm_eps": said} if said else {}
        (tmp_path / "config.json").write_text(json.dumps(config))
        layers = [m for m in Vqa.load(tmp_path).network.vision_model.modules() if isinstance(m, torch.nn.LayerNorm)]
        assert len(layers) == 5
        assert {layer.eps for layer in layers} == {1e-6}


def test_images_may_be_larger_than_the_checkpoints(folders: tuple[Path, Path]) -> None:
    """384 and 480 of the published models: the position table is interpolated, and at its own size left alone."""
    vqa = Vqa.load(folders[0])
    plain = vqa.network.vision_model(pixel_values=(pictures(1) - vqa.mean) / vqa.std).last_hidden_state
    assert torch.equal(vqa.see(pictures(1)), plain)
    large = make(vqa=folders[0], vqa_size=40)
    assert large.input_size == 40
    assert large.vqa.see(pictures(1, size=40)).shape[1] == 1 + 5 * 5
    assert large.read(NONE)(pictures(2, size=40)).shape == (2,)
    with pytest.raises(OptionError, match=r"vqa_size is 33.*patches of 8"):
        make(vqa=folders[0], vqa_size=33)


def test_the_loss_is_minus_the_logarithm_of_the_benchmarks_product() -> None:
    vqa = small_vqa()
    phrases = ("a red circle", "a blue star")
    answers = vqa.answers(vqa.see(pictures(2)), [vqa.ask(phrase) for phrase in phrases])
    loss = referee(vqa).read(NONE)(pictures(2))
    torch.testing.assert_close((-2 * loss).exp(), answers.sigmoid().prod(dim=1))
    far = torch.tensor([[-200.0, 0.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(attribute_loss(far).sum(), far)
    assert gradient[0, 0].item() == pytest.approx(-0.5)  # no floor under which the gradient dies


# --- the detector --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Owlv2Config, OwlViTConfig])
def test_the_detector_is_transformers_forward(kind: Any) -> None:
    detector = small_detector(kind=kind)
    phrases = ["a red circle", "a blue square"]
    ids = detector.tokenizer(phrases, return_tensors="pt").input_ids
    views = pictures(1)
    out = detector.network(input_ids=ids, pixel_values=(views - detector.mean) / detector.std)
    logits, boxes = detector.find(views, detector.queries(phrases))
    torch.testing.assert_close(logits, out.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(boxes, out.pred_boxes)


def test_x_runs_to_the_right_and_y_downwards() -> None:
    detector = small_detector()
    torch.nn.init.zeros_(detector.network.box_head.dense2.weight)
    _, boxes = detector.find(pictures(1), detector.queries(["a ring"]))
    grid = boxes.view(1, 4, 4, 4)
    assert (grid[0, :, 1:, 0] > grid[0, :, :-1, 0]).all()
    assert (grid[0, 1:, :, 1] > grid[0, :-1, :, 1]).all()
    logits = torch.full((1, 16, 1), -9.0)
    logits[0, 4 * 3 + 0] = 9.0  # the last row's first column: below, left
    x, y = soft_centres(logits, boxes, 0.5)[0, 0].tolist()
    assert x < 0.3
    assert y > 0.7


@pytest.mark.parametrize(
    ("relation", "good", "bad"),
    [
        ("left of", (0.2, 0.5), (0.8, 0.5)), ("right of", (0.8, 0.5), (0.2, 0.5)),
        ("above", (0.5, 0.2), (0.5, 0.8)), ("below", (0.5, 0.8), (0.5, 0.2)), ("near", (0.5, 0.4), (0.1, 0.1)),
    ],
)  # fmt: skip
def test_a_hinge_is_what_is_lacking(relation: str, good: tuple[float, float], bad: tuple[float, float]) -> None:
    middle = torch.tensor([[0.5, 0.5]])
    assert relation_loss(torch.tensor([good]), middle, relation, 0.25, 1).item() == 0
    wrong = torch.tensor([bad], requires_grad=True)
    loss = relation_loss(wrong, middle, relation, 0.25, 1)
    lacking = (0.32**0.5 - REACH) if relation == "near" else 0.25 + 0.3
    assert loss.item() == pytest.approx(lacking, abs=1e-5)
    (gradient,) = torch.autograd.grad(loss.sum(), wrong)
    assert relation_loss(wrong - 0.1 * gradient, middle, relation, 0.25, 1).item() < loss.item()


@pytest.mark.parametrize(
    ("x", "y", "aside"), [(-0.3, 0.15, 0.0), (-0.3, -0.25, 0.1), (-0.3, 0.4, 0.25), (0.2, 0.1, 0.1)]
)
def test_what_is_left_but_lower_is_not_left(x: float, y: float, aside: float) -> None:
    at, origin = torch.tensor([[x, y]]), torch.zeros(1, 2)
    lacking = max(0.25 + x, 0)
    for weight in (0.0, 1.0, 2.0):
        assert relation_loss(at, origin, "left of", 0.25, weight).item() == pytest.approx(lacking + weight * aside)
    turned = relation_loss(at.flip(1), origin, "above", 0.25, 1)
    assert turned.item() == pytest.approx(lacking + aside)  # x and y play the same part


def test_resizing_turns_nothing_over() -> None:
    ramp = torch.linspace(0, 1, 50).expand(1, 3, 50, 50)
    for mode in ("bilinear", "bicubic"):
        small = resized(ramp, SIZE, mode)
        assert small.shape == (1, 3, SIZE, SIZE)
        assert (small.diff(dim=-1) > 0).all()
        assert small.diff(dim=-2).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("name", "mode", "steps"), [("Owlv2ImageProcessor", "bilinear", 0.01), ("BlipImageProcessor", "bicubic", 1.5)]
)
def test_images_are_what_transformers_processors_make_of_them(name: str, mode: str, steps: float) -> None:
    """8-bit images made larger, as 512 to 960 px: OWL's by the loop's own resize. BLIP's processor rounds to 8 bits
    after columns and after rows, and cuts overshoot off, so its image keeps away from black and white."""
    pytest.importorskip("torchvision")
    import transformers

    x = ((pictures(1, size=40) * 0.5 + 0.25) * 255).byte()
    processor = getattr(transformers, name)(size={"height": 64, "width": 64})
    theirs = processor(x[0], return_tensors="pt").pixel_values
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in CLIP)
    ours = resize(x / 255, 64) if mode == "bilinear" else resized(x / 255, 64, mode)
    assert ((ours - mean) / std - theirs).mul(std).abs().max() <= steps / 255


# --- the referee ---------------------------------------------------------------------------------------------


def test_it_keeps_the_contract_and_is_frozen(folders: tuple[Path, Path]) -> None:
    one = make(vqa=folders[0], detector=folders[1], apart=1)
    assert isinstance(one, Referee)
    assert one.input_size == SIZE
    for model in (one.vqa, one.detector):
        assert not any(p.requires_grad for p in model.parameters())
        assert not any(m.training for m in model.modules())
    views = pictures(3).requires_grad_()
    losses = one.read(RELATION)(views)
    assert losses.shape == (3,)
    assert losses.dtype == torch.float32
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_folders_come_back_as_they_went(folders: tuple[Path, Path]) -> None:
    one, two = make(vqa=folders[0], detector=folders[1], apart=1), referee(small_vqa(), small_detector(), apart=1)
    assert torch.equal(one.read(RELATION)(pictures(2)), two.read(RELATION)(pictures(2)))


@pytest.mark.parametrize(
    ("prompt", "options"), [(NONE, {"relations": 0}), (RELATION, {"attributes": 0}), (RELATION, {})]
)
def test_gradient_against_finite_differences(prompt: Prompt, options: dict[str, float]) -> None:
    one = referee(small_vqa().double(), small_detector().double(), apart=1, **options)
    loss = one.read(prompt)
    views = pictures(1).double().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(views).sum(), views)
    generator, step = torch.Generator().manual_seed(1), 1e-5
    for _ in range(5):
        way = torch.randn(views.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss(views + step * way) - loss(views - step * way)).item() / (2 * step)
        assert (gradient * way).sum().item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_the_loss_is_the_weighted_sum_of_both_halves() -> None:
    vqa, detector, views = small_vqa(), small_detector(), pictures(2)
    first = referee(vqa, detector, relations=0, apart=1).read(RELATION)(views)
    second = referee(vqa, detector, attributes=0, apart=1).read(RELATION)(views)
    assert (first > 0).all()
    assert (second > 0).all()
    both = referee(vqa, detector, attributes=0.5, relations=3, apart=1).read(RELATION)(views)
    torch.testing.assert_close(both, 0.5 * first + 3 * second)


def test_a_view_is_judged_alone() -> None:
    loss = referee(small_vqa(), small_detector(), apart=1).read(RELATION)
    views = pictures(4)
    together = loss(views)
    torch.testing.assert_close(together, torch.cat([loss(view[None]) for view in views]))
    assert together.unique().numel() == 4


def test_without_a_relation_the_detector_is_silent_and_attributes_play_on() -> None:
    vqa, views = small_vqa(), pictures(2).requires_grad_()
    with_, without = (referee(vqa, detector).read(NONE)(views) for detector in (small_detector(), None))
    assert torch.equal(with_, without)
    (gradient,) = torch.autograd.grad(with_.sum(), views)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()
    with pytest.raises(PromptError, match=r"no relation in it of two .*\(2 phrases, by grammar\).*vqa=FOLDER"):
        referee(detector=small_detector()).read(NONE)


def test_a_relation_that_holds_leaves_the_attributes_gradient_as_it_is() -> None:
    vqa, detector, views = small_vqa(), small_detector(), pictures(1).requires_grad_()
    prompts = [Prompt("x", ("a red circle", "a ring"), (("a red circle", r, "a ring"),)) for r in ("above", "below")]
    hinges = [referee(None, detector, apart=0).read(prompt)(views).item() for prompt in prompts]
    assert min(hinges) == 0 < max(hinges)
    held = prompts[hinges.index(0)]
    (both,) = torch.autograd.grad(referee(vqa, detector, apart=0).read(held)(views).sum(), views)
    (alone,) = torch.autograd.grad(referee(vqa).read(held)(views).sum(), views)
    assert torch.equal(both, alone)
    assert both.any()


def test_two_things_of_one_phrase_are_asked_for_once_and_not_placed() -> None:
    twice = Prompt("a red circle to the left of a red circle")
    vqa, detector, views = small_vqa(), small_detector(), pictures(2)
    with pytest.warns(UserWarning, match="look the same"):
        losses = referee(vqa, detector).read(twice)(views)
    torch.testing.assert_close(losses, referee(vqa).read(Prompt("a red circle"))(views))
    with pytest.warns(UserWarning, match="look the same"), pytest.raises(PromptError, match="nothing to judge"):
        referee(detector=detector).read(twice)


def test_each_half_sees_views_at_its_own_size() -> None:
    vqa, detector = small_vqa(), small_detector(size=48)
    one = referee(vqa, detector, apart=1)
    assert one.input_size == 48
    views = pictures(2, size=48)
    wanted = referee(vqa).read(RELATION)(resized(views, SIZE, "bicubic"))
    placed = referee(None, detector, apart=1).read(RELATION)(views)
    torch.testing.assert_close(one.read(RELATION)(views), wanted + placed)
    with pytest.raises(ValueError, match=r"\(b, 3, 48, 48\)"):
        one.read(RELATION)(pictures(1))


def test_phrases_come_as_data_and_the_source_can_be_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    one = referee(small_vqa())
    with caplog.at_level(logging.INFO, "referee_grounding_vqa"):
        assert one.ask(NONE).source == "grammar"
        given = Prompt("it does not matter", ("a red circle", "a blue star"))
        assert torch.equal(one.read(given)(pictures(2)), one.read(NONE)(pictures(2)))
    assert "phrases by grammar: ('a red circle', 'a blue star')" in caplog.text
    assert "phrases by data" in caplog.text


def test_a_prompt_without_a_thing_is_refused() -> None:
    with pytest.raises(PromptError, match=r"Understood was: nothing.*phrases="):
        referee(small_vqa()).read(Prompt("..."))


def test_half_precision_touches_the_vision_towers_only() -> None:
    vqa, detector, views = small_vqa(), small_detector(), pictures(2).requires_grad_()
    exact = referee(vqa, detector, apart=1).read(RELATION)(views)
    one = referee(vqa, detector, Place(dtype="bfloat16"), apart=1)
    losses = one.read(RELATION)(views)
    assert losses.dtype == torch.float32
    assert {p.dtype for p in vqa.parameters()} == {torch.float32}
    assert not torch.equal(losses, exact)
    torch.testing.assert_close(losses, exact, rtol=0.1, atol=0.1)
    (gradient,) = torch.autograd.grad(losses.sum(), views)
    assert gradient.isfinite().all()


# --- the plug-in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"attributes": -1}, {"relations": float("nan")}, {"attributes": 0, "relations": 0}, {"temperature": 0},
     {"apart": 2}, {"colour": "red"}],
)  # fmt: skip
def test_options_that_make_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Options.model_validate(options)


def test_no_checkpoint_given(folders: tuple[Path, Path]) -> None:
    for options in ({}, {"vqa": folders[0], "attributes": 0}, {"detector": folders[1], "relations": 0}):
        with pytest.raises(OptionError, match=r"nothing to judge by.*--zoo pocket"):
            make(**options)
    with pytest.raises(OptionError, match="none is given"):
        referee()


@pytest.mark.parametrize("half", ["vqa", "detector"])
@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer_config.json"])
def test_a_missing_file_is_named(tmp_path: Path, half: str, name: str) -> None:
    (small_vqa() if half == "vqa" else small_detector()).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(WeightsError, match=rf"{name} is missing.*grounding-vqa:{half}=FOLDER"):
        make(**{half: tmp_path})


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    small_detector().save(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(WeightsError, match="has no tokenizer"):
        make(detector=tmp_path)


def test_a_cut_file_is_named(tmp_path: Path) -> None:
    small_vqa().save(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(WeightsError, match="bytes where its header promises"):
        make(vqa=tmp_path)


def test_the_halves_are_not_mistaken_for_each_other(folders: tuple[Path, Path]) -> None:
    with pytest.raises(WeightsError, match="of type 'owlv2', not blip"):
        make(vqa=folders[1])
    with pytest.raises(WeightsError, match="of type 'blip', not owlv2 or owlvit"):
        make(detector=folders[0])


@pytest.mark.parametrize("half", ["vqa", "detector"])
def test_half_a_checkpoint_is_refused(tmp_path: Path, half: str) -> None:
    (small_vqa() if half == "vqa" else small_detector()).save(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    name = next(name for name in sorted(state) if "layers.1" in name)
    del state[name]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(WeightsError, match=f"lack 1 tensors of a .*, first {name}: .* Get both"):
        make(**{half: tmp_path})


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(OptionError, match="float8"):
        referee(small_vqa(), place=Place(dtype="float8"))


def test_importing_the_plug_in_is_light() -> None:
    code = (
        "import sys, referee_grounding_vqa; heavy = {'torch', 'transformers', 'jaxtyping'} & sys.modules.keys(); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("half", "value"),
    [
        ("vision_config", {"num_attention_heads": 0}),
        ("text_config", {"hidden_size": "wide"}),
        ("text_config", []),
        ("vision_config", 3),
    ],
)
def test_a_damaged_configuration_is_a_sentence(tmp_path: Path, half: str, value: object) -> None:
    small_vqa().save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config[half] = config[half] | value if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(WeightsError, match="cannot be loaded"):
        Vqa.load(tmp_path)
