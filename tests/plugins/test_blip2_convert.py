"""`referee convert blip2`: LAVIS' files, and EVA's, to a folder that gives LAVIS' own numbers."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import Blip2ForImageTextRetrieval

from referee.command.app import main
from referee.errors import WeightsError
from referee.plugins import discover
from referee.testing import check_converter
from referee_blip2.convert import convert, read_tensors
from referee_blip2.eva import stretch
from referee_blip2.loss import matching_loss, token_losses
from referee_blip2.model import Blip2
from referee_blip2.options import FILES, Conversion
from referee_blip2.sizes import config_of
from referee_blip2.vocabulary import read_vocabulary

SIBLING = Path(__file__).parents[2].parent / "shared" / "data"
CASE = Path(os.environ.get("REFEREE_TEST_DATA", SIBLING)) / "blip2_parity" / "case_a"
pytestmark = pytest.mark.skipif(not CASE.is_dir(), reason="no parity data: set REFEREE_TEST_DATA")

HEADS = ("--vision-heads", "4", "--qformer-heads", "4")
TIED = ("Qformer.cls.predictions.decoder.weight", "Qformer.bert.embeddings.word_embeddings.weight")
State = dict[str, Tensor]


def lavis() -> State:
    """The case's whole LAVIS state dict, its tied weights one tensor as they are in LAVIS."""
    state = load_file(CASE / "weights.safetensors")
    state[TIED[0]] = state[TIED[1]]
    state["Qformer.cls.predictions.bias"] = state["Qformer.cls.predictions.decoder.bias"]
    return state


def split(state: State) -> tuple[State, State]:
    """As LAVIS publishes it: stage 1 without the tower, and EVA's tower in half precision, with a block and a head
    more than LAVIS takes."""
    tower = {name.removeprefix("visual_encoder."): t for name, t in state.items() if name.startswith("visual_encoder.")}
    stage = {name: t for name, t in state.items() if not name.startswith("visual_encoder.")}
    more = {name.replace("blocks.2.", "blocks.3."): t + 1 for name, t in tower.items() if name.startswith("blocks.2.")}
    end = {f"{name}.{kind}": torch.randn(48) for name in ("norm", "fc_norm", "head") for kind in ("weight", "bias")}
    return stage, {name: tensor.half() for name, tensor in (tower | more | end).items()}


def command(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "referee", "convert", "blip2", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, check=False, env=os.environ | environment)


def expected(dtype: torch.dtype) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CASE / "expected.json").read_text())[str(dtype).removeprefix("torch.")]
    return content


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with LAVIS' two files, as torch saves them."""
    folder = tmp_path_factory.mktemp("published")
    stage, tower = split(lavis())
    torch.save({"model": stage}, folder / "blip2_pretrained.pth")
    torch.save(tower, folder / "eva_vit_g.pth")
    torch.save({"model": lavis()}, folder / "whole.pth")
    return folder


@pytest.fixture(scope="module")
def converted(published: Path) -> Path:
    """Converted by the command, in a process of its own."""
    out = published / "converted"
    done = command("--lavis", published / "whole.pth", "--vocab", CASE / "vocab.txt", *HEADS, "--out", out)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{out}\n", "")
    return out


def test_it_passes_the_checks_of_a_converter(published: Path) -> None:
    spec = discover().find("converter", "blip2")
    given = {
        "lavis": published / "blip2_pretrained.pth",
        "eva": published / "eva_vit_g.pth",
        "vocab": CASE / "vocab.txt",
    }
    heads = {"vision_heads": 4, "qformer_heads": 4, "eva_blocks": 3}
    outcomes = check_converter(spec, given | heads)
    assert [outcome.check for outcome in outcomes if outcome.status != "ok"] == []


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize(
    ("dtype", "gradients", "loss_bound", "gradient_bound"),
    [(torch.float32, "grad", 5e-6, 2e-5), (torch.float64, "grad64", 1e-12, 1e-12)],
    ids=["float32", "float64"],
)
def test_the_folder_gives_lavis_numbers(
    converted: Path, attention: Any, dtype: torch.dtype, gradients: str, loss_bound: float, gradient_bound: float
) -> None:
    model = Blip2.load(converted, attention=attention).to(dtype)
    inputs = load_file(CASE / "inputs.safetensors")
    ids, mask, caption = (inputs[k] for k in ("input_ids", "attention_mask", "decoder_input_ids"))
    assert torch.equal(model.opened(ids), caption)
    pixels = inputs["pixel_values"].to(dtype).requires_grad_()
    itm_logits, caption_logits, _ = model.both(model.vision(pixels), ids, mask, caption, mask)
    itm = matching_loss(itm_logits).mean()
    lm = token_losses(caption_logits, caption, mask).sum() / mask[:, 1:].sum()
    assert itm.item() == pytest.approx(expected(dtype)["itm"], rel=loss_bound)
    assert lm.item() == pytest.approx(expected(dtype)["lm"], rel=loss_bound)
    (gradient,) = torch.autograd.grad(itm + lm, pixels)
    wanted = load_file(CASE / "expected_grad.safetensors")[f"{gradients}_total"]
    assert (gradient - wanted).abs().max() / wanted.abs().max() <= gradient_bound


