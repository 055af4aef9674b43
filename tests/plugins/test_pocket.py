"""The pocket zoo: its world is what it says, and its weights measure what their cards claim."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest
import torch

import referee_pocket
from referee import zoos
from referee.errors import PromptError, WeightsError
from referee.folder.record import hashes
from referee.hooks import Place
from referee.plugins import discover
from referee.settings import build
from referee.testing import check_prior, check_referee, check_zoo
from referee_pocket import WEIGHTS, checkpoints, world
from referee_pocket.judge import NONE, Found, Judge, verdict
from referee_pocket.train import blip2, clip, detector, judge, loop, vae, vqa
from referee_pocket.train.data import augmented, moved, one_palette, swap
from referee_pocket.train.misdrawn import bend
from referee_pocket.train.text_tower import to_clip_text_model
from referee_pocket.train.tokens import bert_tokenizer, clip_tokenizer, question_tokenizer
from referee_pocket.words import (
    HELD_SINGLES,
    MAX_WORDS,
    RELATIONS,
    VOCABULARY,
    Thing,
    Wanted,
    check_prompt,
    held_out,
    held_pairs,
    parse,
    prompts,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes() -> world.Scenes:
    return world.sample(400, generator())


def test_scenes_come_back_from_their_seed(scenes):
    again = world.sample(400, generator())
    assert torch.equal(world.render(scenes), world.render(again))
    assert not torch.equal(world.render(world.sample(4, generator(1))), world.render(again)[:4])


def test_things_neither_overlap_nor_leave_the_picture(scenes):
    centre, radius, present = scenes.centre, scenes.radius[..., None], scenes.present
    assert ((centre - radius > 0) & (centre + radius < world.SIZE))[present].all()
    gap = torch.cdist(centre, centre) - scenes.radius[:, :, None] - scenes.radius[:, None, :]
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(3, dtype=torch.bool)
    assert gap[pairs].min() >= 1.5


def test_pictures_show_the_colours_they_are_of():
    scenes = world.sample(200, generator(3), count=1)
    middle = world.cover(scenes)[:, 0] > 0.99
    solid = scenes.texture[:, 0] == 0
    image = world.render(scenes).permute(0, 2, 3, 1)
    for i in solid.nonzero().flatten().tolist():
        ink = world.RGB[scenes.colour[i, 0]]
        assert (image[i][middle[i]] - ink).abs().max() < 0.05


def test_training_scenes_show_nothing_that_is_held_out(scenes):
    kinds = [[thing.kind for thing in scenes.things(i)] for i in range(len(scenes))]
    assert not any(held_out(each) for each in kinds)
    everything = world.sample(2000, generator(5), with_held_out=True)
    assert any(held_out([t.kind for t in everything.things(i)]) for i in range(2000))


def test_captions_are_true(scenes):
    draw = random.Random(0)
    relations = 0
    for i in range(len(scenes)):
        wanted = world.caption(scenes, i, draw)
        assert sorted(map(str, wanted.things)) == sorted(map(str, scenes.things(i)))
        assert parse(str(wanted)) == wanted
        if wanted.relation is not None:
            relations += 1
            where = {str(t): scenes.centre[i, j] for j, t in enumerate(scenes.things(i))}
            if len(where) == 2:
                dx, dy = (where[str(wanted.things[0])] - where[str(wanted.things[1])]).tolist()
                assert (dx < 0, dx > 0, dy < 0, dy > 0)[wanted.relation]
    assert relations > 50


def test_prompts_are_held_out_and_apart():
    test, tune = prompts("test", 120), prompts("tune", 60)
    assert not set(test) & set(tune)
    for split, texts in (("test", test), ("tune", tune)):
        for i, text in enumerate(texts):
            a, b = (thing.kind for thing in parse(text).things)
            assert a[0] != b[0]
            assert a[1] != b[1]
            if i % 4 == 3:
                assert len({a, b} & HELD_SINGLES) == 1
            else:
                assert held_pairs()[frozenset((a, b))] == split
    assert all(parse(text).relation is not None for text in prompts("test", 20, "relations"))


def test_prompts_of_three_things_are_held_out_in_one_thing_and_apart():
    test, tune = prompts("test", 120, "complex"), prompts("tune", 120, "complex")
    assert not set(test) & set(tune)
    for split, texts in (("test", test), ("tune", tune)):
        asked = [parse(text) for text in texts]
        assert [str(wanted) for wanted in asked] == texts
        for i, wanted in enumerate(asked):
            kinds = [thing.kind for thing in wanted.things]
            assert all(len({kind[side] for kind in kinds}) == 3 for side in (0, 1))
            singles = HELD_SINGLES & set(kinds)
            pairs = [held_pairs()[pair] for pair in map(frozenset, combinations(kinds, 2)) if pair in held_pairs()]
            assert (len(singles), pairs) == ((1, []) if i % 4 == 3 else (0, [split]))
            assert all(kind[0] % 2 == (split == "test") for kind in singles)
        related = [wanted.relation is not None for wanted in asked]
        assert sum(related) == sum(related[3::4]) * 4 == 60
    assert prompts("test", 30, "complex") == test[:30]


def test_what_was_measured_before_is_asked_again():
    """The lists that published numbers are of."""
    sums = {
        (split, suite): hashlib.sha256("\n".join(prompts(split, 300, suite)).encode()).hexdigest()[:16]
        for split in ("test", "tune") for suite in ("attributes", "relations")
    }  # fmt: skip
    assert sums == {
        ("test", "attributes"): "47ca86a75bf73778", ("test", "relations"): "c70f13df36d7190b",
        ("tune", "attributes"): "a90e1fa1f9c37ebb", ("tune", "relations"): "9458de8457ab7e02",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a red circle above a blue star, a black ring", "not of the form"),
        ("a red circle and a black ring above a blue star", "not of the form"),
        ("a red circle above a blue star below a black ring", "not of the form"),
        ("a red circle above a blue star and a black ring and a cyan ring", "room for one more thing"),
    ],
)
def test_a_relation_has_its_two_things_first_and_one_more_at_most(text, says):
    with pytest.raises(PromptError, match=says):
        parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a red dog", "does not know 'dog'"),
        ("a red circle & a blue ring", "does not know '&'"),
        ("a_red circle", "does not know '_'"),
        ("a red circle and " * 6 + "a red circle", f"reads {MAX_WORDS}"),
    ],
)
def test_what_the_world_lacks_is_refused(text, says):
    with pytest.raises(PromptError, match=says):
        check_prompt(text)


@pytest.mark.parametrize("text", ["red", "a circle", "a red circle blue", "a red circle above", "above above above"])
def test_words_out_of_grammar_cannot_be_judged(text):
    check_prompt(text)
    with pytest.raises(PromptError):
        parse(text)


def test_every_word_is_one_token():
    for tokenizer in (clip_tokenizer(), bert_tokenizer(), question_tokenizer()):
        for word in VOCABULARY:
            assert len(tokenizer.tokenize(word)) == 1, word
        ids = [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word)[0]) for word in VOCABULARY]
        assert len(set(ids)) == len(VOCABULARY)
        assert tokenizer.unk_token_id not in ids


def test_masks_move_with_their_picture():
    scenes = world.sample(8, generator(7), count=1)
    masks = moved(world.cover(scenes), generator(8))[:, 0] > 0.95
    flat = world.sample(8, generator(7), count=1)
    flat.corners = torch.ones_like(flat.corners)
    flat.texture[:] = 0
    view = augmented(world.render(flat), generator(8))
    # Where the moved mask is full the view shows ink: far from the white of the ground in some channel.
    for i in range(8):
        if masks[i].sum() > 40:
            assert view[i].amin(0)[masks[i]].median() < 0.6


def test_swap_keeps_the_words_and_breaks_the_binding():
    wanted = parse("a red striped circle and a blue star")
    other = swap(wanted)
    assert str(other) == "a blue circle and a red striped star"


def test_a_text_tower_is_the_same_in_both_libraries():
    torch.manual_seed(0)
    model, tokenizer = clip.build().eval(), clip_tokenizer()
    ids = clip.tokenize(tokenizer, ["a red circle and a blue star", "a ring"])
    with torch.no_grad():
        pooled = to_clip_text_model(model, tokenizer)(ids).pooler_output
        assert torch.allclose(pooled @ model.text_projection, model.encode_text(ids), atol=1e-6)


def found(*words: str, at: tuple[tuple[float, float], ...] = ((10, 10), (50, 50), (10, 50))) -> tuple[Found, ...]:
    things = [parse(word).things[0] for word in words]
    return tuple(Found(t, x, y, 0.9) for t, (x, y) in zip(things, at, strict=False))


def test_a_verdict_needs_every_attribute():
    wanted = parse("a red circle and a blue striped star")
    assert verdict(found("a blue striped star", "a red circle"), wanted).binding
    swapped = verdict(found("a red striped star", "a blue circle"), wanted)
    assert not swapped.binding
    assert swapped.attributes == pytest.approx(4 / 6)
    assert swapped.swapped
    assert not verdict(found("a red star", "a blue circle"), parse("a red circle and a cyan star")).swapped
    extra = verdict(found("a red circle", "a blue striped star", "a cyan ring"), wanted)
    assert extra.binding
    assert not extra.exact
    misdrawn = (Found(Thing(0, NONE, 0), 1, 1, 0.9), *found("a blue striped star"))
    assert not verdict(misdrawn, wanted).binding
    assert verdict((), wanted).attributes == 0


@pytest.mark.parametrize(
    ("words", "index"), [("to the left of", 0), ("to the right of", 1), ("above", 2), ("below", 3)]
)
def test_a_relation_is_read_off_the_places(words, index):
    places = [((10, 30), (50, 34)), ((50, 30), (10, 34)), ((30, 10), (34, 50)), ((30, 50), (34, 10))]
    wanted = parse(f"a red circle {RELATIONS[index]} a blue star")
    for i, at in enumerate(places):
        assert verdict(found("a red circle", "a blue star", at=at), wanted).relation is (i == index)
    assert verdict(found("a red circle"), wanted).relation is False


def test_a_training_that_was_stopped_ends_where_an_unbroken_one_does(tmp_path, capsys):
    def train(folder: Path, *, stop: int | None = None) -> torch.Tensor:
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 1)

        def loss(step: int, draw: torch.Generator) -> torch.Tensor:
            if step == stop:
                raise KeyboardInterrupt
            return model(torch.randn(8, 4, generator=draw)).square().mean()

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop, "SAVE_EVERY", 0)
            loop.fit("toy", model, loss, steps=12, lr=0.1, work=folder)
        return model.weight.detach().clone()

    whole = train(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "b", stop=7)
    assert torch.equal(train(tmp_path / "b"), whole)


def test_importing_the_plugin_imports_no_torch():
    code = "import sys, referee_pocket; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- the weights ---


def test_the_weights_are_small_and_whole():
    assert not [fault for checkpoint in checkpoints() for fault in zoos.faults(checkpoint)]
    files = json.loads((WEIGHTS / "manifest.json").read_text())
    assert sum(entry["bytes"] for entry in files.values()) <= 25e6
    for name, entry in files.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == entry["sha256"], name
    assert not [p for p in WEIGHTS.rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl")]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_copy_is_refused(tmp_path, monkeypatch, damage):
    copy = tmp_path / "weights"
    shutil.copytree(WEIGHTS, copy)
    victim = copy / "blip2" / "model.safetensors"
    if damage == "missing":
        victim.unlink()
    else:
        victim.write_bytes(victim.read_bytes()[:-100])
    monkeypatch.setattr(referee_pocket, "WEIGHTS", copy)
    damaged = next(checkpoint for checkpoint in checkpoints() if checkpoint.name == "blip2")
    with pytest.raises(WeightsError, match=r"model.safetensors.*Install the package again"):
        zoos.require(damaged)


def test_a_cut_manifest_is_refused(tmp_path, monkeypatch):
    (tmp_path / "manifest.json").write_text('{"blip2/config.json": {"by')
    monkeypatch.setattr(referee_pocket, "WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match=r"manifest.json is cut short.*Install the package again"):
        checkpoints()


def test_a_run_records_the_weights_that_it_read_and_no_others():
    own = {"name": "blip2", "options": {"model": "/elsewhere"}}
    settings = build([{"referees": [{"name": "clip"}, own], "prior": {"name": "stable-diffusion"}}])
    found = hashes(settings, discover())
    assert {name.partition("/")[0] for name in found} == {"clip", "prior"}
    path = WEIGHTS / "clip" / "open_clip_model.safetensors"
    assert found["clip/open_clip_model.safetensors"] == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_not_here_says_how_it_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(referee_pocket, "WEIGHTS", tmp_path)
    prior = next(checkpoint for checkpoint in checkpoints() if checkpoint.name == "prior")
    with pytest.raises(WeightsError, match=r"zoo's prior .* manifest.json is missing in .*Install the package"):
        zoos.require(prior)


def test_the_libraries_own_loaders_open_the_folders():
    import open_clip
    from diffusers import AutoencoderTiny, StableDiffusionPipeline
    from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

    pipeline = StableDiffusionPipeline.from_pretrained(WEIGHTS / "prior", safety_checker=None)
    assert isinstance(pipeline.vae, AutoencoderTiny)
    network, report = Blip2ForImageTextRetrieval.from_pretrained(WEIGHTS / "blip2", output_loading_info=True)
    assert not report["missing_keys"]
    assert network.num_parameters() > 1e6
    assert AutoTokenizer.from_pretrained(WEIGHTS / "blip2").bos_token == "[DEC]"
    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{WEIGHTS / 'clip'}")
    ids = open_clip.get_tokenizer(f"local-dir:{WEIGHTS / 'clip'}")(["a red circle"])
    # The prior listens to this very text tower.
    with torch.no_grad():
        told = pipeline.text_encoder(ids).pooler_output.float() @ model.text_projection
        assert torch.allclose(told, model.encode_text(ids), atol=2e-2)


@pytest.fixture(scope="module")
def autoencoder():
    from diffusers import AutoencoderTiny

    return AutoencoderTiny.from_pretrained(WEIGHTS / "prior" / "vae", torch_dtype=torch.float32)


@torch.no_grad()
def test_the_vae_keeps_29_decibels_per_image(autoencoder):
    x = world.render(world.sample(256, loop.generator("held", "vae"), with_held_out=True))
    z = autoencoder.encode(x * 2 - 1).latents * autoencoder.config.scaling_factor
    y = (autoencoder.decode(z / autoencoder.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    assert (-10 * (x - y).square().mean((1, 2, 3)).log10()).mean() >= 29
    assert z.std() == pytest.approx(1, abs=0.05)


def test_the_judge_sees_what_is_there(autoencoder):
    found = judge.measure(Judge().detector, autoencoder, n=300)
    assert found["clean/binding"] >= 0.97
    assert found["reconstructed/binding"] >= 0.93
    assert found["refuses_misdrawn"] >= 0.7


def test_blip2_tells_right_from_wrong_binding(autoencoder):
    from referee_blip2.model import Blip2

    found = blip2.measure(Blip2.load(WEIGHTS / "blip2"), autoencoder)
    for kind in ("clean", "augmented"):
        for loss in ("itm", "caption"):
            assert found[f"{kind}/{loss}_swapped"] >= 0.97, (kind, loss, found)


def test_the_vqa_tells_right_from_swapped_attributes(autoencoder):
    from referee_grounding_vqa.vqa import Vqa

    found = vqa.measure(Vqa.load(WEIGHTS / "vqa"), autoencoder)
    assert all(found[f"{kind}/right_over_swapped"] >= 0.95 for kind in ("clean", "augmented")), found


def test_the_detector_knows_where_things_are(autoencoder):
    from referee_grounding_vqa.detector import Detector

    found = detector.measure(Detector.load(WEIGHTS / "detector"), autoencoder)
    for kind in ("clean", "augmented", "recoded"):
        assert found[f"{kind}/centre_error_median_px"] <= 4, found
        assert found[f"{kind}/relation_right"] >= 0.95, found


def test_transformers_own_classes_open_the_grounding_folders():
    from transformers import AutoTokenizer, BlipForQuestionAnswering, Owlv2ForObjectDetection

    for kind, part in ((BlipForQuestionAnswering, "vqa"), (Owlv2ForObjectDetection, "detector")):
        _, report = kind.from_pretrained(WEIGHTS / part, output_loading_info=True)
        assert not report["missing_keys"], part
        ids = AutoTokenizer.from_pretrained(WEIGHTS / part)("a red striped circle").input_ids
        assert len(ids) == 6, part
    assert sum(p.stat().st_size for part in ("vqa", "detector") for p in (WEIGHTS / part).iterdir()) <= 6e6


def beside(axis: int, shift: float) -> torch.Tensor:
    """24 backgrounds with a blue square in the middle and a red circle that many pixels from it."""
    scenes = world.sample(24, generator(11), count=2)
    scenes.colour[:, :2], scenes.shape[:, :2] = torch.tensor([0, 2]), torch.tensor([0, 1])
    scenes.texture[:] = 0
    scenes.radius[:] = 10
    scenes.centre[:, :2] = 32.0
    scenes.centre[:, 0, axis] += shift
    return world.render(scenes)


@pytest.mark.parametrize(("relation", "axis", "way"), [(0, 0, -1), (1, 0, 1), (2, 1, -1), (3, 1, 1)])
def test_the_hinge_moves_a_thing_to_the_right_side(relation, axis, way):
    from referee.contract import Prompt
    from referee.gradients import resize
    from referee_grounding_vqa import Options
    from referee_grounding_vqa.detector import Detector
    from referee_grounding_vqa.referee import GroundingVqaReferee

    options = Options(attributes=0, apart=0.5)
    referee = GroundingVqaReferee(None, Detector.load(WEIGHTS / "detector"), options, Place())
    loss = referee.read(Prompt(f"a red circle {RELATIONS[relation]} a blue square"))
    values = []
    for shift in (-20, -16, -12, 12, 16, 20):
        x = beside(axis, way * shift)
        other = resize(resize(x, 96), 64)  # through another size, which turns nothing over
        values.append(torch.stack([loss(x), loss(other)]).mean(1))
    assert (torch.stack(values).diff(dim=0) < 0).all(), values
    assert (values[0] > values[-1] + 0.4).all()
    x = beside(axis, way * -14).requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x).sum(), x)
    step = beside(axis, way * -12) - x.detach()  # two pixels the right way
    assert ((gradient * step).sum((1, 2, 3)) < 0).float().mean() >= 0.9


def test_clip_finds_the_caption_among_a_hundred(tmp_path):
    metrics = json.loads((WEIGHTS / "metrics.json").read_text())
    assert metrics["clip"]["retrieval_of_100"] > 0.5  # chance is .01


def test_a_vae_batch_has_a_loss_that_falls_to_zero_at_the_truth():
    x = torch.rand(2, 3, 64, 64, generator=generator()) * 2 - 1
    assert vae.reconstruction_loss(x, x, 0.3) == 0
    assert vae.reconstruction_loss(-x, x, 0.3) > 0.1


def test_wanted_reads_as_a_sentence():
    three = Wanted((Thing(0, 0), Thing(4, 3, 1), Thing(7, 6)))
    assert str(three) == "a red circle, an orange striped star and a black ring"


PARTS = {"clip": check_referee, "blip2": check_referee, "stable-diffusion": check_prior}


@pytest.mark.parametrize("name", PARTS)
def test_its_parts_pass_the_checks_of_their_kind(name):
    registry = discover()
    kind = "prior" if name == "stable-diffusion" else "referee"
    options = zoos.options_of(checkpoints(), name)
    assert {outcome.status for outcome in PARTS[name](registry.find(kind, name), options)} == {"ok"}


def test_it_passes_the_checks_of_a_zoo():
    registry = discover()
    assert {outcome.status for outcome in check_zoo(registry.find("zoo", "pocket"), registry)} == {"ok"}


def test_a_batch_of_one_palette_shares_its_colours() -> None:
    def palettes(scenes: world.Scenes) -> int:
        return len({frozenset(thing.colour for thing in scenes.things(i)) for i in range(len(scenes))})

    draw = torch.Generator().manual_seed(2)
    scenes, captions = one_palette(64, draw)
    assert palettes(scenes) < palettes(world.sample(64, draw)) / 2
    assert len(captions) == len(scenes) == 64
    for i, caption in enumerate(captions):
        assert set(caption.things) <= set(scenes.things(i))
    assert len({thing.shape for i in range(64) for thing in scenes.things(i)}) == 8


def test_fine_fakes_are_near_what_they_pretend_and_are_none() -> None:
    atlases = []
    for fine in (False, True):
        scenes = world.sample(40, torch.Generator().manual_seed(3), count=2)
        atlas, names = bend(scenes, torch.Generator().manual_seed(4), fakes=1.0, fine=fine)
        assert (names == NONE).all()
        atlases.append(atlas < 0)
    true, (coarse, near) = atlases[0][:8].float(), (shapes[-24:].float() for shapes in atlases)
    assert torch.equal(atlases[0][:32], atlases[1][:32])  # what is no fake is the same

    def overlap(fakes: torch.Tensor) -> torch.Tensor:
        both = torch.einsum("fhw,thw->ft", fakes, true)
        return (both / (fakes.sum((1, 2))[:, None] + true.sum((1, 2)) - both)).amax(1)

    assert overlap(near).mean() > overlap(coarse).mean()
    assert overlap(near).max() < 0.99
