"""Where memory runs out, fewer views are scored at once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from referee.command import app as cli
from referee.contract import Losses, Memory, Prompt, Views
from referee.errors import OptionError, PluginError, out_of_memory
from referee.inversion import Seat, Step, invert
from referee.rules import Rules
from referee.testing import ToyAugmentation, ToyPrior, ToyReferee

CPU = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")


class Large(ToyReferee):
    """Has no memory for more than so many views at once, whatever kind of error says so."""

    def __init__(self, most: int, error: BaseException = CPU) -> None:
        super().__init__(4)
        self.most, self.error, self.shown = most, error, list[int]()

    def read(self, prompt: Prompt) -> Callable[[Views], Losses]:
        plain = super().read(prompt)

        def loss(views: Views) -> Losses:
            self.shown.append(len(views))
            if len(views) > self.most:
                raise self.error
            return plain(views)

        return loss


def play(referee: ToyReferee, micro_batch: int = 10, **more: Any) -> list[Step]:
    rules = Rules(steps=4, tail=1, update="sgd", lr=0.5, prior_weight=0.2, noise=0.05, views=6, micro_batch=micro_batch)
    seats, seeds = [Seat("large", referee)], (3, 4)
    return list(
        invert("red", seats, ToyPrior(), rules=rules, augmentation=ToyAugmentation(), seeds=seeds, size=(8, 8), **more)
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), CPU, MemoryError()])
def test_the_micro_batch_is_halved_and_the_run_is_as_if_it_had_been_asked_for(error: BaseException) -> None:
    referee, memory = Large(2, error), Memory()
    with pytest.warns(UserWarning, match="Out of memory: 'large'") as told:
        found = play(referee, memory=memory)
    assert len(told) == 2, "10, 5, 2: once each"
    assert "scores 2 views at once from now on; next time say --set rules.micro_batch=2" in str(told[1].message)
    assert referee.shown == [10, 5] + [2] * 18, "no step but the first tries more"
    assert memory["at once/large"].tolist() == [2, 2], "a run that is taken up again knows it"
    for step, wanted in zip(found, play(Large(99), micro_batch=2), strict=True):
        assert torch.equal(step.z, wanted.z)
        assert {name: loss.tolist() for name, loss in step.losses.items()} == {
            name: loss.tolist() for name, loss in wanted.losses.items()
        }
    torch.testing.assert_close(found[-1].z, play(Large(99))[-1].z)


def test_one_view_that_does_not_fit_is_refused_with_what_helps() -> None:
    with pytest.warns(UserWarning, match="Out of memory"), pytest.raises(OptionError, match="referee plan --fit"):
        play(Large(0))


def test_other_errors_pass() -> None:
    with pytest.raises(PluginError, match="'large' failed at step 0: RuntimeError: shapes do not fit"):
        play(Large(2, RuntimeError("shapes do not fit")))
    assert not out_of_memory(ValueError("out of memory, says somebody"))


def test_the_command_says_what_helps(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def short(**_: object) -> None:
        raise CPU

    monkeypatch.setattr(cli, "app", short)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "`referee plan --fit 12GB`" in capsys.readouterr().err