def test_the_folder_is_whole_and_reads_the_captions_as_lavis_does(converted: Path) -> None:
    assert {path.name for path in converted.iterdir()} == {*FILES, "preprocessor_config.json"}
    model, case = Blip2.load(converted), json.loads((CASE / "config.json").read_text())
    inputs = load_file(CASE / "inputs.safetensors")
    read = model.tokenizer(case["captions"], padding="max_length", max_length=case["max_txt_len"], return_tensors="pt")
    assert torch.equal(read.input_ids, inputs["input_ids"])
    assert torch.equal(read.attention_mask, inputs["attention_mask"])
    config = model.network.config
    vision, qformer = config.vision_config, config.qformer_config
    for mine, theirs in ((vision, case["vision"]), (qformer, case["qformer"])):
        for key in ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"):
            assert getattr(mine, key) == theirs[key], key
    assert (vision.image_size, vision.patch_size) == (case["vision"]["image_size"], case["vision"]["patch_size"])
    assert qformer.cross_attention_frequency == case["qformer"]["cross_attention_freq"]
    assert (vision.layer_norm_eps, vision.post_layernorm_eps, qformer.layer_norm_eps) == (1e-6, 1e-5, 1e-12)


def test_the_tower_may_come_from_eva(published: Path, tmp_path: Path) -> None:
    convert_here(published / "blip2_pretrained.pth", tmp_path / "out", eva=published / "eva_vit_g.pth", eva_blocks=3)
    model = Blip2.load(tmp_path / "out")
    state = {name: t.half().float() if name.startswith("visual_encoder.") else t for name, t in lavis().items()}
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "same.safetensors")
    convert_here(tmp_path / "same.safetensors", tmp_path / "same")
    same = Blip2.load(tmp_path / "same").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, same[name]), name


def convert_here(file: Path, folder: Path, **options: Any) -> None:
    """The same without a process."""
    folder.mkdir()
    given = {"vision_heads": 4, "qformer_heads": 4, "vocab": CASE / "vocab.txt"} | options
    convert(Conversion(lavis=file, **given), folder)


