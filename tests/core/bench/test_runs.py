"""A bench is drawn and scored once: stopped, sharded, with more seeds or in two folders, the records are the same."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import filelock
import pytest

from referee.bench.records import read
from referee.folder.run import read_config
from referee.pixels import from_pillow

from .conftest import Desk, scores


def test_each_method_draws_each_prompt_and_the_file_is_what_is_scored(desk: Desk) -> None:
    found = desk.done("--seeds", "2")
    assert len(found.records) == 2 * 4 * 2
    assert found.about.suites == {"bright": 3, "half dim": 1}
    places = [("bright", 0), ("bright", 1), ("bright", 2), ("half dim", 0)]
    assert {(r.method, r.suite, r.index, r.seed) for r in found.records} == {
        (method, *place, 1 + place[1] + 10_000 * k) for method in ("run", "plain") for place in places for k in (0, 1)
    }
    for record in found.records:
        x = from_pillow(found.pictures[record.key])
        channel = ["red", "green", "blue"].index(
            next(w for w in record.prompt.split() if w in ("red", "green", "blue"))
        )
        assert record.scores["share"] == pytest.approx(x[0, channel].mean().item() / x[0].sum(0).mean().item())
        assert ("even" in record.scores) == (record.index % 2 == 0)
        assert record.cpu_seconds is not None
    assert {path.name for path in desk.out.glob("[!.]*") if path.suffix != ".jsonl"} == {
        "about-0-of-1.json", "pictures", "table.md", "table.csv", "plot.svg", "sheet-run-bright.png",
        "sheet-plain-bright.png", "sheet-run-half-dim.png", "sheet-plain-half-dim.png",
    }  # fmt: skip


def test_a_picture_says_how_it_was_drawn(desk: Desk) -> None:
    found = desk.done("--methods", "run")
    record = found.of("run", "bright")[1]
    layer = read_config(found.pictures[record.key])
    assert (layer["run"]["prompt"], layer["seeds"]) == ("a green square", [record.seed])
    assert layer["rules"]["steps"] == 4
    assert layer["run"]["bench"] == {"method": "run", "draw": {"name": "invert"}}


@pytest.mark.parametrize("after", [1, 4])
@pytest.mark.parametrize(
    ("how", "code"),
    [("raise KeyboardInterrupt", 130), ("os.kill(os.getpid(), signal.SIGTERM)", 143), ("raise ValueError('no')", 1)],
)
def test_a_stopped_run_goes_on_and_ends_as_an_unbroken_one(desk: Desk, after: int, how: str, code: int) -> None:
    whole = desk.done(out="whole")
    desk.at(f"if len(list((HERE / 'out' / 'pictures').rglob('*.png'))) == {after + 1}: {how}")
    answer = desk.bench()
    assert answer.code == code
    said = f"{after} picture{' is' if after == 1 else 's are'} recorded in out. The same command goes on."
    assert said in answer.err
    if code == 1:
        assert "The bench 'colours' could not score" in answer.err
        assert "ValueError: no" in answer.err
    assert len(read([desk.out]).records) == after
    desk.at("")
    assert scores(desk.done()) == scores(whole)
    assert len((desk.out / "records-0-of-1.jsonl").read_text().splitlines()) == len(whole.records)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_failure_at_the_first_picture_is_one_sentence(desk: Desk) -> None:
    desk.at("1 / 0")
    answer = desk.bench()
    assert answer.code == 1  # files are written
    assert answer.err.splitlines()[-1] == "referee: 0 pictures are recorded in out. The same command goes on."
    assert "division by zero" in answer.err.splitlines()[0]


@pytest.mark.parametrize(
    ("raised", "says"),
    [
        ("RuntimeError('out of memory')", "referee: Out of memory: out of memory"),
        ("KeyError('tokens')", "KeyError: 'tokens'"),
        ("OptionError('no')", "referee: The method 'plain', bright 2: no"),
    ],
)
def test_what_a_draw_raises_on_the_way_is_told_and_what_is_kept(desk: Desk, raised: str, says: str) -> None:
    text = (desk.folder / "toys.py").read_text()
    fault = f"""
    class Prior(ToyPrior):
        def sample(self, prompt, *given):
            from referee.errors import OptionError
            if 'blue' in prompt.text:
                raise {raised}
            return super().sample(prompt, *given)
    return Prior()
