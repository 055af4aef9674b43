"""The command as a person meets it: a whole run with toys, its repetition, and one sentence for whatever is refused."""

from __future__ import annotations

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from referee.command.app import main
from referee.folder.run import open_run

PLUGIN = '''
"""The toys as a plug-in in a single file, which leaves a mark when one is made and counts the steps it sees."""
from pathlib import Path
from pydantic import BaseModel, Field
from referee.errors import PromptError
from referee.hooks import Spec, ZooSpec, hookimpl

HERE = Path(__file__).parent


class Options(BaseModel, extra="forbid", frozen=True):
    input_size: int = Field(8, description="of the views")


def referee(options, place):
    (HERE / "made").touch()
    from referee.testing import ToyReferee
    return ToyReferee(options.input_size)


def prior(options, place):
    (HERE / "made").touch()
    from referee.testing import ToyPrior
    return ToyPrior()


def words(prompt):
    if "grue" in prompt:
        raise PromptError("The toys draw no grue.")


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", referee, Options))


@hookimpl
def referee_priors(register):
    register(Spec("toy", "likes grey", prior))


@hookimpl
def referee_zoos(register):
    register(ZooSpec("toys", "a zoo of toys", "toys", presets={"toys": PRESET}, check_prompt=words))


@hookimpl
def referee_step(step):
    with (HERE / "steps").open("a") as file:
        file.write(f"{step.k}\\n")
    if (HERE / "stop").exists() and step.k == 5:
        raise KeyboardInterrupt


PRESET = """
height = 16
width = 16
device = "cpu"
[rules]
steps = 14
tail = 2
prior_weight = 0.1
[prior]
name = "toy"
[[referees]]
name = "toy"
"""
'''


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Desk:
    """A folder of its own with the toys' plug-in in it, and `referee` called there in this process."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.monkeypatch, self.capsys = folder, monkeypatch, capsys
        (folder / "toys.py").write_text(PLUGIN)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")
        self.before = self.files()

    def files(self) -> set[str]:
        return {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if "__pycache__" not in p.parts}

    def bare(self, *words: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["referee", *words])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        caught = self.capsys.readouterr()
        code = end.value.code
        return Answer(code if isinstance(code, int) else 0, caught.out, caught.err)

    def __call__(self, *words: str) -> Answer:
        """With the toys' file as the only plug-in."""
        return self.bare(*words, "--plugin", "toys.py", "--no-plugins")


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


PRIOR = ["--zoo", "none", "--prior", "toy", "--size", "16x16", "--device", "cpu"]
TOYS = [*PRIOR, "-r", "toy"]
RUN = ["generate", "red", *TOYS, "--steps", "12", "--set", "rules.prior_weight=cosine(0.2, 0.1)"]


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return np.asarray(picture).tobytes()


def test_a_whole_run_and_its_repetition(desk: Desk) -> None:
    answer = desk(*RUN, "--seed", "3", "-n", "2", "--out", "out")
    assert (answer.code, answer.err) == (0, "")
    out = desk.folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "picture-3.png", "picture-4.png", "run.toml", "metrics.jsonl", "evolution.png", "panel.png", "frames-3.webp",
        "frames-4.webp", "maps-3.webp", "maps-4.webp", "report.html",
    }  # fmt: skip
    assert "out/picture-3.png" in answer.out
    assert "step   12/12" in answer.out
    run = tomllib.loads((out / "run.toml").read_text())
    assert (run["zoo"], run["seeds"], run["rules"]["steps"]) == ("none", [3, 4], 12)
    assert run["rules"]["prior_weight"] == "cosine(0.2, 0.1)"
    assert (run["run"]["prompt"], "interrupted_after" in run["run"]) == ("red", False)
    assert run["run"]["plugins"] == {"toys": "toys.py"}
    metrics = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in metrics] == list(range(12))
    assert [len(row["losses"]) for row in metrics] == [1] * 2 + [0] * 10  # the default tail of 10
    assert (desk.folder / "steps").read_text().split() == [str(k) for k in range(12)]
    with Image.open(out / "evolution.png") as sheet:
        assert sheet.size == (70 + 8 * 130, 16 + 2 * 130)  # after 0, 1, 2, 3, 5, 7, 9, 12 steps; two pictures
    with Image.open(out / "picture-3.png") as picture:
        assert picture.size == (16, 16)
        assert (picture.text["prompt"], picture.text["seed"]) == ("red", "3")
        assert tomllib.loads(picture.text["settings"]) == run

    assert desk("generate", "red", "--config", "out/run.toml", "--out", "again").code == 0
    again = desk.folder / "again"
    for name in ("picture-3.png", "picture-4.png", "evolution.png", "panel.png"):
        assert pixels(again / name) == pixels(out / name)
    for name in ("run.toml", "metrics.jsonl"):
        assert (again / name).read_bytes() == (out / name).read_bytes()
    assert pixels(out / "picture-3.png") != pixels(out / "picture-4.png")

    assert desk("generate", "red", "--config", "out/run.toml", "--seed", "4", "--out", "alone").code == 0
    assert pixels(desk.folder / "alone" / "picture-4.png") == pixels(out / "picture-4.png")


