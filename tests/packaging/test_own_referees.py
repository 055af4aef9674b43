"""The referees of the examples keep the contract, and guess what they say they guess."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from referee.gradients import resize
from referee.hooks import Spec
from referee.prompt import Prompt
from referee.testing import ToyReferee, check_referee

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_calm_keeps_the_contract() -> None:
    calm = example("own_referee").Calm()
    check_referee(Spec("calm", "", lambda options, place: calm), skip=["imports_nothing_heavy"])


def test_a_black_box_points_where_the_gradient_does() -> None:
    box, toy = example("black_box"), ToyReferee(8)
    told = box.compare(toy, box.BlackBox(toy, pairs=800), "red")
    assert "1601 forward passes" in told
    assert float(told.rpartition(" ")[2]) > 0.85  # 1 / sqrt(1 + 192 unknowns / 800 pairs) = 0.90 is expected
    few = box.compare(toy, box.BlackBox(toy, pairs=4), "red")
    assert float(few.rpartition(" ")[2]) < 0.5


def test_a_black_box_asks_no_gradient_and_keeps_the_contract() -> None:
    box = example("black_box")
    asked: list[bool] = []

    class Watched(ToyReferee):
        def read(self, prompt: Any) -> Any:
            inner = super().read(prompt)
            return lambda views: (asked.append(torch.is_grad_enabled()), inner(views))[1]

    guess = box.BlackBox(Watched(8), pairs=64, patch=8)
    # What a guess cannot keep: it is none of the slopes, and each call draws its own directions for the whole batch.
    skip = ["imports_nothing_heavy", "gradient_is_the_slope", "scores_each_view_alone"]
    check_referee(Spec("box", "", lambda options, place: guess), skip=skip)
    assert asked
    assert not any(asked)


def test_an_aesthetic_head_is_linear_in_clips_features() -> None:
    clip = pytest.importorskip("open_clip").CLIP(
        8, {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 8},
        {"context_length": 8, "vocab_size": 10, "width": 8, "heads": 1, "layers": 1},
    )  # fmt: skip
    clip.visual.image_mean, clip.visual.image_std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    clip = clip.eval().requires_grad_(False)
    head = {"weight": torch.arange(8.0)[None], "bias": torch.tensor([2.0])}
    referee = example("aesthetic_score").Aesthetic(clip, 32, head)
    check_referee(Spec("aesthetic", "", lambda options, place: referee), skip=["imports_nothing_heavy"])
    views = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    features = clip.encode_image((views - mean) / std, normalize=True)
    wanted = -(features @ torch.arange(8.0) + 2)

    torch.testing.assert_close(referee.read(Prompt("anything"))(views), wanted)


def letters() -> Any:
    for name in ("onnx2torch", "rapidocr_onnxruntime"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install --group examples")
    return example("no_letters")


def test_letters_are_read_and_their_loss_falls() -> None:
    module = letters()
    seen = module.Letters(module.detector())
    loss = seen.read(Prompt("anything"))

    def found(picture: torch.Tensor) -> float:
        return float(loss(resize(picture, 128)))

    poster = module.poster("STOP", 64)
    assert found(poster) > 1
    assert found(torch.full((1, 3, 64, 64), 0.7)) == 0  # nothing to read: no loss, no gradient, it sits out
    after, losses = module.erase(poster, seen, lambda x, generators: x, steps=12, views=1)
    assert losses[0] > 1
    assert min(losses[-4:]) < losses[0] / 2
    assert found(after) < found(poster)


def test_a_penalty_for_letters_keeps_the_contract() -> None:
    """Where nothing looks like text it has no slope, by intent; with a threshold near 0 it has one everywhere."""
    module = letters()
    net = module.detector()
    made = Spec("letters", "", lambda options, place: module.Letters(net, 64, threshold=1e-30))
    check_referee(made, skip=["imports_nothing_heavy", "agrees_in_bfloat16"])