"""
    (desk.folder / "toys.py").write_text(text.replace("    return ToyPrior()\n", fault))
    answer = desk.bench("--methods", "plain")
    assert answer.code == 1
    assert any(line.startswith(says) for line in answer.err.splitlines()), answer.err
    assert answer.err.splitlines()[-1] == "referee: 2 pictures are recorded in out. The same command goes on."


def test_a_picture_that_was_stopped_half_way_is_no_picture(desk: Desk) -> None:
    text = (desk.folder / "toys.py").read_text()
    fault = """
    class Referee(ToyReferee):
        def read(self, prompt):
            if "green" in prompt.text and not (HERE / "stopped").exists():
                (HERE / "stopped").touch()
                return lambda views: os.kill(os.getpid(), signal.SIGINT) or super(Referee, self).read(prompt)(views)
            return super().read(prompt)
    return Referee()
"""
    (desk.folder / "toys.py").write_text(text.replace("    return ToyReferee()\n", fault))
    answer = desk.bench("--methods", "run")
    assert (answer.code, "1 picture is recorded in out" in answer.err) == (130, True)
    assert len(list(desk.out.rglob("*.png"))) == 1
    (desk.folder / "toys.py").write_text(text)
    assert scores(desk.done("--methods", "run")) == scores(desk.done("--methods", "run", out="whole"))


def test_what_is_recorded_loads_no_model(desk: Desk) -> None:
    desk.done()
    (desk.folder / "loaded").unlink()
    before = {path: content for path, content in desk.files().items() if "records" in path}
    desk.done()
    assert not (desk.folder / "loaded").exists()
    assert before == {path: content for path, content in desk.files().items() if "records" in path}


def test_a_line_that_was_cut_off_is_drawn_again(desk: Desk) -> None:
    whole = desk.done("--methods", "plain")
    path = desk.out / "records-0-of-1.jsonl"
    content = path.read_bytes()
    path.write_bytes(content[:-30])
    assert len(read([desk.out]).records) == len(whole.records) - 1
    assert scores(desk.done("--methods", "plain")) == scores(whole)
    assert path.read_bytes().count(b"\n") == len(whole.records)


def test_shards_are_the_whole(desk: Desk) -> None:
    whole = desk.done(out="whole")
    for i in (2, 0, 1):
        assert len(desk.done("--shard", f"{i}/3", out=f"shard-{i}").records) == (4 if i == 0 else 2)
        desk.done("--shard", f"{i}/3")
    assert scores(read([desk.out])) == scores(whole)
    assert scores(read([desk.folder / f"shard-{i}" for i in range(3)])) == scores(whole)


def test_more_prompts_and_more_seeds_are_added(desk: Desk) -> None:
    desk.done("--methods", "plain", name="colours:n=1")
    assert desk.done("--methods", "plain", "--seeds", "2").about.seeds == 2
    whole = desk.done("--methods", "plain", "--seeds", "2", out="whole")
    assert scores(read([desk.out])) == scores(whole)
    kept = desk.done("--methods", "plain", name="colours:n=1")
    assert (kept.about.suites, kept.about.seeds) == ({"bright": 3, "half dim": 1}, 2)


def test_methods_of_ones_own(desk: Desk) -> None:
    (desk.folder / "mine.toml").write_text('zoo = "none"\nheight = 8\nwidth = 8\nprior.name = "toy"\ndraw = "sample"\n')
    layer = json.dumps({"zoo": "none", "prior": {"name": "toy"}, "height": 8, "width": 8, "draw": {"name": "sample"}})
    found = desk.done("--method", "mine.toml", "--method", f"yours={layer}")
    assert list(found.about.methods) == ["mine", "yours"]
    assert found.about.methods["mine"].digest == found.about.methods["yours"].digest
    both = desk.done("--method", "mine.toml", "--methods", "run")
    assert list(both.about.methods) == ["mine", "yours", "run"]
    assert both.about.methods["run"].families == ("toy",)


def test_settings_over_all_methods(desk: Desk) -> None:
    found = desk.done("--set", "rules.steps=6", "--methods", "run")
    assert found.about.methods["run"].settings["rules"]["steps"] == 6


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--set", "rules.steps=9"], "the methods 'run' are not the same: settings.rules.steps: 4 and 9."),
        (["--methods", "run", "--dtype", "bfloat16"], "settings.dtype: "),
    ],
)
def test_another_method_of_the_name_is_refused(desk: Desk, words: list[str], says: str) -> None:
    desk.done()
    desk.refused(says, *words)
    desk.done(*words, out="elsewhere")


def test_a_plain_sample_hangs_on_no_rules(desk: Desk) -> None:
    whole = desk.done("--methods", "plain")
    base = {"zoo": "none", "prior": {"name": "toy"}, "height": 8, "width": 8, "draw": "sample"}
    (maker,) = whole.about.methods.values()
    assert maker.settings.keys() == {"zoo", "height", "width", "prior"}
    found = desk.done("--methods", "plain", "--set", "rules.steps=9", "--seeds", "2")
    assert found.about.methods["plain"].digest == maker.digest
    mine = f"mine={json.dumps({**base, 'rules': {'steps': 70}, 'balancer': {'name': 'nobody'}})}"
    assert desk.done("--method", mine).about.methods["mine"].digest == maker.digest


def test_another_scorer_is_refused(desk: Desk) -> None:
    desk.done("--methods", "plain")
    desk.refused("the benches are not the same: options.scale: 1.0 and 0.5", name="colours:scale=0.5")
    desk.refused("options.note", name="colours:note=louder")
    desk.refused('bench: "colours" and "named"', name="named")


def test_an_item_with_other_data_is_refused(desk: Desk) -> None:
    desk.done("--methods", "plain")
    text = (desk.folder / "toys.py").read_text()
    (desk.folder / "toys.py").write_text(text.replace('"a {word} square"', '"a {word} circle"'))
    desk.refused("bright 0 is 'a red square' there and 'a red circle' now")
    (desk.folder / "toys.py").write_text(text.replace('{"note": self.options.note}', '{"note": 7}'))
    desk.refused("bright 0 is 'a red square' there and 'a red square' now, with other data for the scorer")


def test_what_is_no_number_is_left_out_and_said(desk: Desk) -> None:
    desk.at("answer = {'share': float('nan') if item.index else 1, 'loss': 2}")
    answer = desk.bench("--methods", "plain", "--json")
    assert answer.code == 0
    assert answer.err.count("share is no finite number, and is left out") == 2
    cells = {(c["suite"], c["column"]): c for c in json.loads(answer.out)["cells"]}
    assert cells["bright", "share"]["n"] == 1
    assert cells["bright", "loss"]["n"] == 3


@pytest.mark.parametrize("answer", ["{'shape': 1.0}", "{'share': 'much'}", "None"])
def test_a_scorer_that_breaks_its_word_is_named(desk: Desk, answer: str) -> None:
    desk.at(f"answer = {answer}")
    found = desk.bench("--methods", "plain")
    assert found.code == 1
    assert "The bench 'colours'" in found.err


def test_two_processes_do_not_write_one_shard(desk: Desk) -> None:
    desk.done("--methods", "plain", "--shard", "0/2")
    assert (desk.out / ".lock-0-of-2").exists()  # taken away, it would be no lock for who waits
    with filelock.FileLock(desk.out / ".lock-0-of-2"):
        desk.refused("Another process draws shard 0-of-2", "--methods", "plain", "--shard", "0/2", "--seeds", "2")
        desk.done("--methods", "plain", "--shard", "1/2")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--seeds", "0"], "at least one picture"),
        (["--shard", "2/2"], "--shard 2/2: write I/N"),
        (["--shard", "a/2"], "--shard a/2: write I/N"),
        (["--partial"], "add --images DIR"),
        (["--methods", "rum"], "no method 'rum'. Did you mean 'run'?"),
        (["--method", "mine"], "--method mine: give FILE.toml, or NAME="),
        (["--method", "none.toml"], "--method none.toml: No such file"),
        (["--method", "M.toml"], "'M' is no name for a method"),
        (["--method", "broken.toml"], "--method broken.toml is not TOML"),
        (["--method", "a={"], "--method a={ is not JSON"),
        (["--method", "a=[]"], "settings are a table"),
        (["--method", "run={}"], "the bench has a method 'run' of its own"),
        (["--method", "a={}", "--method", "a={}"], "two methods are called 'a'"),
        (["--method", 'a={"rulez": {}}'], "The method 'a': there is no 'rulez'"),
        (["--method", 'a={"draw": "throw"}'], "no way of drawing called 'throw'"),
        (["--method", 'a={"draw": 3}'], "draw: say the name of a way"),
        (["--method", 'a={"draw": {"name": "sample", "options": {"n": 1}}}'], "draw 'sample': there is no 'n'"),
        (["--method", 'a={"prior": {"name": "nobody"}}'], "The method 'a': There is no prior called 'nobody'"),
        (["--method", 'a={"zoo": "nowhere"}'], "The method 'a': There is no zoo called 'nowhere'"),
        (["--method", 'a={"draw": "best-of"}'], "The method 'a': draw 'best-of' asks referees, and none has a weight"),
        (["--method", 'a={"draw": "noise", "referees": []}'], "The method 'a': draw 'noise' asks referees"),
        (["--set", "rules"], "write a.b=value"),
        (["--device", "abacus"], "abacus"),
        (["--images", "nowhere"], "--images nowhere: there is no such folder"),
    ],
)
def test_bad_input_is_refused_before_anything_is_loaded_or_written(desk: Desk, words: list[str], says: str) -> None:
    (desk.folder / "broken.toml").write_text("= 3")
    (desk.folder / "M.toml").write_text("")
    base: dict[str, Any] = {"height": 8, "width": 8, "prior": {"name": "toy"}, "rules": {"prior_weight": 1}}
    words = [w.replace("={", f"={json.dumps(base)[:-1]}, ", 1) if w.startswith('a={"') else w for w in words]
    desk.refused(says, *words)
    assert not desk.out.exists()


def test_a_referee_with_nothing_to_judge_ends_with_1_and_binds_nothing(desk: Desk) -> None:
    text = (desk.folder / "toys.py").read_text()
    fault = """
    from referee.errors import NothingToJudge
    class Referee(ToyReferee):
        def read(self, prompt):
            raise NothingToJudge("no place is named")
    return Referee()
