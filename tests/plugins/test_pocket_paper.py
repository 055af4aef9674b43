"""The bench `paper` and its page, end to end with the real parts at tiny settings."""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from referee.bench.about import About
from referee.bench.contract import Bench, Choosing, Column, Item
from referee.bench.methods import open_bench, prepare
from referee.bench.records import Evidence, read
from referee.command.app import main
from referee.errors import OptionError, RunError, WeightsError
from referee.layers import preset
from referee.plugins import Registry, discover
from referee.schedules import constant
from referee.settings import build
from referee.testing import check_bench
from referee_pocket import world
from referee_pocket.paper import __main__ as script
from referee_pocket.paper.catalogue import TABLES
from referee_pocket.paper.methods import UNITS
from referee_pocket.paper.page import Found
from referee_pocket.words import Thing, Wanted

SHORT = [
    word
    for one in ("rules.steps=3", "rules.tail=1", "rules.views=2", "rules.restart_every=0")
    for word in ("--set", one)
]
MAIN = {"blip2-sds", "blip2", "sds", "plain-4"}


@pytest.fixture(scope="module")
def registry() -> Registry:
    return discover()


def opened(registry: Registry, text: str) -> Bench:
    return open_bench(text, registry, device="cpu")[1]


def called(*words: str, run: Any = main) -> int:
    """`referee WORDS` or `python -m referee_pocket.paper WORDS`, in here; gives the exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["referee", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            run()
    return end.value.code if isinstance(end.value.code, int) else 0


def drawn(folder: Path) -> Counter[tuple[str, str]]:
    return Counter((record.method, record.suite) for record in read([folder]).records)


# -- what is drawn


def test_each_table_draws_its_own_methods_and_prompts(registry: Registry) -> None:
    bench = opened(registry, "paper:tables=4+7")
    assert isinstance(bench, Choosing)
    assert list(bench.methods())[:3] == ["ema-none", "ema-ordinary", "blip2-sds"]
    assert Counter(item.suite for item in bench.items()) == {"attributes": 100}
    wants = Counter(name for name in [*bench.methods(), "mine"] for item in bench.items() if bench.wants(name, item))
    assert (wants["plain-4"], wants["blip2-sds"], wants["ema-none"], wants["mine"]) == (100, 100, 40, 100)
    whole = opened(registry, "paper")
    assert Counter(item.suite for item in whole.items()) == dict.fromkeys(("attributes", "spatial", "complex"), 100)
    assert {item.prompt for item in bench.items()} == {i.prompt for i in whole.items() if i.suite == "attributes"}
    few = opened(registry, "paper:n=3,tables=f6")
    assert Counter(item.suite for item in few.items()) == {"attributes": 3, "spatial": 3}


def test_all_methods_are_settings_and_no_two_are_one(registry: Registry) -> None:
    bench = opened(registry, "paper")
    methods = {one.name: one for one in prepare(bench.methods(), bench.items()[:1], registry, zoo="sd15")}
    assert len({one.maker.digest for one in methods.values()}) == len(methods)
    rules = {name: one.plan.settings.rules for name, one in methods.items()}
    restarts = {name: [k + 1 for k in range(each.steps) if each.restarts_at(k)] for name, each in rules.items()}
    assert restarts["blip2-sds"] == [75, 185]
    assert restarts["ema-none"] == []
    assert restarts["ema-ordinary"] == [290]  # the last step that referees steer
    assert [len(restarts[f"restart-{grid}"]) for grid in ("60-40", "80-20", "20-60")] == [3, 4, 3]
    two, one = rules["two-steps"], rules["blip2-sds"]
    for u in (0.0, 0.3, 0.9):  # two steps of it for one of the method, the prior's together as long
        assert two.lr(u) == pytest.approx(one.lr(u))
        assert two.prior_lr is not None
        assert 2 * two.prior_lr(u) == pytest.approx(one.lr(u))
        assert 2 * two.noise(u) ** 2 == pytest.approx(one.noise(u) ** 2, rel=1e-3)
    assert two.ema_decay**2 == pytest.approx(one.ema_decay, rel=1e-3)
    assert (two.steps, two.tail, restarts["two-steps"]) == (2 * one.steps, 2 * one.tail, [150, 370])
    for u in (0.0, 1.0):
        for name, times in (("noise-05", 0.25), ("noise-10", 0.5), ("noise-30", 1.5)):
            assert rules[name].noise(u) == pytest.approx(times * one.noise(u))
    assert {rules[f"steady-cfg-{cfg}"].prior_weight for cfg in (10, 20, 30)} == {constant(one.prior_weight.most)}


def test_the_papers_values_are_told_of_the_preset_that_is_played(registry: Registry) -> None:
    """What tables and `UNITS` say in numbers; who tunes the preset tunes them as well."""
    settings = build([preset("pocket", registry)])
    rules, told = settings.rules, {what: ours for what, _, ours, _ in UNITS}
    assert settings.prior is not None
    assert told["iterations"] == f"{rules.steps}, tail {rules.tail}"
    assert told["views"] == str(rules.views)
    assert told["EMA-restart"] == f"first at {rules.restart_from}, each {rules.restart_every}"
    for what, schedule in (("lr", rules.lr), ("noise", rules.noise), ("w2", rules.prior_weight)):
        assert told[what].removesuffix(" on 8 x 8") == f"{schedule.start:g} to {schedule.end:g}"
    assert float(told["CFG of the prior's gradient"]) == settings.prior.options["cfg"]
    assert float(told["CFG of plain sampling"]) == settings.prior.options["sample_cfg"]
    assert rules.lr(0.0) == pytest.approx(0.12)
    assert (rules.update, rules.referee_weight, rules.prior_lr) == ("adam", constant(2.0), None)


def test_what_cannot_be_is_refused_before_anything_loads(registry: Registry, tmp_path: Path) -> None:
    for text, why in (("paper:tables=12", "There is no table '12'"), ("paper:tables=f10", "no pictures that the bench"),
                      ("paper:tabels=4", "tables"), ("paper:n=0", "n")):  # fmt: skip
        with pytest.raises(OptionError, match=why):
            opened(registry, text)
    with pytest.raises(WeightsError, match="judge"):
        opened(registry, f"paper:weights={tmp_path}")
    assert opened(registry, "paper:tables=4").methods() == opened(registry, 'paper:tables="4"').methods()


def test_it_keeps_the_contract(registry: Registry) -> None:
    check_bench(registry.find("bench", "paper"), registry, {"tables": "9+f6", "n": 1, "views": 2})


# -- how it is scored


@pytest.fixture(scope="module")
def bench(registry: Registry) -> Bench:
    return opened(registry, "paper:tables=1,views=4")


@pytest.fixture(scope="module")
def scene() -> tuple[str, torch.Tensor]:
    """A red circle left of a blue square."""
    scenes = world.sample(1, torch.Generator().manual_seed(1), count=2)
    scenes.colour[0, :2], scenes.shape[0, :2] = torch.tensor([0, 2]), torch.tensor([0, 1])
    scenes.texture[0, :2], scenes.radius[0, :2] = 0, 14.0
    scenes.centre[0, :2] = torch.tensor([[17.0, 32.0], [47.0, 32.0]])
    return "a red circle and a blue square", world.render(scenes)


def test_a_picture_that_is_right_is_scored_so(bench: Bench, scene: tuple[str, torch.Tensor]) -> None:
    text, x = scene
    scores = bench.score(x, Item(0, text, "attributes"), 5)
    assert scores.keys() == bench.columns.keys() - {"relation"}
    for name in ("right", "binding", "attributes", "colours", "shapes", "textures", "exact"):
        assert scores[name] == 1.0
    assert scores["itm_plain"] < 0.7
    assert scores == bench.score(x, Item(0, text, "attributes"), 5)
    other = bench.score(x, Item(0, text, "attributes"), 6)
    assert other["itm_plain"] == scores["itm_plain"]
    assert other["itm_augmented"] != scores["itm_augmented"]


def test_kinds_of_attributes_are_told_apart(bench: Bench, scene: tuple[str, torch.Tensor]) -> None:
    _, x = scene
    wanted = Wanted((Thing(0, 3), Thing(2, 1, 1)))  # a red star and a blue striped square
    scores = bench.score(x, Item(0, str(wanted), "attributes"), 5)
    assert (scores["colours"], scores["shapes"], scores["textures"]) == (1.0, 0.5, 0.5)
    assert scores["attributes"] == pytest.approx(4 / 6)
    assert (scores["right"], scores["binding"], scores["exact"]) == (0.0, 0.0, 1.0)
    assert scores["itm_plain"] > 0.7


def test_places_count_where_they_are_asked_for(bench: Bench, scene: tuple[str, torch.Tensor]) -> None:
    _, x = scene
    for words, right in (("to the left of", 1.0), ("above", 0.0)):
        scores = bench.score(x, Item(0, f"a red circle {words} a blue square", "spatial"), 5)
        assert (scores["relation"], scores["right"], scores["binding"]) == (right, right, 1.0)


# -- the whole way


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables 4 and 9 first, table 3 later, films and what is measured at them."""
    path = tmp_path_factory.mktemp("runs")
    assert called("bench", "paper:tables=9,n=2,views=2", *SHORT, "--device", "cpu", "--out", str(path)) == 0
    assert drawn(path) == {(f"{name}", "attributes"): 2 for name in ("noise-05", "noise-10", "blip2-sds", "noise-30")}
    return path


