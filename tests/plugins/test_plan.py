"""What a run would cost, told without weights: against published figures, torch's own counter and real weights."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from referee.command.app import main
from referee.command.plan import parse_size
from referee.contract import Progress
from referee.errors import OptionError
from referee.inversion import invert
from referee.layers import preset
from referee.parts import assemble, check
from referee.planning.devices import KNOWN
from referee.planning.fit import fit, typed
from referee.planning.meter import Meter, no_numbers, weights
from referee.planning.preflight import Scales, outlined
from referee.plugins import discover
from referee.prompt import Prompt
from referee.randomness import generators
from referee.settings import RefereePart, Settings, build
from referee.typed import parse_part
from referee_hub.architecture import architecture

REGISTRY = discover()
PROMPT = Prompt("a red circle and a blue square")
GIB = 1 << 30


def settings_of(name: str, **more: Any) -> Settings:
    return build([preset(name, REGISTRY), {"device": "cpu"}, more])


def scales_of(name: str) -> Iterator[Scales]:
    zoo = REGISTRY.find("zoo", name)
    with outlined(zoo) as shelf:
        yield Scales(REGISTRY, PROMPT, zoo, shelf)


@pytest.fixture(scope="module")
def sd15(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scales]:
    """Without any file of it on the disk."""
    patch = pytest.MonkeyPatch()
    patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path_factory.mktemp("empty")))
    patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("nothing")))
    yield from scales_of("sd15")
    patch.undo()


@pytest.fixture(scope="module")
def pocket() -> Iterator[Scales]:
    yield from scales_of("pocket")


# --- FLOPs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("views", "step"), [(30, 40.4), (10, 17.9)])
def test_a_step_of_the_papers_size(sd15: Scales, views: int, step: float) -> None:
    """TFLOP, counted by hand from the sizes of the models."""
    found = sd15.weigh(settings_of("sd15", rules={"views": views}))
    prior, blip2 = found.parts
    assert prior.flop["pull"] / 1e12 == pytest.approx(1.61, rel=0.03)
    assert (prior.flop["decode"] + prior.flop["backward"]) / 1e12 == pytest.approx(5.06, rel=0.03)
    assert found.step / 1e12 == pytest.approx(step, rel=0.03)
    assert prior.numbers == pytest.approx(859_520_964 + 83_653_863 + 123_060_480, rel=1e-5)
    assert blip2.numbers == pytest.approx(1_172_032_258 + 622_651, rel=1e-5)
    assert blip2.weights == pytest.approx(4 * blip2.numbers, rel=1e-5)
    assert found.run == 150 * found.step + 10 * (prior.flop["decode"] + prior.flop["pull"])


def test_a_tiny_decoder(sd15: Scales) -> None:
    tiny = {"name": "stable-diffusion", "options": {"vae": "zoo:taesd"}}
    prior = sd15.weigh(settings_of("sd15", prior=tiny, referees=[], rules={"tail": 0})).parts[0]
    assert prior.flop["decode"] / 1e12 == pytest.approx(0.14, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("sd21", 865_910_724 + 83_653_863 + 340_387_840),
        ("sdxl", 2_567_463_684 + 83_653_863 + 123_060_480 + 694_659_840),
    ],
)
def test_other_zoos(name: str, numbers: int) -> None:
    """Parameters as published; FLOPs are those of torch's own counter on the meta device."""
    for scales in scales_of(name):
        settings = settings_of(name, dtype="bfloat16", referees=[{"name": "clip"}])
        prior, clip = scales.weigh(settings).parts
        assert prior.numbers == pytest.approx(numbers, rel=1e-5)
        assert clip.numbers == pytest.approx(151_277_313, rel=1e-4)
    side, roles = settings.height // 8, architecture(name)
    with torch.device("meta"), torch.no_grad():
        unet, vae = UNet2DConditionModel.from_config(roles["unet"]), AutoencoderKL.from_config(roles["vae"])
        z, text = torch.zeros(2, 4, side, side), torch.zeros(2, 77, unet.config.cross_attention_dim)
        more = {"text_embeds": torch.zeros(2, 1280), "time_ids": torch.zeros(2, 6)} if name == "sdxl" else None
        with FlopCounterMode(display=False) as counter:
            unet(z, torch.zeros(2), text, added_cond_kwargs=more)
        assert prior.flop["pull"] == pytest.approx(counter.get_total_flops(), rel=0.01)
        with FlopCounterMode(display=False) as counter:
            vae.decode(z[:1])
        assert prior.flop["decode"] == pytest.approx(counter.get_total_flops(), rel=0.01)
        assert prior.flop["backward"] == pytest.approx(prior.flop["decode"], rel=0.15)