def test_a_run_is_repeated_from_its_picture(desk: Desk) -> None:
    assert desk(*RUN, "--seed", "3", "-n", "2", "--out", "out", "--no-report").code == 0
    assert not (desk.folder / "out" / "report.html").exists()
    answer = desk("generate", "--config", "out/picture-4.png", "--out", "again")
    assert (answer.code, answer.err) == (0, "")
    assert pixels(desk.folder / "again" / "picture-4.png") == pixels(desk.folder / "out" / "picture-4.png")
    assert not (desk.folder / "again" / "picture-3.png").exists()
    assert desk("generate", "blue", "--config", "out/run.toml", "--out", "blue").code == 0
    assert 'prompt = "blue"' in (desk.folder / "blue" / "run.toml").read_text()


def test_the_record_says_who_played_and_where(desk: Desk) -> None:
    assert desk(*RUN, "--out", "out").code == 0
    run = open_run(desk.folder / "out")
    found = [(part.kind, part.name, part.distribution) for part in run.about.parts]
    assert found == [("referee", "toy", "toys.py"), ("prior", "toy", "toys.py")]
    assert (run.about.device, run.about.command, run.about.weights) == ("cpu", "generate", {})


JUDGED = [*RUN, "--judge", "toy:label=j,prompt=blue,every=5", "--set", "rules.tail=0"]
KIN = "referee: The judge 'j' is of the same family as 'toy': a picture that fools one may well fool the other. Take a "


def test_a_judge_keeps_its_best_and_says_so(desk: Desk) -> None:
    """It wants blue, the referee red: its first verdict is its best."""
    answer = desk(*JUDGED, "--seed", "3", "-n", "2", "--pick", "--out", "out")
    assert answer.code == 0
    assert answer.err.startswith(KIN)
    metrics = [json.loads(line) for line in (desk.folder / "out" / "metrics.jsonl").read_text().splitlines()]
    verdicts = {row["step"]: row["judge"] for row in metrics if "judge" in row}
    assert list(verdicts) == [4, 9, 11]
    assert all(verdicts[4][i] < verdicts[9][i] < verdicts[11][i] for i in (0, 1))
    found = open_run(desk.folder / "out").about.judge
    assert found is not None
    best = verdicts[4].index(min(verdicts[4]))
    assert (found.taken, found.ended, found.picked) == ((5, 5), None, 3 + best)
    assert "j (judge), seed 3: " in answer.out
    assert f"{verdicts[4][best]:.3g} after 5 steps, picked" in answer.out
    assert re.search(r"step   12/12 .*  judge 0\.\d+ ", answer.out)
    page = (desk.folder / "out" / "report.html").read_text()
    for told in ("judge j", "Taken: seed 3 after 5 steps, seed 4 after 5 steps.", f"Picked: seed {3 + best}."):
        assert told in page

    again = desk("generate", "--config", "out/run.toml", "--out", "again", "-q")
    assert again.out == f"again/picture-{3 + best}.png\n"
    assert pixels(desk.folder / "again" / "picture-3.png") == pixels(desk.folder / "out" / "picture-3.png")
    alone = desk("generate", "--config", f"out/picture-{4 - best}.png", "--out", "alone", "-q")
    assert alone.code == 0
    name = f"picture-{4 - best}.png"
    assert pixels(desk.folder / "alone" / name) == pixels(desk.folder / "out" / name)
    last = desk("generate", "--config", "out/run.toml", "--keep", "last", "--out", "last", "--json")
    assert json.loads(last.out)["judge"] == {
        "name": "j", "losses": verdicts[11], "taken": [12, 12], "ended": None, "hacked": [None, None],
        "picked": 3 + verdicts[11].index(min(verdicts[11])),
    }  # fmt: skip
    none = desk("generate", "--config", "out/run.toml", "--judge", "none", "--out", "none")
    assert (none.code, none.err) == (0, "")
    assert pixels(desk.folder / "none" / "picture-3.png") == pixels(desk.folder / "last" / "picture-3.png")
    assert pixels(desk.folder / "none" / "picture-3.png") != pixels(desk.folder / "out" / "picture-3.png")
    for command in (["sample", "--set", "judge.every=3"], ["score", "out/picture-3.png", "red"]):
        assert "family" not in desk(*command, "--config", "out/run.toml", *(["--out", "s"] * (len(command) < 3))).err