def test_the_caption_head_is_added_to_transformers_own_conversion(converted: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    network = Blip2ForImageTextRetrieval.from_pretrained(converted)
    del network.config.vision_config.post_layernorm_eps  # which transformers does not know of
    network.save_pretrained(base)
    file = CASE / "weights.safetensors"
    convert_here(file, tmp_path / "out", base=base)
    one, two = Blip2.load(tmp_path / "out"), Blip2.load(converted)
    assert one.network.vision_model.post_layernorm.eps == 1e-5
    for name, tensor in two.state_dict().items():
        assert torch.equal(one.state_dict()[name], tensor), name
    for tokens in ("tokenizer.json", "tokenizer_config.json"):
        (base / tokens).write_bytes((converted / tokens).read_bytes())
    convert_here(file, tmp_path / "own", base=base, vocab=None)
    assert Blip2.load(tmp_path / "own").decode_id == two.decode_id
    network.embeddings.word_embeddings.weight.data += 1
    network.save_pretrained(base)
    with pytest.raises(WeightsError, match="their word embeddings differ"):
        convert_here(file, tmp_path / "other", base=base)


def test_another_image_size_stretches_the_positions(tmp_path: Path, converted: Path) -> None:
    convert_here(CASE / "weights.safetensors", tmp_path / "out", image_size=98)
    small, large = Blip2.load(converted), Blip2.load(tmp_path / "out")
    assert large.image_size == 98
    before, after = (m.network.vision_model.embeddings.position_embedding[0] for m in (small, large))
    assert after.shape == (1 + 7 * 7, 48)
    assert torch.equal(after[0], before[0])
    grid = before[1:].reshape(4, 4, 48).permute(2, 0, 1)[None]
    wanted = functional.interpolate(grid, (7, 7), mode="bicubic", align_corners=False)[0].permute(1, 2, 0)
    torch.testing.assert_close(after[1:], wanted.reshape(49, 48))
    # transformers stretches in the same way, when it is shown a larger image
    pixels = torch.randn(1, 3, 98, 98)
    theirs = small.network.vision_model(pixel_values=pixels, interpolate_pos_encoding=True).last_hidden_state
    torch.testing.assert_close(large.vision(pixels), theirs)
    assert torch.equal(stretch(before[None], 4), before[None])


# --- refusals -----------------------------------------------------------------------------------------------


class Code:
    """A pickle that would make a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def less(state: State, name: str) -> State:
    assert name in state
    return {key: tensor for key, tensor in state.items() if key != name}


BLOCK = "visual_encoder.blocks.1"
LAYER = "Qformer.bert.encoder.layer"
FAULTS: dict[str, tuple[Callable[[State], State], str]] = {
    "nothing of a block": (lambda s: less(s, f"{BLOCK}.norm1.weight"), "layers.1.layer_norm1.weight"),
    "no whole block": (lambda s: {k: v for k, v in s.items() if not k.startswith(BLOCK)}, "one is missing"),
    "no q bias": (lambda s: less(s, f"{BLOCK}.attn.q_bias"), "q_bias is missing"),
    "no query": (lambda s: less(s, "query_tokens"), "query_tokens"),
    "no text layer": (lambda s: less(s, f"{LAYER}.3.output.dense.bias"), "layer.3.output.dense.bias"),
    "no last norm": (lambda s: less(s, "ln_vision.bias"), "post_layernorm.bias"),
    "no head": (lambda s: less(s, "Qformer.cls.predictions.transform.dense.weight"), "lacks dense.weight"),
    "no decoder": (lambda s: less(s, TIED[0]), "decoder.weight missing"),
    "an unknown name": (lambda s: {**s, "t5_model.shared.weight": torch.zeros(2)}, "t5_model.shared.weight"),
    "an untied decoder": (lambda s: {**s, TIED[0]: s[TIED[0]] + 1}, "not the same matrix"),
    "another size": (lambda s: {**s, "itm_head.weight": torch.zeros(2, 63)}, "itm_head.weight"),
    "cross attention gone": (
        lambda s: {k: v for k, v in s.items() if not k.startswith(f"{LAYER}.0.crossattention")},
        r"looks at the image in layers \[2\]",
    ),
    "positions of no square": (
        lambda s: {**s, "visual_encoder.pos_embed": torch.zeros(1, 16, 48)},
        "15 patches",
    ),
    "no tower": (lambda s: split(s)[0], "--eva eva_vit_g.pth"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_file_that_is_not_right_is_refused(fault: str, tmp_path: Path) -> None:
    change, message = FAULTS[fault]
    torch.save({"model": change(lavis())}, tmp_path / "lavis.pth")
    with pytest.raises(WeightsError, match=message) as caught:
        convert_here(tmp_path / "lavis.pth", tmp_path / "out")
    assert str(caught.value).count(str(tmp_path / "lavis.pth")) == 1


class Desk:
    """The command in this process, in a folder that it must leave as it is."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._patch, self._capture = folder, patch, capture

    def refuses(self, message: str, *words: object) -> None:
        """One sentence, exit code 2, and nothing is written."""
        before = sorted(self.folder.rglob("*"))
        line = ["referee", "convert", "blip2", *map(str, words), "--out", str(self.folder / "out")]
        self._patch.setattr(sys, "argv", line)
        with warnings.catch_warnings(), pytest.raises(SystemExit) as end:
            main()
        said = self._capture.readouterr()
        assert end.value.code == 2
        assert said.out == ""
        assert message in said.err
        assert said.err.count("\n") == 1
        assert sorted(self.folder.rglob("*")) == before


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def test_the_command_refuses_in_one_sentence(tmp_path: Path, published: Path, desk: Desk) -> None:
    words: tuple[object, ...] = ("--vocab", CASE / "vocab.txt", *HEADS)
    torch.save({"model": {**lavis(), "surprise": torch.zeros(1)}}, tmp_path / "unknown.pth")
    desk.refuses("surprise", "--lavis", tmp_path / "unknown.pth", *words)
    stage = published / "blip2_pretrained.pth"
    desk.refuses("--eva eva_vit_g.pth", "--lavis", stage, *words)
    desk.refuses("--eva-blocks N", "--lavis", stage, "--eva", published / "eva_vit_g.pth", *words)
    desk.refuses("leave --eva out", "--lavis", published / "whole.pth", "--eva", stage, *words)
    desk.refuses("nothing.pth is missing", "--lavis", tmp_path / "nothing.pth", *words)
    desk.refuses("--vision-heads N", "--lavis", published / "whole.pth", "--vocab", CASE / "vocab.txt",
                 "--vision-heads", "5")  # fmt: skip
    desk.refuses("leave eva and image_size out", "--lavis", stage, "--base", tmp_path, "--image-size", "56")
    desk.refuses("'lavis' must be given", *words)


def test_without_a_vocabulary_the_hub_is_asked(tmp_path: Path, published: Path) -> None:
    # The tests are off line, and the cache is empty.
    line = ("--lavis", published / "whole.pth", *HEADS, "--out", tmp_path / "out")
    done = command(*line, HF_HOME=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert "say --vocab vocab.txt" in done.stderr
    assert "hf download google-bert/bert-base-uncased vocab.txt" in done.stderr
    assert not (tmp_path / "out").exists()


def test_code_in_a_file_is_never_run(tmp_path: Path, desk: Desk) -> None:
    mark, file = tmp_path / "mark", tmp_path / "code.pth"
    torch.save({"model": Code(mark)}, file)
    pickle.loads(pickle.dumps(Code(mark)))
    assert mark.exists()  # it would have made it
    mark.unlink()
    done = command("--lavis", file, "--vocab", CASE / "vocab.txt", "--out", tmp_path / "out")
    assert (done.returncode, done.stdout, mark.exists(), (tmp_path / "out").exists()) == (2, "", False, False)
    desk.refuses("holds code, which is never run", "--lavis", file, "--vocab", CASE / "vocab.txt")
    file.write_bytes(pickle.dumps({"model": Code(mark)}))
    desk.refuses("holds code, which is never run", "--lavis", file, "--vocab", CASE / "vocab.txt")
    file.write_bytes(pickle.dumps({"model": Code(mark)}, protocol=2))  # as torch saved it of old
    with pytest.raises(WeightsError, match="never run"):
        read_tensors(file)
    assert not mark.exists()


def test_a_file_that_is_cut_short_or_another_is_refused(tmp_path: Path, published: Path, desk: Desk) -> None:
    whole = (published / "whole.pth").read_bytes()
    assert zipfile.is_zipfile(published / "whole.pth")
    file = tmp_path / "lavis.pth"
    for content in (whole[:-100], whole[: len(whole) // 2], whole[:10], b"", b"<html>not found</html>"):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="cut short"):
            read_tensors(file)
    file.write_bytes(whole[:-100])
    desk.refuses("cut short", "--lavis", file, "--vocab", CASE / "vocab.txt")
    for other in (torch.zeros(3), [1, 2], {}, {"model": {"a": 1}}, {"epoch": 3}):
        torch.save(other, file)
        with pytest.raises(WeightsError, match="no table of tensors by name"):
            read_tensors(file)
    torch.save({"weight": torch.zeros(3)}, file)
    with pytest.raises(WeightsError, match="none of a LAVIS BLIP-2, first weight"):
        convert_here(file, tmp_path / "out")


def test_a_vocabulary_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    pieces = (CASE / "vocab.txt").read_text().split("\n")
    vocabulary = tmp_path / "vocab.txt"
    for content, message in (
        (["more", *pieces], "--vocab"),
        ([p for p in pieces if p != "[CLS]"], r"lacks \[CLS\]"),
        ([pieces[0], *pieces], "there twice"),
    ):
        vocabulary.write_text("\n".join(content))
        with pytest.raises(WeightsError, match=message):
            convert_here(CASE / "weights.safetensors", tmp_path / f"out-{message[:4]}", vocab=vocabulary)
    vocabulary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(WeightsError, match="cannot be read"):
        read_vocabulary(vocabulary)


def test_odd_characters_are_word_pieces_and_no_ends_of_lines(tmp_path: Path) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u2028", "\x85", "a"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    assert read_vocabulary(tmp_path / "vocab.txt") == pieces


def test_sizes_are_read_off_the_published_tensors() -> None:
    from referee_blip2.architecture import empty, published

    config = published()
    network, _ = empty(config)
    found = config_of(network.state_dict(), vision_heads=16, qformer_heads=12, padding=0)
    wanted, mine = config.to_dict(), found.to_dict()
    wanted["vision_config"].pop("post_layernorm_eps")
    assert mine["vision_config"] == wanted["vision_config"]
    assert mine["qformer_config"] == wanted["qformer_config"]
    assert (mine["num_query_tokens"], mine["image_text_hidden_size"]) == (32, 256)