def test_every_referee_of_the_pocket_zoo_is_weighed(pocket: Scales) -> None:
    """Without reading its weights, and with as many as it has."""
    names = ("blip2", "clip", "grounding-vqa")
    settings = settings_of("pocket", referees=[{"name": name} for name in names])
    _, *referees = pocket.weigh(settings).parts
    seats = assemble(check(settings, REGISTRY, PROMPT)).seats
    assert [part.name for part in referees] == list(names)
    assert [(part.numbers, part.weights) for part in referees] == [weights(seat.referee) for seat in seats]
    assert all(part.flop["views"] > 1e8 for part in referees)


def test_who_has_nothing_to_judge_costs_nothing(
    pocket: Scales, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, alone = (pocket.weigh(settings_of(name)) for name in ("panel", "pocket"))
    assert [part.flop["views"] > 0 for part in silent.parts[1:]] == [True, False]
    assert (silent.step, silent.run) == (alone.step, alone.run)
    monkeypatch.setattr("sys.argv", ["referee", "plan", PROMPT.text, "--preset", "panel"])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 0
    assert "sits out" in capsys.readouterr().out


def test_clip_needs_no_file(sd15: Scales) -> None:
    (_, clip) = sd15.weigh(settings_of("sd15", referees=[{"name": "clip"}], rules={"views": 1})).parts
    assert clip.numbers == pytest.approx(151_277_313, rel=1e-4)  # and the text tower's mask
    assert clip.flop["views"] / 1e9 == pytest.approx(2 * 2 * 4.4, rel=0.05)  # ViT-B/32: 4.4 G multiply-adds forward


def test_flops_are_those_of_torchs_own_counter_on_real_weights(pocket: Scales) -> None:
    settings = settings_of("pocket", rules={"views": 4, "micro_batch": 2})
    parts = assemble(check(settings, REGISTRY, PROMPT))
    z = torch.randn(1, *parts.prior.latent_shape(64, 64), requires_grad=True)
    loss = parts.seats[0].referee.read(PROMPT)
    views = torch.rand(4, 3, 64, 64, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(parts.prior.decode(z).sum(), z)
        parts.prior.read(PROMPT)(z.detach(), Progress(0, 1), generators([0], 0, "prior"))
    read = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        parts.prior.read(PROMPT)
    read -= counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(loss(views).sum(), views)
    assert pocket.weigh(settings).step == read + counter.get_total_flops()
    assert sum(part.weights for part in pocket.weigh(settings).parts) == sum(
        weights(part)[1] for part in (parts.prior, parts.seats[0].referee)
    )


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_meter_counts_what_lives() -> None:
    meter = Meter()
    with no_numbers():
        x = torch.zeros(1000, requires_grad=True)  # 4000 bytes each
        with meter:
            y = x.exp()  # saved for its gradient
            assert (meter.now, meter.peak) == (4000, 4000)
            z = (y * 2).sum()  # the product goes again
            assert (meter.now, meter.peak) == (4004, 8004)
            meter.restart()
            torch.autograd.grad(z, x)
            assert meter.peak >= 8004
            del y, z
    assert meter.now == 0


def test_the_forecast_of_memory_is_that_of_a_real_step(pocket: Scales) -> None:
    """A whole step of the real models, augmentation and balancing included, under the same meter."""
    settings = settings_of("pocket", rules={"steps": 12})
    parts = assemble(check(settings, REGISTRY, PROMPT))
    steps = invert(
        PROMPT, parts.seats, parts.prior, rules=parts.rules, augmentation=parts.augmentation, size=parts.size
    )
    with Meter() as meter:
        next(steps)
    assert pocket.weigh(settings).activations == pytest.approx(meter.peak, rel=0.2)


def test_memory_falls_with_what_saves_it(sd15: Scales) -> None:
    def beside(recompute: bool = False, batch: int = 10, dtype: str = "bfloat16") -> int:
        referees = [{"name": "blip2", "options": {"recompute": recompute}}]
        return (
            sd15.weigh(settings_of("sd15", referees=referees, dtype=dtype, rules={"micro_batch": batch})).parts[1].peak
        )

    full = beside()
    assert beside(dtype="float32") > full > beside(batch=5) > beside(recompute=True, batch=5)


@pytest.mark.parametrize(("memory", "flags"), [(400 * GIB, []), (12 * GIB, ["--dtype bfloat16"])])
def test_fit_takes_the_cheapest_change(sd15: Scales, memory: int, flags: list[str]) -> None:
    found = fit(sd15, REGISTRY, settings_of("sd15"), memory, apart=True)
    assert found.fits
    assert found.forecast.weights + found.forecast.activations <= memory
    assert list(found.flags[: len(flags)]) == flags


def test_what_cannot_fit_is_said_with_everything_tried(sd15: Scales) -> None:
    found = fit(sd15, REGISTRY, settings_of("sd15"), GIB, apart=True)
    assert not found.fits
    assert found.flags == (
        "--dtype bfloat16", "--set rules.micro_batch=1", "--referee blip2:recompute=true",
        "--prior 'stable-diffusion:cfg=30,template=A photo exactly contains {prompt},recompute=true,vae=zoo:taesd'",
    )  # fmt: skip


def test_of_referees_that_rest_one_at_a_time_counts(pocket: Scales) -> None:
    referees = [{"name": "blip2"}, {"name": "clip", "offload": True}, {"name": "clip", "label": "b", "offload": True}]
    found = pocket.weigh(settings_of("pocket", referees=referees))
    prior, blip2, clip, _ = (part.weights for part in found.parts)
    assert found.at_once == prior + blip2 + clip
    assert found.need(apart=False) - found.need(apart=True) == clip


def test_where_nothing_else_is_enough_referees_rest(pocket: Scales) -> None:
    settings = settings_of("pocket", referees=[{"name": "blip2"}, {"name": "clip"}])
    least = replace(pocket.weigh(settings), settings=settings)
    for apart in (True, False):
        found = fit(pocket, REGISTRY, settings, least.activations // 100, apart)
        assert any("offload=true" in flag for flag in found.flags) == apart


@pytest.mark.parametrize(
    "part",
    [
        RefereePart(name="clip"),
        RefereePart(name="clip", weight="cosine(1, 0.5)", start=0.2, label="a, b", options={"recompute": True}),
        RefereePart(name="a:clip", negative=True, margin=0.5, aug={"name": "kornia", "options": {"hue": 0.1}}),
        RefereePart(name="clip", aug="none", prompt='say "x"=1, or not', options={"k": ["a", 1], "t": "true"}),
    ],
)
def test_parts_are_typed_as_they_are_read(part: RefereePart) -> None:
    assert RefereePart.model_validate(parse_part(typed(part), RefereePart)) == part


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["referee", "plan", "--on", "rtx3060", "--fit", "8GB", "--json"])
    with pytest.raises(SystemExit, match="0"):
        main()
    found = json.loads(capsys.readouterr().out)
    assert [part["name"] for part in found["parts"]] == ["prior", "blip2"]
    assert found["device"] == KNOWN["rtx3060"].title
    assert found["fit"]["fits"]
    assert found["fit"]["flags"] == []
    assert found["bytes"]["all"] < 8e9
    monkeypatch.setattr(sys, "argv", ["referee", "plan", "-r", "clip", "--on", "h200"])
    with pytest.raises(SystemExit, match="0"):
        main()
    said = capsys.readouterr().out
    assert "NVIDIA H200" in said
    assert "fits" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--fit", "much"], "--fit much: write an amount"),
        (["--on", "h20"], "no such device is known. Did you mean 'h200'?"),
    ],
)
def test_bad_words_are_refused(words: list[str], said: str) -> None:
    done = subprocess.run([sys.executable, "-m", "referee", "plan", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert said in done.stderr


def test_amounts() -> None:
    assert parse_size("12GB") == 12e9
    assert parse_size("1.5 gib") == 1.5 * GIB
    with pytest.raises(OptionError):
        parse_size("0GB")


def test_a_part_that_looks_at_numbers_is_named(tmp_path: Path) -> None:
    (tmp_path / "peek.py").write_text(
        "from referee.hooks import Spec, hookimpl\n\n\n"
        "class Peek:\n"
        "    input_size = 8\n\n"
        "    def read(self, prompt):\n"
        "        return lambda views: views.mean((1, 2, 3)) * views.sum().item()\n\n\n"
        "@hookimpl\n"
        "def referee_referees(register):\n"
        "    register(Spec('peek', 'looks', lambda options, place: Peek()))\n"
    )
    words = ["plan", "-r", "peek", "--plugin", str(tmp_path / "peek.py")]
    done = subprocess.run([sys.executable, "-m", "referee", *words], capture_output=True, text=True)
    assert done.returncode == 2
    assert "'peek' cannot be weighed" in done.stderr


@pytest.mark.parametrize("zoo", ["sd15", "sdxl"])
def test_the_grounding_referee_is_planned_at_full_size(zoo: str) -> None:
    registry, prompt = discover(), Prompt("a red backpack to the left of a blue book")
    referees = [{"name": "grounding-vqa"}, {"name": "grounding-vqa", "label": "place", "options": {"attributes": 0}}]
    settings = build([preset(zoo, registry), {"referees": referees, "rules": {"micro_batch": 1}}])
    with outlined(registry.find("zoo", zoo)) as shelf:
        both, place = Scales(registry, prompt, registry.find("zoo", zoo), shelf).weigh(settings).parts[1:]
    assert both.numbers == place.numbers == pytest.approx(361_230_140 + 154_966_792, rel=1e-4)  # and some buffers
    assert both.flop["views"] > place.flop["views"] > 1e12