def test_reward_hacking_is_said_once_everywhere(desk: Desk) -> None:
    words = ["--judge", "toy:label=j,prompt=blue,every=1", "--set", "rules.tail=0", "--set", "rules.noise=0"]
    answer = desk(*RUN, *words, "--set", "rules.lr=0.3", "-n", "2", "--out", "out")
    assert answer.code == 0
    assert answer.err.count("Reward hacking, seed ") == 1
    rows = [row for row in open_run(desk.folder / "out").metrics if row.hacked]
    assert rows
    told = "Reward hacking: the referees like the picture ever better, the judge ever less. seed 0 after step "
    assert told in (desk.folder / "out" / "report.html").read_text()
    assert "reward hacking, seen after step" in answer.out


REFUSED_JUDGES = {
    "unknown": (["--judge", "tow"], "There is no referee called 'tow'. Did you mean 'toy'?"),
    "a weight": (["--judge", "toy:weight=2"], "there is no 'weight'"),
    "keep, and no judge": (["--keep", "best"], "--keep and --pick are about what a judge says: add --judge NAME."),
    "pick, and no judge": (["--pick", "-n", "2"], "add --judge NAME."),
    "pick of one": (["--judge", "toy", "--pick"], "--pick chooses among pictures, and there is one: add -n 4"),
    "keep what": (["--judge", "toy", "--keep", "first"], "judge.keep: Input should be 'best' or 'last'"),
    "patience with last": (["--judge", "toy:patience=2", "--keep", "last"], "it does not go with keep=last"),
    "every 0": (["--judge", "toy:every=0"], "judge.every: Input should be greater than or equal to 1"),
    "an empty prompt": (["--judge", "toy:prompt= "], "prompt"),
    "no name": (["--set", "judge.every=3"], "'judge.name' must be given"),
}


@pytest.mark.parametrize("case", REFUSED_JUDGES)
def test_a_judge_that_makes_no_sense_is_refused_before_anything_loads(desk: Desk, case: str) -> None:
    words, said = REFUSED_JUDGES[case]
    answer = desk(*RUN, *words, "--out", "out")
    assert answer.code == 2
    assert said in answer.err
    assert desk.files() == desk.before


def test_json_is_the_result_and_nothing_else(desk: Desk) -> None:
    answer = desk(*RUN, "-n", "2", "--out", "out", "--json", "--set", "rules.tail=0")
    assert answer.code == 0
    assert answer.out.count("\n") == 1
    said = json.loads(answer.out)
    last = open_run(desk.folder / "out").metrics[-1].losses["toy"]
    assert said == {
        "prompt": "red", "folder": "out", "complete": True, "steps": 12, "sat_out": {}, "report": "out/report.html",
        "pictures": [
            {"seed": i, "path": f"out/picture-{i}.png", "losses": {"toy": last[i]}} for i in (0, 1)
        ],
    }  # fmt: skip
    assert "step   12/12" in answer.err
    said = json.loads(desk("sample", "red", "--zoo", "none", "--prior", "toy", "--json").out)
    assert said["pictures"] == [{"seed": 0, "path": "runs/red-0/picture-0.png", "losses": {}}]


def test_quiet_prints_the_paths_alone(desk: Desk) -> None:
    answer = desk(*RUN, "-n", "2", "--out", "out", "--quiet")
    assert (answer.out, answer.err) == ("out/picture-0.png\nout/picture-1.png\n", "")
    assert desk("sample", "red", "--zoo", "none", "--prior", "toy", "-q").out == "runs/red-0/picture-0.png\n"