"""
    (desk.folder / "toys.py").write_text(text.replace("    return ToyReferee()\n", fault))
    answer = desk.bench("--methods", "run")
    assert answer.code == 1
    assert "referee: The method 'run', bright 0: no place is named" in answer.err
    (desk.folder / "toys.py").write_text(text)
    found = desk.done("--methods", "run", "--set", "rules.steps=3")  # nothing was drawn that it could contradict
    assert found.about.methods["run"].settings["rules"]["steps"] == 3


def test_a_bad_bench_is_refused(desk: Desk) -> None:
    desk.refused("There is no bench called 'colors'. Did you mean 'colours'?", name="colors")
    desk.refused("bench 'colours': there is no 'm'", name="colours:m=1")
    desk.refused("has no prompts", name="colours:n=0")
    text = (desk.folder / "toys.py").read_text()
    (desk.folder / "toys.py").write_text(text.replace('"a dim {word} square"', '"an ugly {word} square"'))
    desk.refused("The method 'run': half dim 0: it is ugly")
    (desk.folder / "toys.py").write_text(text.replace('"a dim {word} square"', '""'))
    desk.refused("The method 'run': half dim 0: The prompt is empty")
    (desk.folder / "toys.py").write_text(text.replace('"half dim"', '"bright"'))
    desk.refused("two items 0 in its suite 'bright'")
    (desk.folder / "toys.py").write_text(text.replace('"half dim"', '"Bright"'))
    desk.refused("suites whose names differ in marks alone")


def test_a_folder_of_something_else_is_left_alone(desk: Desk) -> None:
    Path("file").write_text("mine")
    desk.refused("--out file: Not a directory", out="file")
    Path("run").mkdir()
    Path("run/run.toml").write_text("mine")
    desk.refused("run holds something else", out="run")
