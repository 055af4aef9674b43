"""The bench `pocket` with the real parts: its prompts, its methods as settings, its scorer on pictures one knows."""

from __future__ import annotations

import inspect
import json
import sys
import textwrap
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from referee.bench.contract import Bench, Item
from referee.bench.methods import choose, open_bench, prepare
from referee.bench.records import read
from referee.command.app import main
from referee.errors import OptionError, WeightsError
from referee.hooks import Hooks
from referee.layers import preset
from referee.pixels import from_pillow, to_pillow
from referee.plugins import Registry, discover
from referee.prompt import Prompt
from referee.settings import build
from referee.testing import check_bench
from referee_pocket import world
from referee_pocket.judge import Judge
from referee_pocket.words import HELD_SINGLES, Thing, Wanted, held_pairs, parse

SHORT = ["--set", "rules.steps=3", "--set", "rules.tail=1", "--set", "rules.views=2"]


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


def opened(registry: Registry, text: str = "pocket") -> Bench:
    return open_bench(text, registry, device="cpu")[1]


@pytest.fixture(scope="module")
def bench(registry: Registry) -> Bench:
    return opened(registry, "pocket:n=3,views=2")


def refereed(*words: str) -> int:
    """`referee WORDS`, in here; gives the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["referee", *words])
        with pytest.raises(SystemExit) as end:
            main()
    return end.value.code if isinstance(end.value.code, int) else 0


# -- prompts and methods


def test_three_suites_of_prompts_that_no_training_saw(registry: Registry) -> None:
    items = opened(registry).items()
    assert [sum(item.suite == suite for item in items) for suite in ("attributes", "spatial", "complex")] == [60] * 3
    for item in items:
        wanted = parse(item.prompt)
        kinds = [thing.kind for thing in wanted.things]
        assert len(kinds) == (3 if item.suite == "complex" else 2)
        assert (wanted.relation is not None) == (item.suite == "spatial") or item.suite == "complex"
        assert HELD_SINGLES & set(kinds) or held_pairs().keys() & {frozenset((a, b)) for a in kinds for b in kinds}
    short = opened(registry, "pocket:n=7,suites=spatial+complex").items()
    assert [item for item in items if item.index < 7 and item.suite != "attributes"] == short
    tuned = opened(registry, "pocket:split=tune").items()
    assert not {item.prompt for item in items} & {item.prompt for item in tuned}


def test_all_its_methods_are_settings(registry: Registry) -> None:
    bench = opened(registry)
    methods = {one.name: one for one in prepare(bench.methods(), bench.items(), registry, zoo="sd15")}
    assert list(methods)[:4] == ["plain-2", "plain-4", "plain-8", "sds"]
    assert len({one.maker.digest for one in methods.values()}) == len(methods)
    assert {one.plan.settings.zoo for one in methods.values()} == {"pocket"}
    plain = methods["plain-8"].plan.settings
    assert plain.prior is not None
    assert (plain.referees, plain.augmentation, plain.prior.options["sample_cfg"]) == ((), None, 8.0)
    assert methods["sds"].plan.settings.referees == ()
    bare, alone = (methods[name].plan.settings for name in ("blip2-noaug", "blip2"))
    assert (bare.augmentation, alone.augmentation is not None) == (None, True)
    assert bare.rules == alone.rules
    assert bare.rules.prior_weight.most == 0
    assert methods["blip2-clip-vqa-sds"].maker.families == ("blip", "clip", "owl")
    assert methods["blip2-sds"].maker.weights
    assert methods["panel"].plan.settings.referees == build([preset("panel", registry)]).referees


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pocket:suites=shapes", "suites.0: Input should be 'attributes', 'spatial' or 'complex'"),
        ("pocket:n=0", "n: Input should be greater than or equal to 1"),
        ("pocket:split=train", "split"),
        ("pocket:m=3", "there is no 'm'"),
    ],
)
def test_wrong_options_are_refused(registry: Registry, text: str, says: str) -> None:
    with pytest.raises(OptionError) as raised:
        open_bench(text, registry)
    assert says in str(raised.value)


def test_missing_weights_are_refused_before_anything_is_drawn(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"There is no folder .*judge"):
        open_bench(f"pocket:weights={tmp_path}", registry)


def test_it_keeps_the_contract(registry: Registry) -> None:
    check_bench(registry.find("bench", "pocket"), registry, {"n": 1, "views": 2})


def test_the_example_of_the_hook_is_a_whole_bench(tmp_path: Path) -> None:
    said = inspect.cleandoc(Hooks.referee_benches.__doc__ or "")
    (tmp_path / "bright.py").write_text(textwrap.dedent(said.partition("FILE``:")[2]))
    registry = discover(files=[tmp_path / "bright.py"])
    assert len(check_bench(registry.find("bench", "bright"), registry, skip=["imports_nothing_heavy"])) == 9


# -- the scorer


def pair(seed: int) -> tuple[torch.Tensor, tuple[Thing, Thing], int]:
    """A rendered scene of two things that differ in colour and shape, and how the first lies to the second."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        scene = world.sample(1, generator, count=2, with_held_out=True)
        a, b = scene.things(0)
        dx, dy = (scene.centre[0, 0] - scene.centre[0, 1]).tolist()
        if a.colour != b.colour and a.shape != b.shape and abs(abs(dx) - abs(dy)) > 8:
            return world.render(scene), (a, b), (0 if dx < 0 else 1) if abs(dx) > abs(dy) else (2 if dy < 0 else 3)