def test_verbose_tells_on_stderr_what_is_done(desk: Desk) -> None:
    answer = desk(*RUN, "--out", "out", "-v", "-q")
    assert answer.out == "out/picture-0.png\n"
    assert "referee: prior toy: toys.py" in answer.err
    assert "referee: wrote out/picture-0.png" in answer.err
    assert desk(*RUN, "-q").err == ""  # and the next run is not


def test_previews_and_animations(desk: Desk) -> None:
    assert desk(*RUN, "-n", "3", "--out", "out", "--preview-every", "5", "--animation", "gif").code == 0
    out = desk.folder / "out"
    assert sorted(path.name for path in out.glob("preview-*")) == ["preview-05.png", "preview-10.png"]
    with Image.open(out / "preview-05.png") as sheet:
        assert sheet.size == (16 + 2 + 16, 16 + 2 + 16)  # three pictures as a square
    with Image.open(out / "evolution.gif") as moving:
        assert (moving.format, moving.info["loop"], moving.size) == ("GIF", 0, (4 * 34, 4 * 34))
        assert moving.n_frames > 2
    assert desk(*RUN, "--out", "two", "--animation", "webp").code == 0
    with Image.open(desk.folder / "two" / "evolution.webp") as moving:
        assert (moving.format, moving.size) == ("WEBP", (64, 64))
        assert moving.n_frames > 2
    film = open_run(out).film(2)
    assert len(film) == 13  # each of the twelve steps and the end
    assert film[-1].tobytes() == open_run(out).picture(2).tobytes()


def test_an_animation_as_mp4(desk: Desk) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'vlm-referee[mp4]'")
    import av

    assert desk(*RUN, "-n", "3", "--out", "out", "--animation", "mp4", "-q").code == 0
    film = open_run(desk.folder / "out").film(0)
    with av.open(str(desk.folder / "out" / "evolution.mp4")) as moving:
        (stream,) = moving.streams.video
        shown = [frame.to_image() for frame in moving.decode(stream)]
    assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
    assert {picture.size for picture in shown} == {(4 * 34, 4 * 34)}
    assert len(shown) == 12 * 3 + 40  # each frame for 0.12 seconds, the last for 1.6, at 25 a second
    for at, frame in ((0, film[0]), (17, film[5]), (-1, film[-1])):
        found, meant = np.asarray(shown[at].crop((16, 16, 48, 48))), np.asarray(frame.crop((4, 4, 12, 12)))
        assert abs(found.mean((0, 1)) - meant.mean((0, 1))).max() < 8


def test_tensorboard_has_every_step(desk: Desk) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'vlm-referee[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (desk.folder / "stop").touch()  # after step 5
    assert desk(*RUN, "-n", "2", "--out", "out", "--tensorboard", "-q").code == 130
    (desk.folder / "stop").unlink()
    assert desk("resume", "out", "--tensorboard", "-q").code == 0
    rows = open_run(desk.folder / "out").metrics
    for i in (0, 1):
        board = EventAccumulator(str(desk.folder / "out" / "tensorboard" / f"seed-{i}"), {"images": 0}).Reload()
        assert set(board.Tags()["scalars"]) == {
            "loss/toy",
            "gradient/toy",
            "gradient/prior",
            "agreement",
            "cosine/toy/prior",
        }
        losses = {row.step: row.losses["toy"][i] for row in rows if row.losses}
        assert {event.step: event.value for event in board.Scalars("loss/toy")} == pytest.approx(losses)
        assert [event.step for event in board.Images("picture")] == [*range(12)]
        assert (board.Images("picture")[0].width, board.Images("picture")[0].height) == (16, 16)


def test_tensorboard_writes_through_no_link(desk: Desk) -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install 'vlm-referee[tensorboard]'")
    (desk.folder / "stop").touch()
    assert desk(*RUN, "--out", "out", "-q").code == 130
    (desk.folder / "stop").unlink()
    (desk.folder / "mine").mkdir()
    (desk.folder / "out" / "tensorboard").symlink_to(desk.folder / "mine")
    answer = desk("resume", "out", "--tensorboard", "-q")
    assert (answer.code, list((desk.folder / "mine").iterdir())) == (1, [])
    assert "out/tensorboard is a link: nothing is written through it" in answer.err


