"""A judge at work: which picture is kept, when a run ends, what is said; and a run that goes on knows it all."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import torch
from torch import Tensor

from referee import Judge
from referee.contract import Losses, Prompt, Views
from referee.errors import OptionError, PluginError
from referee.folder import checkpoint
from referee.inversion import Step, invert
from referee.parts import Parts
from referee.play import drain, generate, parts_of, score
from referee.result import Result, Standing
from referee.rules import Rules
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

pytestmark = pytest.mark.filterwarnings("ignore:Reward hacking")
RULES = Rules(steps=12, tail=2, prior_weight=0.1, lr=0.3, noise=0.05, views=2)


class Scripted:
    """A judge whose verdicts are known beforehand, picture after picture; without gradient, as a judge may be."""

    input_size = 4

    def __init__(self, *verdicts: float) -> None:
        self.verdicts, self.seen = list(verdicts), list[Tensor]()

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        left = iter(self.verdicts)

        def loss(views: Views) -> Losses:
            self.seen.append(views)
            assert not views.requires_grad
            return torch.tensor([next(left)])

        return loss


class Dim:
    """A judge that likes the dim, and neither bright nor dark: best on the way to green; not of the toys' class."""

    input_size = 8

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        return lambda views: (views.mean((1, 2, 3)) - 0.45).abs()


def toys(judge: Judge | None, rules: Rules = RULES) -> Parts:
    return parts_of(
        ToyPrior(), [ToyReferee()], augmentation=ToyAugmentation(), rules=rules, size=(8, 8), judge=judge
    )  # fmt: skip


def judged(*verdicts: float, n: int = 1, **options: Any) -> tuple[Result, list[Step], Scripted]:
    referee, seen = Scripted(*verdicts), list[Step]()
    result = generate("red", toys(Judge("j", referee, **options)), n=n, on_step=seen.append)
    return result, seen, referee


def test_the_picture_of_the_best_verdict_is_kept() -> None:
    result, steps, referee = judged(5, 3, 4, 6, every=3)
    assert [row["step"] for row in result.history if "judge" in row] == [2, 5, 8, 11]
    assert [row["judge"] for row in result.history if "judge" in row] == [[5], [3], [4], [6]]
    assert torch.equal(result.z, steps[5].z)
    assert torch.equal(result.images, ToyPrior().decode(steps[5].z))
    assert result.complete
    assert result.judged is not None
    assert (result.judged.judge, result.judged.losses, result.judged.taken) == ("j", (3.0,), (6,))
    assert [step.judge is not None for step in steps] == [step.k in (2, 5, 8, 11) for step in steps]
    for views, k in zip(referee.seen, (2, 5, 8, 11), strict=True):  # the clean picture after the step, at its size
        x = ToyPrior().decode(steps[k].z)
        torch.testing.assert_close(
            views, torch.nn.functional.interpolate(x, (4, 4), mode="bilinear", antialias=True), rtol=0, atol=0
        )


def test_the_last_step_has_a_verdict_in_any_case() -> None:
    result, steps, _ = judged(5, 3, 4, every=5)
    assert [row["step"] for row in result.history if "judge" in row] == [4, 9, 11]
    assert torch.equal(judged(7, every=1000)[0].z, steps[11].z)


def test_keep_last_looks_and_leaves_the_picture() -> None:
    result, steps, _ = judged(5, 3, 4, 6, every=3, keep="last")
    assert torch.equal(result.z, steps[11].z)
    assert result.judged is not None
    assert (result.judged.losses, result.judged.taken) == ((6.0,), (12,))


def test_a_judge_changes_no_step() -> None:
    with_judge = judged(*range(12), every=1)[1]
    without = list[Step]()
    generate("red", toys(None), on_step=without.append)
    assert all(torch.equal(one.z, other.z) for one, other in zip(with_judge, without, strict=True))


def test_a_plateau_ends_the_run() -> None:
    result, steps, _ = judged(5, 3, 4, 3, 0, every=2, patience=2)  # equal is not better
    assert (len(steps), result.complete) == (8, True)
    assert torch.equal(result.z, steps[3].z)
    assert result.judged is not None
    assert (result.judged.ended, result.judged.taken) == (8, (4,))


def test_each_picture_ends_on_its_own_and_the_run_with_the_last() -> None:
    # Both are asked at each verdict. The first ends after step 6: its 0 at step 8 comes too late.
    result, steps, _ = judged(1, 9, 2, 8, 2, 7, 0, 8, 0, 8, n=2, every=2, patience=2)
    assert len(steps) == 10
    assert result.judged is not None
    assert (result.judged.taken, result.judged.losses, result.judged.ended) == ((2, 6), (1.0, 7.0), 10)
    assert torch.equal(result.z, torch.stack([steps[1].z[0], steps[5].z[1]]))