@pytest.fixture(scope="module")
def both(folder: Path) -> Evidence:
    before = read([folder])
    assert called("bench", "paper:tables=3+f6,n=1,views=2", *SHORT, "--device", "cpu", "--out", str(folder)) == 0
    after = read([folder])
    kept = {record.key: record for record in after.records}
    assert all(kept[record.key] == record for record in before.records)
    return after


def test_tables_are_run_one_by_one_and_share_their_rows(both: Evidence, folder: Path) -> None:
    found = drawn(folder)
    assert found[("blip2-sds", "attributes")] == 2  # of the first run; the second asked for the first of them
    assert {(name, suite): 1 for name in MAIN for suite in ("spatial", "complex")}.items() <= found.items()
    assert found[("crop", "attributes")] == 1
    assert found[("crop", "spatial")] == 0
    assert found[("panel-flip", "spatial")] == 1
    assert found[("panel-flip", "attributes")] == 0
    assert both.about.suites == {"attributes": 2, "spatial": 1, "complex": 1}


def test_tables_run_in_two_places_are_joined(both: Evidence, folder: Path, tmp_path: Path) -> None:
    assert called("bench", "paper:tables=9,n=1,views=2", *SHORT, "--device", "cpu", "--out", str(tmp_path)) == 0
    joined = read([folder, tmp_path])
    assert len(joined.records) == len(both.records)
    assert called("bench", "paper:tables=9,n=1,views=3", *SHORT, "--device", "cpu", "--out", str(tmp_path)) == 2
    with pytest.raises(RunError, match="No bench wrote"):
        read([tmp_path / "elsewhere"])