def test_a_right_picture_is_right_and_a_wrong_one_is_not(bench: Bench) -> None:
    right, swapped, losses = [], [], []
    for seed in range(12):
        x, (a, b), _ = pair(seed)
        there = bench.score(x, Item(0, str(Wanted((a, b))), "attributes"), seed)
        mixed = Wanted((Thing(b.colour, a.shape, a.texture), Thing(a.colour, b.shape, b.texture)))
        other = bench.score(x, Item(0, str(mixed), "attributes"), seed)
        right.append((there["right"], other["right"]))
        swapped.append((there["swapped"], other["swapped"]))
        losses.append([there[f"{name}_plain"] < other[f"{name}_plain"] for name in ("itm", "cg", "clip", "vqa")])
        assert {"binding", "relation"}.isdisjoint(there)
        assert set(there) <= set(bench.columns)
    assert fmean(a for a, _ in right) > 0.9 > 0.1 > fmean(b for _, b in right)
    assert fmean(b for _, b in swapped) > 0.9 > 0.1 > fmean(a for a, _ in swapped)
    assert all(fmean(column) > 0.8 for column in zip(*losses, strict=True))


def test_a_relation_counts(bench: Bench) -> None:
    found = []
    for seed in range(12):
        x, things, relation = pair(seed)
        here, there = (
            bench.score(x, Item(0, str(Wanted(things, asked)), "spatial"), 0) for asked in (relation, relation ^ 1)
        )
        found.append(
            (here["binding"], here["relation"], here["right"], there["binding"], there["relation"], there["right"])
        )
    means = [fmean(column) for column in zip(*found, strict=True)]
    assert means[:3] >= [0.9] * 3
    assert means[3] > 0.9
    assert means[4:] == [0, 0]


def test_three_things_and_how_two_of_them_lie() -> None:
    judge, right, turned = Judge(), 0, 0
    scenes = world.sample(60, torch.Generator().manual_seed(5), count=3, with_held_out=True)
    x = world.render(scenes)
    for i in range(60):
        things = tuple(scenes.things(i))
        dx, dy = (scenes.centre[i, 0] - scenes.centre[i, 1]).tolist()
        relation = (0 if dx < 0 else 1) if abs(dx) > abs(dy) else (2 if dy < 0 else 3)
        verdict = judge.score(x[i : i + 1], str(Wanted(things, relation)))[0]
        right += verdict.binding and verdict.exact and verdict.relation is True
        turned += judge.score(x[i : i + 1], Wanted(things, relation ^ 1))[0].relation is False
    assert right >= 50
    assert turned >= 57


