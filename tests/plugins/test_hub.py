"""The full-size zoos: their data against the models' own architectures, and what a run says of an empty cache."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, UNet2DConditionModel
from transformers import (
    BlipConfig,
    BlipForQuestionAnswering,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Owlv2Config,
    Owlv2ForObjectDetection,
)

from referee import zoos
from referee.errors import OptionError, WeightsError
from referee.folder.record import hashes
from referee.hooks import Checkpoint
from referee.layers import preset
from referee.parts import check
from referee.plugins import discover
from referee.prompt import Prompt
from referee.schedules import cosine
from referee.settings import build
from referee_hub import architecture, names, zoo
from referee_hub.architecture import outline
from referee_hub.catalogue import from_tables

ZOOS = ("sd15", "sd21", "sdxl")
PARAMETERS = {
    ("sd15", "unet"): 859_520_964,
    ("sd15", "vae"): 83_653_863,
    ("sd15", "text_encoder"): 123_060_480,
    ("sd15", "taesd"): 2_445_063,
    ("sd21", "unet"): 865_910_724,
    ("sd21", "vae"): 83_653_863,
    ("sd21", "text_encoder"): 340_387_840,
    ("sdxl", "unet"): 2_567_463_684,
    ("sdxl", "vae"): 83_653_863,
    ("sdxl", "text_encoder"): 123_060_480,
    ("sdxl", "text_encoder_2"): 694_659_840,
    ("sdxl", "taesdxl"): 2_445_063,
}


def meta(config: dict[str, Any]) -> torch.nn.Module:
    """A published model without its weights."""
    kinds = {kind.__name__: kind for kind in (UNet2DConditionModel, AutoencoderKL, AutoencoderTiny)}
    with torch.device("meta"):
        if config["_class_name"] in kinds:
            made: torch.nn.Module = kinds[config["_class_name"]].from_config(config)
            return made
        kind = {"CLIPTextModel": CLIPTextModel, "CLIPTextModelWithProjection": CLIPTextModelWithProjection}
        return kind[config["_class_name"]](CLIPTextConfig(**{k: v for k, v in config.items() if k[0] != "_"}))


# --- what is published ---


@pytest.mark.parametrize(("name", "role"), PARAMETERS)
def test_architectures_have_the_published_number_of_parameters(name: str, role: str) -> None:
    config = architecture(name)[role]
    model = meta(config)
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name, role]
    if config["_class_name"][:4] in ("UNet", "Auto"):
        unknown = set(config) - set(model.config) - {"_class_name"}
        assert not unknown, "the library would pass over them"


@pytest.mark.parametrize("name", ZOOS)
def test_published_sizes_are_those_of_the_architectures_in_half_precision(name: str) -> None:
    """Two bytes a parameter (four in the tiny decoders), and a header that names the tensors."""
    shelf = {checkpoint.name: checkpoint for checkpoint in zoo(name).checkpoints()}
    seen = 0
    for role in architecture(name):
        if (name, role) not in PARAMETERS:
            continue
        tiny = role in shelf
        files = shelf[role if tiny else "prior"].files
        (file,) = [f for f in files if f.name.endswith(".safetensors") and (tiny or f.name.startswith(f"{role}/"))]
        assert file.size is not None
        header = file.size - (4 if tiny else 2) * PARAMETERS[name, role]
        assert 0 < header < 300_000, file.name
        seen += 1
    assert seen == len([1 for each, _ in PARAMETERS if each == name]) >= 3


def test_the_models_of_grounding_vqa_have_the_published_sizes() -> None:
    vqa, owl = (json.loads(outline("sd15", name)["config.json"]) for name in ("blip-vqa", "owlv2"))
    with torch.device("meta"):
        asked = BlipForQuestionAnswering(BlipConfig.from_dict(vqa))
        seen = Owlv2ForObjectDetection(Owlv2Config.from_dict(owl))
    decoder = asked.text_decoder.get_output_embeddings().weight
    assert decoder is asked.text_decoder.get_input_embeddings().weight  # the published count has both
    assert sum(p.numel() for p in asked.parameters()) + decoder.numel() == 384_672_572
    assert sum(p.numel() for p in seen.parameters()) == 154_966_792
    assert asked.vision_model.config.image_size == 384
    assert seen.owlv2.vision_model.config.image_size == 960


def test_an_unknown_architecture_is_refused() -> None:
    with pytest.raises(OptionError, match=r"No architecture is known for 'sdxxl'. Did you mean 'sdxl'"):
        architecture("sdxxl")


def test_zoos_are_pinned_data() -> None:
    assert tuple(names()) == ZOOS
    for name in ZOOS:
        for checkpoint in zoo(name).checkpoints():
            repository, _, revision = checkpoint.source.partition("@")
            assert (repository == "" and checkpoint.name == "blip2") or len(revision) == 40
            assert {Path(file.name).suffix for file in checkpoint.files} <= {".json", ".txt", ".safetensors"}
            if repository:
                assert checkpoint.licence
                weights = [file for file in checkpoint.files if file.name.endswith(".safetensors")]
                assert weights
                stated = all(file.size and file.sha256 for file in weights)
                assert stated or checkpoint.name in ("blip-vqa", "owlv2")  # of whom nobody states any


@pytest.mark.parametrize("name", ZOOS)
def test_presets_fit_their_zoo(name: str) -> None:
    registry = discover(environment={"REFEREE_LOAD_PLUGINS": "hub"})
    settings = build([preset(name, registry)])
    side = architecture(name)["unet"]["sample_size"]
    assert settings.zoo == name
    assert settings.height == settings.width == 8 * side
    assert settings.rules.prior_weight == cosine(800 * (side / 64) ** 2, 400 * (side / 64) ** 2)
    paper = build([preset("paper", registry), {"zoo": name}])
    same = {"prior_weight": settings.rules.prior_weight}
    assert settings.rules == paper.rules.model_copy(update=same)
    assert (settings.prior, settings.referees, settings.augmentation) == (
        paper.prior, paper.referees, paper.augmentation
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"repository": "a/b", "revision": "main", "files": {}}, "must be a commit"),
        ({"repository": "a/b", "files": {}}, "must be a commit"),
        ({"folder": "x", "files": {"model.bin": {}}}, "model.bin: only"),
        ({"folder": "x", "files": {"model.py": {}}}, "model.py: only"),
        ({"folder": "x", "files": {"../a.json": {}}}, "below the checkpoint's folder"),
        ({"folder": "x", "files": {"/a.json": {}}}, "below the checkpoint's folder"),
        ({"folder": "x", "files": {"a.json": {"sha256": "abc"}}}, "is no sha256"),
    ],
)
def test_a_zoo_of_anything_but_pinned_data_is_no_zoo(entry: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        from_tables("x", {"summary": "", "preset": "x", "checkpoints": {"x": entry}}, "")


def test_importing_the_plugin_is_light() -> None:
    code = (
        "import sys, referee_hub as p; [p.zoo(n) for n in p.names()]; "
        "bad = {'torch', 'diffusers', 'transformers', 'huggingface_hub'} & set(sys.modules); assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- a cache that is laid out by hand ---


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache and an empty folder of the person's own data."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def ordered(name: str, **changes: Any) -> None:
    """What `referee generate --zoo NAME` checks before it loads anything."""
    registry = discover(environment={"REFEREE_LOAD_PLUGINS": "hub,stable-diffusion,blip2,clip,kornia"})
    check(build([preset(name, registry), changes]), registry, Prompt("a red dog"))


def lay(checkpoint: Checkpoint) -> None:
    """Files of the published sizes, which hold nothing: sparse, so the disk holds nothing either."""
    for file in checkpoint.files:
        path = checkpoint.folder / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            if file.name.endswith(".safetensors"):
                body = (file.size or 1000) - 100
                header = (
                    json.dumps({"w": {"dtype": "U8", "shape": [body], "data_offsets": [0, body]}}).encode().ljust(92)
                )
                stream.write(len(header).to_bytes(8, "little") + header)
                stream.truncate(file.size or 1000)
            else:
                stream.truncate(file.size or 2)


def named(name: str, checkpoint: str) -> Checkpoint:
    return next(found for found in zoo(name).checkpoints() if found.name == checkpoint)


@pytest.mark.parametrize("name", ZOOS)
def test_an_empty_cache_is_refused_with_what_is_missing(cache: Path, name: str) -> None:
    prior = named(name, "prior")
    repository = prior.source.partition("@")[0]
    says = rf"model_index.json of {repository}.* is missing in {prior.folder}, and \d+ more, \d.\d\d GB in all. "
    with pytest.raises(WeightsError, match=says + f"Get it: referee zoo get {name}, or say stable-diffusion:model="):
        ordered(name)
    lay(prior)
    assert list(zoos.faults(prior)) == []
    big = prior.folder / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    big.unlink()
    with pytest.raises(WeightsError, match=rf"unet/diffusion_.*.safetensors of {repository} \(\d.\d\d GB\) is missing"):
        ordered(name)


def test_blip2_is_made_on_this_machine(cache: Path, tmp_path: Path) -> None:
    lay(named("sd15", "prior"))
    with pytest.raises(
        WeightsError,
        match=r"zoo's blip2 .*data/referee/blip2.*Make it: referee convert blip2 --out .*/referee/blip2 .*blip2:model=",
    ):
        ordered("sd15")
    assert named("sd15", "blip2").folder == tmp_path / "data" / "referee" / "blip2"
    own = [{"name": "blip2", "options": {"model": str(tmp_path / "mine")}}]
    with pytest.raises(WeightsError, match=r"There is no folder .*mine"):
        ordered("sd15", referees=own)


def test_a_folder_of_ones_own_needs_no_zoo(cache: Path, tmp_path: Path, save_pipeline: Callable[..., None]) -> None:
    save_pipeline(tmp_path / "own")
    prior = {"name": "stable-diffusion", "options": {"model": str(tmp_path / "own")}}
    ordered("sd15", referees=[], prior=prior)


def test_the_tiny_decoder_is_asked_for_by_name(cache: Path, tmp_path: Path, save_pipeline: Callable[..., None]) -> None:
    save_pipeline(tmp_path / "own")
    prior = {"name": "stable-diffusion", "options": {"model": str(tmp_path / "own"), "vae": "zoo:taesd"}}
    with pytest.raises(WeightsError, match=r"zoo's taesd is not whole.*referee zoo get sd15 taesd"):
        ordered("sd15", referees=[], prior=prior)
    with pytest.raises(OptionError, match=r"vae=zoo:taesd: this zoo has no 'taesd'. Did you mean 'taesdxl'"):
        ordered("sdxl", referees=[], prior=prior)
    with pytest.raises(WeightsError, match=r"zoo's clip is not whole.*referee zoo get sd15 clip, or say clip:model"):
        ordered("sd15", prior={"name": "stable-diffusion", "options": {"model": "x"}}, referees=[{"name": "clip"}])


@pytest.mark.parametrize("name", ZOOS)
def test_a_record_tells_one_blip2_from_another(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made on this machine, so nobody publishes its sums: they are taken of what is here."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    registry = discover(environment={"REFEREE_LOAD_PLUGINS": "hub"})
    settings = build([preset(name, registry)])
    folder = zoos.user_folder("blip2")
    folder.mkdir(parents=True)
    for each in ("model.safetensors", "caption_head.safetensors"):
        (folder / each).write_bytes(each.encode())
    before = hashes(settings, registry)
    assert {"unet/diffusion_pytorch_model.fp16.safetensors", "blip2 model.safetensors"} <= set(before)
    assert before["blip2 caption_head.safetensors"] == sha256(b"caption_head.safetensors").hexdigest()
    (folder / "model.safetensors").write_bytes(b"another")
    after = hashes(settings, registry)
    assert {key for key in before if before[key] != after[key]} == {"blip2 model.safetensors"}
    (folder / "model.safetensors").unlink()
    assert "blip2 model.safetensors" not in hashes(settings, registry)