@pytest.mark.parametrize(
    ("words", "library", "said"),
    [
        (["--tensorboard"], "tensorboard", "vlm-referee[tensorboard]"),
        (["--animation", "mp4"], "av", "vlm-referee[mp4]"),
    ],
)
def test_what_an_extra_brings_is_refused_without_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, words: list[str], library: str, said: str
) -> None:
    found = importlib.util.find_spec
    hidden = lambda name, package=None: None if name == library else found(name, package)  # noqa: E731
    for module in ("referee.watching.board", "referee.watching.watch"):
        monkeypatch.setattr(f"{module}.find_spec", hidden)
    answer = desk(*RUN, *words)
    assert (answer.code, answer.out, desk.files()) == (2, "", desk.before)
    assert f"is not installed. Try: pip install '{said}'" in answer.err


def test_reports_of_runs(desk: Desk) -> None:
    for name in ("one", "two"):
        assert desk(*RUN, "--out", name, "--no-report").code == 0
    answer = desk.bare("report", "one")
    assert (answer.code, answer.out, answer.err) == (0, "one/report.html\n", "")
    assert desk.bare("report", "one", "two", "--out", "both.html").out == "both.html\n"
    assert "2 runs" in (desk.folder / "both.html").read_text()
    answer = desk.bare("report", "nothing")
    assert (answer.code, answer.err) == (2, "referee: nothing/run.toml cannot be read: No such file or directory.\n")


def test_layers_come_in_order(desk: Desk) -> None:
    """A zoo's preset, --config, --set, flags: each over the one before."""
    (desk.folder / "mine.toml").write_text('zoo = "toys"\n[rules]\nsteps = 20\nviews = 3\nnoise = 0.1\n')
    words = ["--preset", "toys", "--config", "mine.toml", "--set", "rules.views=4", "--set", "rules.noise=0.3"]
    assert desk("generate", "red", *words, "--views", "5", "--out", "out").code == 0
    run = tomllib.loads((desk.folder / "out" / "run.toml").read_text())
    assert (run["zoo"], run["height"]) == ("toys", 16)
    rules = run["rules"]
    assert (rules["steps"], rules["tail"], rules["views"], rules["noise"]) == (20, 2, 5, 0.3)


@pytest.mark.parametrize("words", [["--zoo", "toys"], ["--set", "zoo=toys"]])
def test_a_zoo_brings_its_preset(desk: Desk, words: list[str]) -> None:
    assert desk("generate", "red", *words, "--out", "out").code == 0
    run = tomllib.loads((desk.folder / "out" / "run.toml").read_text())
    assert (run["zoo"], run["rules"]["steps"], run["referees"][0]["name"]) == ("toys", 14, "toy")
    assert desk("generate", "red", *words, "--size", "24x16", "-r", "toy:label=a", "-r", "toy:label=b").code == 0
    run = tomllib.loads((desk.folder / "runs" / "red-0" / "run.toml").read_text())
    assert (run["height"], [part["label"] for part in run["referees"]]) == (24, ["a", "b"])


def test_the_default_folder_is_fresh(desk: Desk) -> None:
    for name in ("red-0", "red-0-2"):
        assert desk(*RUN).code == 0
        assert (desk.folder / "runs" / name / "picture-0.png").is_file()


def test_a_panel_from_the_command_line_and_its_repetition(desk: Desk) -> None:
    calm = 'toy:label=calm,aug=none,prompt="a blue, blue ring",negative=true,views=2'
    table = ["-r", "toy:until=0.5,every=2", "-r", calm, "--balancer", "upgrad:space=image", "--plugin", "toys.py"]
    words = [*PRIOR, *table, "--steps", "12", "--set", "rules.tail=2", "--set", "rules.prior_weight=0.2"]
    answer = desk.bare("generate", "red", *words, "--out", "out")
    assert (answer.code, answer.err) == (0, "")
    run = tomllib.loads((desk.folder / "out" / "run.toml").read_text())
    assert run["balancer"] == {"name": "upgrad", "space": "image", "options": {}}
    first, second = run["referees"]
    assert (first["until"], first["every"], first["between"], first["from"]) == (0.5, 2, "reuse", 0.0)
    assert (second["aug"], second["prompt"], second["negative"]) == ("none", "a blue, blue ring", True)
    rows = [json.loads(line) for line in (desk.folder / "out" / "metrics.jsonl").read_text().splitlines()]
    assert ["toy" in row["losses"] for row in rows] == [True, False] * 3 + [False] * 6
    assert ["toy" in row["norms"] for row in rows] == [True] * 6 + [False] * 6
    assert set(rows[0]["cosines"]) == {"toy/calm"}
    with Image.open(desk.folder / "out" / "panel.png") as sheet:
        assert sheet.width > 600

    assert desk.bare("generate", "red", "--config", "out/run.toml", "--out", "b", "--plugin", "toys.py").code == 0
    assert (desk.folder / "b" / "metrics.jsonl").read_bytes() == (desk.folder / "out" / "metrics.jsonl").read_bytes()