@pytest.mark.parametrize("patience", [None, 1])
def test_a_seed_has_the_same_picture_in_any_batch(patience: int | None) -> None:
    parts = toys(Judge("j", Dim(), every=1, patience=patience))
    both, one = generate("green", parts, seed=4, n=3), generate("green", parts, seed=5)
    assert both.judged is not None
    assert one.judged is not None
    assert len(set(both.judged.taken)) > 1
    assert both.judged.taken[1] == one.judged.taken[0]
    assert torch.equal(both.images[1], one.images[0])


def test_a_verdict_is_what_score_says() -> None:
    parts = toys(Judge("j", Dim(), every=1))
    result = generate("green", parts, n=2)
    assert result.judged is not None
    from referee import Seat

    scores = [score(x[None], "green", [Seat("j", Dim())])["j"] for x in result.images]
    assert scores == list(result.judged.losses)


def test_numbers_that_are_none_are_never_the_best() -> None:
    result, steps, _ = judged(math.nan, 5, -math.inf, 6, every=3)
    assert torch.equal(result.z, steps[5].z)
    assert [row["judge"] for row in result.history if "judge" in row] == [[None], [5], [None], [6]]
    result, steps, _ = judged(*[math.nan] * 4, every=3, pick=True)
    assert torch.equal(result.z, steps[11].z)
    assert result.judged is not None
    assert (result.judged.losses, result.judged.taken, result.judged.picked) == ((None,), (12,), None)


def test_it_picks_the_best_of_the_pictures_as_they_are() -> None:
    result, _, _ = judged(5, 4, 1, 9, 6, 9, n=3, every=6, pick=True)
    assert result.judged is not None
    assert (result.judged.losses, result.judged.picked) == ((5, 4, 1), 2)
    result, _, _ = judged(5, 4, 1, 9, 6, 9, n=3, every=6, pick=True, keep="last")
    assert result.judged is not None
    assert (result.judged.losses, result.judged.picked) == ((9, 6, 9), 1)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_ctrl_c_leaves_the_judges_best(keep: str) -> None:
    seen = list[Step]()

    def stop(step: Step) -> None:
        seen.append(step)
        if step.k == 7:
            raise KeyboardInterrupt

    judge = Judge("j", Scripted(5, 3, 4, 6), every=2, keep=keep)  # type: ignore[arg-type]
    result = generate("red", toys(judge), on_step=stop)
    assert not result.complete
    assert torch.equal(result.z, seen[3].z)
    assert result.judged is not None
    assert (result.judged.losses, result.judged.taken) == ((3.0,), (4,))


def test_ctrl_c_before_the_first_verdict_leaves_the_referees_best() -> None:
    def stop(step: Step) -> None:
        if step.k == 4:
            raise KeyboardInterrupt

    one, other = (generate("red", toys(judge), on_step=stop) for judge in (Judge("j", Scripted()), None))
    assert one.judged is None
    assert torch.equal(one.z, other.z)


HACKED = (5.0, 1.0, 4.0, 4.0, 4.0, 4.0)


def test_reward_hacking_is_said_once() -> None:
    rules = RULES.model_copy(update={"tail": 0})
    script = [loss for loss in HACKED for _ in range(2)]
    parts = toys(Judge("j", Scripted(*script), every=2), rules)
    with pytest.warns(UserWarning, match="Reward hacking") as caught:
        result = generate("red", parts, n=2)
    assert [str(each.message) for each in caught] == [
        "Reward hacking, seed 0, step 10: the referees like the picture ever better, the judge 'j' ever less (1 after "
        "step 4, 4 now). The picture of its best verdict is kept."
    ]
    assert {row["step"]: row["hacked"] for row in result.history if "hacked" in row} == {9: [True, True]}
    assert result.judged is not None
    assert result.judged.hacked == (10, 10)


def test_a_judge_that_agrees_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = generate("green", toys(Judge("j", Scripted(*range(24, 0, -1)), every=1)), n=2)
    assert not [row for row in result.history if "hacked" in row]


def cuts(parts: Parts, seeds: Sequence[int] = (0, 1)) -> tuple[Result, dict[int, tuple[bytes, list[dict[str, Any]]]]]:
    """A whole run, and all its checkpoints as files."""
    kept = {}

    def keep(standing: Standing, rows: Sequence[Any]) -> None:
        assert standing.state is not None
        kept[standing.state.k] = checkpoint.encode(standing, ""), [dict(row) for row in rows]

    return drain(Prompt("green"), parts, seeds, keep=keep), kept