@pytest.fixture(scope="module")
def page(both: Evidence, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written into another folder."""
    remarks = tmp_path_factory.mktemp("remarks") / "remarks.toml"
    remarks.write_text('9 = "Tried: twice the steps."\nsmooth = "Only a few."\n')
    assert called("film", str(folder), "-n", "2", *SHORT, run=script.main) == 0
    assert called("smooth", str(folder), "--directions", "2", "--views", "2", run=script.main) == 0
    out = remarks.parent / "docs" / "paper.md"
    assert called("page", str(folder), "--out", str(out), "--remarks", str(remarks), run=script.main) == 0
    return out


def test_the_page_tells_every_table(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for table in TABLES:
        assert f"\n## {table.title}\n" in text
        assert f"| {table.title} | {table.claim} | **" in text
        for row in table.rows:
            assert f"| {row.title} | " in text
            assert all(number in text for number in row.paper.values())
        for part in table.parts:
            assert part.says in text
    verdicts = re.findall(r"^\| .* \| .*\. \| \*\*(.*)\*\* \|$", text, re.MULTILINE)
    assert Counter(verdicts) == {"not measured yet": 6, "not decided at this error": 6, "not testable here": 1}
    assert "Tried: twice the steps." in text
    assert "Only a few." in text
    assert re.search(r"\d+ pictures by 11 methods, 1 for each prompt, on cpu: 0\.\d CPU hours", text)
    assert "nan" not in text


def test_the_pages_numbers_are_those_of_the_records(page: Path, both: Evidence) -> None:
    section = page.read_text(encoding="utf-8").partition("## Table 9")[2].partition("\n## ")[0]
    shares = [record.scores["binding"] for record in both.of("noise-05", "attributes")]
    assert f"| 0.05 | 68.21 | {sum(shares) / 2:.2f} ± " in section
    assert "| – |" not in section
    assert "| 2 | **not decided at this error** |" in section


def test_the_page_says_what_is_not_of_the_papers_settings(page: Path) -> None:
    """All was drawn in three steps."""
    text = page.read_text(encoding="utf-8")
    told = text.partition("## Not the paper's rows")[2].partition("\n## ")[0]
    assert text.index("## Not the paper's rows") < text.index("## What holds")
    assert {"blip2-sds", "noise-05", "sds", "blip2-noaug", "panel-flip"} <= set(re.findall("`(.*?)`", told))
    assert re.search(r"^\| .*`blip2-sds`.* \| .*rules.steps: (300|nothing) and 3[; ]", told, re.MULTILINE)
    assert "| `scores` | views: 16 and 2 |" in told
    assert re.search(r"^\| 0.05 \| 68.21 .*; \*\*drawn by other settings\*\* \|$", text, re.MULTILINE)


def test_what_is_of_the_papers_settings_is_not_told_to_differ(registry: Registry) -> None:
    opened_ = opened(registry, "paper")
    layers = {name: opened_.methods()[name] for name in (*MAIN, "plain-16", "panel-flip", "two-steps")}
    makers = {one.name: one.maker for one in prepare(layers, opened_.items()[:1], registry)}
    about = About(bench="paper", options={"views": 16}, columns=opened_.columns, suites={}, methods=makers)
    evidence = Evidence(About.model_validate_json(about.model_dump_json()), (), {})
    assert script._changed(Found(evidence, {}, {}), registry) == {}


def test_pictures_lie_beside_the_page_and_are_small(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"!\[.*\]\((.*)\)", text)
    files = {path.relative_to(page.parent).as_posix(): path for path in (page.parent / "images").rglob("*.*")}
    assert sorted(named) == sorted(files)
    assert {"f10", "f12", "f7", "3", "9"} <= {path.stem for path in files.values()}
    for path in files.values():
        with Image.open(path) as picture:
            assert picture.format == "WEBP"
    assert sum(path.stat().st_size for path in files.values()) < script.MOST


@pytest.mark.parametrize("method", ["plain-4", "plain-16"])
def test_only_inversions_are_filmed(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called("film", str(tmp_path), "-n", "1", "--methods", f"sds,{method}", *SHORT, run=script.main) == 2
    assert f"'{method}' draws by 'sample': only an inversion" in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]


def test_a_page_may_be_of_films_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page" / "paper.md"
    assert called("film", str(tmp_path / "films-only"), "-n", "1", "--methods", "blip2-sds,sds", *SHORT,
                  run=script.main) == 0  # fmt: skip
    assert called("page", str(tmp_path / "films-only"), "--out", str(out), run=script.main) == 0
    text = out.read_text(encoding="utf-8")
    assert "0 pictures by 0 methods" in text
    assert "images/paper/f12.webp" in text
    assert "| `blip2-sds`, `sds` | films, which do not say where they differ |" in text
    capsys.readouterr()
    assert called("page", str(tmp_path / "films-only"), str(tmp_path), "--out", str(out), run=script.main) == 2
    assert "has neither records of `referee bench paper` nor films" in capsys.readouterr().err
    other = About(bench="pocket", columns={"right": Column("right")}, suites={"attributes": 1})
    (tmp_path / "about-0-of-1.json").write_text(other.model_dump_json())
    assert called("page", str(tmp_path), "--out", str(out), run=script.main) == 2
    assert "these records are of 'pocket'" in capsys.readouterr().err


def test_a_page_of_too_many_bytes_or_of_mixed_settings_is_refused(
    page: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "paper.md"
    with monkeypatch.context() as patch:
        patch.setattr(script, "MOST", 1000)
        assert called("page", str(folder), "--out", str(out), run=script.main) == 2
    assert "1,000 at most" in capsys.readouterr().err
    other = tmp_path / "other"
    assert called("film", str(other), "-n", "1", "--methods", "sds", "--set", "rules.steps=2", "--set", "rules.tail=1",
                  run=script.main) == 0  # fmt: skip
    assert called("page", str(folder), str(other), "--out", str(out), run=script.main) == 2
    assert "films of 'sds' are of other settings" in capsys.readouterr().err
    bad = tmp_path / "remarks.toml"
    bad.write_text('10 = "?"')
    assert called("page", str(folder), "--out", str(out), "--remarks", str(bad), run=script.main) == 2
    assert called("page", str(tmp_path), "--out", str(out), run=script.main) == 2
    assert not out.exists()