def test_steps_without_a_referee_are_said(desk: Desk) -> None:
    answer = desk("generate", "red", *PRIOR, "-r", "toy:until=0.25", "--steps", "16", "--out", "out")
    idle = "No referee plays at 2 of 6 steps, first at step 4: there only the prior moves the latent."
    assert answer.err == f"referee: {idle}\n"


def test_ctrl_c_writes_the_best_so_far(desk: Desk) -> None:
    (desk.folder / "stop").touch()
    answer = desk(*RUN, "--out", "out", "--set", "rules.tail=0")
    assert answer.code == 130
    assert "Stopped after 6 steps" in answer.out
    run = tomllib.loads((desk.folder / "out" / "run.toml").read_text())
    assert run["run"]["interrupted_after"] == 6
    assert (desk.folder / "out" / "picture-0.png").is_file()
    assert len((desk.folder / "out" / "metrics.jsonl").read_text().splitlines()) == 6


def test_sample_and_score(desk: Desk) -> None:
    answer = desk("sample", "red", "--zoo", "none", "--prior", "toy", "--seed", "2", "-n", "2", "--out", "plain")
    assert (answer.code, answer.err) == (0, "")
    assert {path.name for path in (desk.folder / "plain").iterdir()} == {"picture-2.png", "picture-3.png", "run.toml"}
    Image.new("RGB", (8, 8), (0, 255, 0)).save("green.png")
    answer = desk(
        "score", "green.png", "red", "--zoo", "none", "-r", "toy", "-r", "toy:label=small,input_size=2", "--json"
    )
    assert (answer.code, answer.err) == (0, "")
    assert json.loads(answer.out) == pytest.approx({"toy": 2 / 3, "small": 2 / 3})
    assert desk("score", "green.png", "red", "--zoo", "toys").out.split() == ["toy", "0.6667"]


def test_plugins_are_listed(desk: Desk) -> None:
    answer = desk("plugins")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["toys", "active", "toys.py"] in lines
    assert ["referee", "toy", "likes", "a", "colour"] in lines
    assert ["zoo", "toys", "a", "zoo", "of", "toys"] in lines
    rows = {row["name"]: row for row in json.loads(desk("plugins", "--json").out)}
    assert rows["toys"]["offers"][0] == {
        "kind": "referee", "name": "toy", "summary": "likes a colour", "options": {"input_size": "of the views"},
        "also": [],
    }  # fmt: skip
    assert rows["toys"]["offers"][2]["options"] == {}
    assert rows["clip"]["status"] == "blocked"
    assert rows["clip"]["reason"] == "by --no-plugins"
    blocked = {row["name"]: row for row in json.loads(desk.bare("plugins", "--json", "-p", "no:clip").out)}
    assert (blocked["clip"]["status"], blocked["clip"]["reason"]) == ("blocked", "by -p no:clip")
    assert blocked["blip2"]["status"] == "active"