@pytest.mark.parametrize("options", [{"every": 1}, {"every": 5}, {"every": 1, "patience": 2}, {"keep": "last"}])
def test_a_run_goes_on_bit_for_bit_from_any_step(tmp_path: Path, options: dict[str, Any]) -> None:
    parts = toys(Judge("j", Dim(), pick=True, **options))
    whole, kept = cuts(parts)
    assert len(kept) == len(whole.history)
    assert (len(kept) < 12) == ("patience" in options)
    for k, (content, rows) in kept.items():
        (tmp_path / checkpoint.NAME).write_bytes(content)
        found = checkpoint.read(tmp_path, "", 2)
        assert found.k == k
        rest = drain(Prompt("green"), parts, (0, 1), standing=found.standing, history=rows)
        assert torch.equal(rest.z, whole.z)
        assert (rest.history, rest.judged) == (whole.history, whole.judged)


def test_reward_hacking_that_was_said_is_not_said_again() -> None:
    rules = RULES.model_copy(update={"tail": 0})

    def parts(*left: float) -> Parts:
        return toys(Judge("j", Scripted(*left), every=2), rules)

    with pytest.warns(UserWarning, match="Reward hacking"):
        whole, kept = cuts(parts(*HACKED), seeds=(0,))
    for k, said in ((9, True), (10, False)):
        standing = checkpoint._standing(checkpoint.safetensors.torch.load(kept[k][0]), 1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rest = drain(
                Prompt("green"), parts(*HACKED[k // 2 :]), (0,), standing=replace(standing, maps={}), history=kept[k][1]
            )
        assert bool(caught) == said
        assert rest.history == whole.history
        assert rest.judged == whole.judged


def test_a_standing_of_another_run_is_refused() -> None:
    parts = toys(Judge("j", Dim(), every=1))
    _, kept = cuts(parts, seeds=(0,))
    standing = checkpoint._standing(checkpoint.safetensors.torch.load(kept[3][0]), 1)
    with pytest.raises(OptionError, match="not of one run"):
        drain(Prompt("green"), parts, (0,), standing=replace(standing, kept=None), history=kept[3][1])


@pytest.mark.parametrize("tensor", [torch.zeros(1, 3, 4, 4), torch.zeros(2, 3, 4, 4, dtype=torch.float64)])
def test_a_checkpoint_whose_best_cannot_be_is_refused(tensor: Tensor) -> None:
    _, kept = cuts(toys(Judge("j", Dim(), every=1)))
    tensors = checkpoint.safetensors.torch.load(kept[3][0])
    assert tensors["kept"].shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="judge's best latents"):
        checkpoint._standing({**tensors, "kept": tensor}, 2)


def test_a_judge_of_a_referees_class_is_warned_of() -> None:
    with pytest.warns(UserWarning, match="judge 'j' is of the same family as 'ToyReferee'"):
        toys(Judge("j", ToyReferee()))


def test_a_judge_that_is_none() -> None:
    for options in ({"every": 0}, {"patience": 0}):
        with pytest.raises(OptionError, match="at least 1"):
            Judge("j", Dim(), **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="does not go with keep=last"):
        Judge("j", Dim(), keep="last", patience=2)


def test_a_judge_that_fails_is_named() -> None:
    class Odd(Dim):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: views.mean((2, 3))

    class Broken(Dim):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            def loss(views: Views) -> Losses:
                raise KeyError("tokens")

            return loss

    with pytest.raises(PluginError, match=r"'j' gave a loss of shape \(1, 3\) for 1 view"):
        generate("red", toys(Judge("j", Odd())))
    with pytest.raises(PluginError, match="'j' failed at step 9: KeyError: 'tokens'"):
        generate("red", toys(Judge("j", Broken())))


def test_a_judge_that_hangs_ends_the_run() -> None:
    class Asleep(Dim):
        def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
            return lambda views: sleep(60)  # type: ignore[func-returns-value]

    with pytest.raises(PluginError, match=r"'j' failed at step 3: TimeoutError: no answer within 0\.1 s"):
        generate("red", toys(Judge("j", Asleep(), every=4, timeout=0.1)))


def test_the_loop_itself_knows_no_judge() -> None:
    parts = toys(None)
    steps = list(invert("red", parts.seats, parts.prior, rules=RULES, size=(8, 8)))
    assert {step.judge for step in steps} == {None}