def test_the_same_picture_has_the_same_numbers_and_a_larger_one_almost(bench: Bench, tmp_path: Path) -> None:
    x, things, _ = pair(3)
    item = Item(0, str(Wanted(things)), "attributes")
    to_pillow(x[0]).save(tmp_path / "x.png")
    small = from_pillow(tmp_path / "x.png")
    once, again, elsewhere = (bench.score(small, item, seed) for seed in (5, 5, 6))
    assert once == again
    assert {key for key in once if once[key] != elsewhere[key]} == {
        f"{n}_augmented" for n in ("itm", "cg", "clip", "vqa")
    }
    large = torch.nn.functional.interpolate(small, scale_factor=2.0, mode="nearest")
    assert bench.score(large, item, 5) == pytest.approx(once, abs=0.1)  # its views are drawn at its own size


# -- the command


def test_a_tiny_run_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    here = ["--device", "cpu", "--out", out, "--methods", "plain-4,blip2-noaug", *SHORT]
    assert refereed("bench", "pocket:n=1,suites=attributes+complex,views=2", *here, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert {(row["suite"], row["method"], row["pictures"], row["of"]) for row in told["drawn"]} == {
        (suite, method, 1, 1) for suite in ("attributes", "complex") for method in ("plain-4", "blip2-noaug")
    }
    columns = {cell["column"] for cell in told["cells"] if cell["suite"] == "attributes"}
    assert {"right", "itm_plain", "vqa_augmented"} <= columns
    text = (tmp_path / "out" / "table.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith("| blip2-noaug")][:1]
    assert row.count("†") == 6  # BLIP-2's four and BLIP-VQA's two, not CLIP's
    assert refereed("bench", "pocket:n=2,suites=attributes,views=2", *here) == 0
    found = read([tmp_path / "out"])
    assert [(r.index, r.seed) for r in found.of("plain-4", "attributes")] == [(0, 1000), (1, 1001)]
    assert refereed("bench", "compare", f"{out}:blip2-noaug", f"{out}:plain-4") == 0
    assert "attributes: blip2-noaug less plain-4" in capsys.readouterr().out
    assert refereed("bench", "pocket:n=2,suites=attributes,views=3", *here) == 2
    assert "options.views: 2 and 3" in capsys.readouterr().err


# -- what it finds


def measured(registry: Registry, names: str, count: int) -> dict[str, list[dict[str, float]]]:
    """Scores of the first tuning prompts, by method."""
    bench = opened(registry, f"pocket:suites=attributes,split=tune,n={count}")
    found: dict[str, Any] = {}
    for method in prepare(choose(bench.methods(), {}, names), bench.items(), registry, over={"device": "cpu"}):
        parts = method.load()
        found[method.name] = [
            bench.score(method.way.draw(parts, Prompt(item.prompt), 50 + item.index, method.options), item, item.index)
            for item in bench.items()
        ]
    return found


@pytest.mark.slow
def test_the_method_beats_plain_sampling_on_prompts_kept_from_training(registry: Registry) -> None:
    found = measured(registry, "blip2-sds,plain-4", 12)
    method, plain = (fmean(scores["right"] for scores in found[name]) for name in ("blip2-sds", "plain-4"))
    assert method >= 0.6
    assert method >= plain + 0.3


@pytest.mark.slow
def test_without_augmentation_the_picture_is_adversarial(registry: Registry) -> None:
    scored = measured(registry, "blip2-noaug", 6)["blip2-noaug"]
    assert fmean(scores["itm_plain"] for scores in scored) < 0.3
    assert fmean(scores["itm_augmented"] for scores in scored) > 2
    assert fmean(scores["right"] for scores in scored) < 0.3


@pytest.mark.parametrize(("table", "first", "count"), [("priors", "blip2-sds", 8), ("balancers", "norm", 10)])
def test_its_other_tables_are_settings_too(registry: Registry, table: str, first: str, count: int) -> None:
    bench = opened(registry, f"pocket:table={table}")
    own = {name: layer for name, layer in bench.methods().items() if "torchjd" not in str(layer)}
    methods = {one.name: one for one in prepare(own, bench.items(), registry)}
    assert (next(iter(bench.methods())), len(bench.methods())) == (first, count)
    assert len({one.maker.digest for one in methods.values()}) == len(methods)
    parts = {len(one.plan.settings.referees) for one in methods.values()}
    assert parts == ({1} if table == "priors" else {3})