REFUSED: dict[str, tuple[list[str], str]] = {
    "empty prompt": (["generate", "  ", *TOYS], "The prompt is empty"),
    "long prompt": (["generate", "red " * 400, *TOYS], "characters; at most 1000"),
    "prompt that nobody can write": (["generate", "a\udcffb", *TOYS], "control characters or broken ones"),
    "prompt that the zoo cannot draw": (["generate", "a red grue", "--zoo", "toys"], "The toys draw no grue."),
    "unknown referee": (["generate", "red", *TOYS, "-r", "toi"], "no referee called 'toi'. Did you mean 'toy'?"),
    "unknown prior": (["generate", "red", *TOYS, "--prior", "x"], "There is no prior called 'x'. There are: toy."),
    "unknown augmentation": (["generate", "red", *TOYS, "--aug", "x"], "There is no augmentation called 'x'"),
    "unknown zoo": (["generate", "red", *TOYS, "--zoo", "x"], "There is no zoo called 'x'. There are: toys."),
    "no zoo": (["generate", "red"], "The plug-in 'pocket' is blocked: by --no-plugins."),
    "unknown option": (["generate", "red", *PRIOR, "-r", "toy:size=3"], "referee 'toy': there is no 'size'. "),
    "unknown key": (["generate", "red", *PRIOR, "-r", "toy:form=.2"], "there is no 'form'. Did you mean 'from'?"),
    "unknown keys": (["generate", "red", *PRIOR, "-r", "toy:zzz=1"], "There are: aug, between, every, from, "),
    "option's type": (["generate", "red", *PRIOR, "-r", "toy:input_size=x"], "(given: 'x')"),
    "option without value": (["generate", "red", *TOYS, "-r", "toy:a=1,b"], "'b' in 'toy:a=1,b' is not of the form"),
    "twins": (["generate", "red", *TOYS, "-r", "toy"], "two referees are called 'toy': give each a label"),
    "a referee called prior": (["generate", "red", *TOYS, "-r", "toy:label=prior"], "give it another label"),
    "negative weight": (["generate", "red", *TOYS, "-r", "toy:label=b,weight=-1"], "the weight of 'b' falls to -1"),
    "weight": (["generate", "red", *TOYS, "-r", "toy:weight=cosine(1)"], "Cannot read the schedule 'cosine(1)'"),
    "weight cut short": (["generate", "red", *TOYS, "-r", "toy:weight=cosine(1,until=1"], "number at character 10"),
    "a time that is none": (["generate", "red", *PRIOR, "-r", "toy:from=0.5,until=0.2"], "from 0.5 until 0.2: that is"),
    "a time beyond": (["generate", "red", *PRIOR, "-r", "toy:from=2"], "referees.0.from: Input should be less than 1"),
    "a margin for nothing": (["generate", "red", *PRIOR, "-r", "toy:margin=1"], "add negative=true"),
    "between": (["generate", "red", *PRIOR, "-r", "toy:between=x"], "referees.0.between: Input should be 'reuse' or"),
    "own augmentation": (["generate", "red", *PRIOR, "-r", "toy:aug=x"], "There is no augmentation called 'x'"),
    "own prompt": (["generate", "red", *PRIOR, "-r", 'toy:prompt=""'], "The prompt is empty"),
    "own prompt that the zoo cannot draw": (["generate", "red", "--zoo", "toys", "-r", "toy:prompt=a grue"], "no grue"),
    "unknown balancer": (["generate", "red", *TOYS, "--balancer", "x"], "There is no balancer called 'x'"),
    "space": (["generate", "red", *TOYS, "--balancer", "x:space=time"], "Input should be 'latent' or 'image'"),
    "nobody": (["generate", "red", *PRIOR, "--set", "rules.prior_weight=0"], "nobody plays: name a referee"),
    "no prior": (["generate", "red", "--zoo", "none", "-r", "toy"], "No prior is named"),
    "steps": (["generate", "red", *TOYS, "--steps", "5"], "tail (10) leaves the referees no step of 5"),
    "setting": (["generate", "red", *TOYS, "--set", "rules.stepz=3"], "no 'rules.stepz'. Did you mean 'steps'?"),
    "setting's form": (["generate", "red", *TOYS, "--set", "rules.steps"], "write a.b=value"),
    "zoo's type": (["generate", "red", "--set", "zoo=3"], "There is no zoo called '3'"),
    "size": (["generate", "red", *TOYS, "--size", "16"], "write HEIGHTxWIDTH"),
    "odd size": (["generate", "red", *TOYS, "--size", "15x16"], "height: Input should be a multiple of 8"),
    "count": (["generate", "red", *TOYS, "-n", "0"], "ask for 1 to 64 pictures"),
    "preset": (["generate", "red", *TOYS, "--preset", "papre"], "no preset 'papre'. Did you mean 'paper'?"),
    "config": (["generate", "red", *TOYS, "--config", "x.toml"], "--config x.toml: No such file"),
    "config's form": (["generate", "red", *TOYS, "--config", "toys.py"], "--config toys.py is not TOML"),
    "device": (["generate", "red", *TOYS, "--device", "warp9"], "The device 'warp9' cannot be used here"),
    "dtype": (["generate", "red", *TOYS, "--dtype", "int8"], "dtype: "),
    "out": (["generate", "red", *TOYS, "--out", "toys.py"], "toys.py is a file, not a folder."),
    "plugin": (["generate", "red", *TOYS, "--plugin", "x.py"], "--plugin x.py: there is no such file."),
    "block": (["generate", "red", *TOYS, "-p", "clip"], "write -p no:NAME"),
    "block nothing": (["generate", "red", *TOYS, "-p", "no:"], "write -p no:NAME"),
    "no prompt": (["generate", *TOYS], "Say what to draw"),
    "prompt of no run": (["generate", "--config", "toys.py.toml", *TOYS], "No such file"),
    "preview never": ([*RUN, "--preview-every", "0"], "--preview-every 0: say after how many steps"),
    "animation": ([*RUN, "--animation", "avi"], "--animation avi: write webp, gif, mp4 or none"),
    "json and quiet": ([*RUN, "--json", "-q"], "choose one"),
    "config picture": (["generate", "--config", "nothing.png", *TOYS], "nothing.png cannot be read"),
    "sample without prior": (["sample", "red", "--zoo", "none"], "No prior is named"),
    "score of nothing": (["score", "x.png", "red", "--zoo", "none", "-r", "toy"], "x.png is not there"),
    "score of no picture": (["score", "toys.py", "red", "--zoo", "none", "-r", "toy"], "cannot be read as a picture"),
    "score by nobody": (["score", "x.png", "red", "--zoo", "none"], "No referee is named"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_ends_with_a_sentence_and_nothing_done(desk: Desk, case: str) -> None:
    words, text = REFUSED[case]
    answer = desk(*words)
    assert answer.code == 2
    assert answer.err.startswith("referee: ")
    assert text in answer.err
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert desk.files() == desk.before  # no folder, no file; and no part was made, which would have left a mark


def test_what_only_a_part_can_refuse_writes_nothing_either(desk: Desk) -> None:
    answer = desk("generate", "mauve", *TOYS, "--out", "out")
    assert (answer.code, answer.out) == (2, "")
    assert "finds none of red, green, blue, white in 'mauve'" in answer.err
    assert not (desk.folder / "out").exists()


def test_blocking_what_is_not_there_is_said(desk: Desk) -> None:
    answer = desk("plugins", "-p", "no:toyz")
    assert answer.code == 0
    assert answer.err == "referee: -p no:toyz: there is no plug-in of that name. Did you mean 'toys'?\n"


def test_a_preset_says_whether_it_needs_a_zoo(desk: Desk) -> None:
    """The paper's numbers are not for the pocket's models: played together they would draw noise for hours."""
    answer = desk.bare("generate", "a red circle", "--preset", "paper")
    assert answer.code == 2
    assert "prior 'stable-diffusion': 'model' must be given" in answer.err


def test_another_runs_folder_is_refused(desk: Desk) -> None:
    assert desk(*RUN, "--out", "out").code == 0
    before = {path: path.read_bytes() for path in (desk.folder / "out").iterdir()}
    answer = desk(*RUN, "--seed", "9", "--out", "out")
    assert answer.code == 2
    assert "out holds another run" in answer.err
    assert {path: path.read_bytes() for path in (desk.folder / "out").iterdir()} == before


def test_a_wrong_flag_is_a_usage_error(desk: Desk) -> None:
    answer = desk.bare("generate", "red", "--stepz", "3")
    assert answer.code == 2
    assert "No such option" in answer.err
    assert desk.bare("generate").code == 2


def test_help_names_every_command(desk: Desk) -> None:
    answer = desk.bare("--help")
    assert answer.code == 0
    assert all(command in answer.out for command in ("generate", "sample", "score", "plugins", "report", "doctor"))
    assert "Exit codes" in answer.out


def test_as_a_process(desk: Desk) -> None:
    """What main() cannot show from within: the exit code that a shell sees, and Ctrl-C sent by the system."""
    words = [sys.executable, "-m", "referee", *RUN, "--plugin", "toys.py", "--no-plugins"]
    refused = subprocess.run([*words, "--size", "1"], capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.count("\n") == 1
    long = [*words, "--out", "out", "--steps", "1000000"]
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    process = subprocess.Popen(long, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, handler)
    with process:
        steps = desk.folder / "steps"
        while process.poll() is None and not (steps.is_file() and len(steps.read_text().split()) > 3):
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
    assert process.returncode == 130, err
    assert "this is the best picture so far" in out
    assert (desk.folder / "out" / "picture-0.png").is_file()
