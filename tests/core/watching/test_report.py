"""The page of a run: all of it in one file, nothing of it taken for markup, and laid out in a real browser."""

from __future__ import annotations

import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from referee.errors import OptionError, OutputError, RunError
from referee.folder.film import write_film
from referee.folder.record import describe, write_metrics, write_picture, write_run
from referee.folder.run import open_run
from referee.plugins import Registry
from referee.settings import Settings
from referee.watching.curves import Curve, number, svg, ticks
from referee.watching.report import page, write_report

HOSTILE = (
    """</title></style></script><script>alert(1)</script><img src=x onerror="alert(2)">'"""
    '"{{ 7*7 }}{% raw %}&amp;\u202e'
)
FRAMES = [0, 8, 16, 20]


def write(folder: Path, prompt: str = "a red circle and a blue square", seeds: tuple[int, ...] = (0,)) -> Path:
    """A run of two referees, whose picture turns from grey to red."""
    referees = ({"name": "toy", "label": "first"}, {"name": "toy", "label": "<b>second</b>"})
    settings = Settings(zoo=None, seeds=seeds, rules={"steps": 20, "tail": 2}, referees=referees)
    description = describe(prompt, settings, Registry(), device="cpu")
    description["run"] |= {"frames": FRAMES, "maps": ["first", "<b>second</b>", "prior"]}
    write_run(folder, description)
    names = [part.title for part in settings.referees]
    write_metrics(
        folder,
        [
            {
                "step": k, "losses": {n: [1 / (k + 1 + s) for s in range(len(seeds))] for n in names},
                "norms": {n: [0.5] * len(seeds) for n in [*names, "prior"]}, "agreement": [k / 20] * len(seeds),
                "cosines": {"first/<b>second</b>": [k / 20 - 0.5] * len(seeds)},
            }
            for k in range(18)
        ],
    )  # fmt: skip
    for seed in seeds:
        frames = [Image.new("RGB", (64, 64), (80 + 8 * k, 60, 60)) for k in FRAMES]
        write_film(folder / f"frames-{seed}.webp", frames)
        write_film(folder / f"maps-{seed}.webp", [Image.new("RGB", (64, 64), (c, c, c)) for c in (30, 90, 250)])
        write_picture(folder / f"picture-{seed}.png", frames[-1], description, seed)
    return folder


class Tags(HTMLParser):
    """Every tag with its attributes, and the text of the page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_the_run(tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "my run", seeds=(3, 4)))
    found = Tags(page([run]))
    assert run.prompt.text in found.text
    assert f"referee generate --config '{tmp_path}/my run/run.toml'" in found.text
    assert [tag for tag, _ in found.tags].count("svg") == 2 + 1 + 3 + 1  # losses, agreement, gradients, their cosine
    assert sum("film" in (attributes.get("class") or "") for _, attributes in found.tags) == 2
    assert (tmp_path / "my run" / "run.toml").read_text() in found.text
    shown = [a["alt"] for tag, a in found.tags if tag == "img" and (a.get("alt") or "").startswith("where ")]
    assert shown == [f"where {n} pulled, seed {s}" for s in (3, 4) for n in ("first", "<b>second</b>", "prior")]


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    runs = [open_run(write(tmp_path / name)) for name in "ab"]
    for tag, attributes in Tags(page(runs)).tags:
        for name in ("src", "href"):
            place = attributes.get(name) or "#"
            assert place.startswith(("data:", "#")), (tag, place)
    assert "http" not in page(runs).replace("http-equiv", "")


def test_a_hostile_prompt_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    plain, hostile = (Tags(page([open_run(write(tmp_path / str(i), p))])) for i, p in enumerate(["red", HOSTILE]))
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(a) for _, a in hostile.tags] == [sorted(a) for _, a in plain.tags]
    assert HOSTILE in hostile.text
    assert "<b>second</b>" in hostile.text  # a referee's label, too: in tables and in curves


def test_a_page_shows_the_judge(tmp_path: Path) -> None:
    run = write(tmp_path, seeds=(3, 4))
    layer = tomllib.loads((run / "run.toml").read_text())
    layer["judge"] = {"name": "toy", "label": "<i>judge</i>", "every": 6}
    layer["run"]["judge"] = {"taken": [12, 6], "ended": 18, "picked": 4}
    (run / "run.toml").write_text(tomli_w.dumps(layer))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for k, verdicts in ((5, [0.5, 0.25]), (11, [0.125, None]), (17, [0.75, 0.75])):
        rows[k]["judge"] = verdicts
    rows[17]["hacked"] = [False, True]
    write_metrics(run, rows)
    found = Tags(page([open_run(run)]))
    assert [tag for tag, _ in found.tags].count("svg") == 3 + 1 + 3 + 1
    assert "i" not in [tag for tag, _ in found.tags]
    for told in (
        "judge <i>judge</i>0.75loss of the judge, which moves nothing", "Taken: seed 3 after 12 steps, seed 4 after 6",
        "Picked: seed 4.", "Ended after 18 steps, as the judge saw no picture get better.",
        "Reward hacking: the referees like the picture ever better, the judge ever less. seed 4 after step 18.",
        "every 6 steps, keeps the best",
    ):  # fmt: skip
        assert told in found.text


def test_only_the_pages_own_script_may_run(tmp_path: Path) -> None:
    html = page([open_run(write(tmp_path))])
    (policy,) = [a["content"] or "" for t, a in Tags(html).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/=]{44}'", policy)


def test_a_plain_sample_and_a_run_without_pictures_are_shown_too(tmp_path: Path) -> None:
    write_run(tmp_path, describe("red", Settings(zoo=None), Registry(), command="sample"))
    text = page([open_run(tmp_path)])
    assert "This run left no picture" in text
    assert "referee sample --config" in text
    assert "<svg" not in text


def test_reports_replace_reports_alone(tmp_path: Path) -> None:
    run = open_run(write(tmp_path))
    write_report(tmp_path / "report.html", [run])
    write_report(tmp_path / "report.html", [run])
    (tmp_path / "mine.html").write_text("my own page")
    for path in (tmp_path / "mine.html", tmp_path):
        with pytest.raises(OutputError, match="is there already and no report"):
            write_report(path, [run])
    assert (tmp_path / "mine.html").read_text() == "my own page"
    with pytest.raises(OptionError, match="No run is named"):
        page([])


def test_a_broken_film_is_told(tmp_path: Path) -> None:
    (write(tmp_path) / "frames-0.webp").write_bytes(b"RIFF")
    with pytest.raises(RunError, match=r"frames-0\.webp cannot be read as WEBP"):
        page([open_run(tmp_path)])


values = st.lists(st.none() | st.floats(), max_size=3)


@given(st.dictionaries(st.integers(0, 1 << 52), values, max_size=6), st.integers(1, 1 << 53), st.text(max_size=8))
@example({0: [5e-324]}, 1, "")
def test_any_numbers_make_a_drawing(points: dict[int, list[float | None]], steps: int, title: str) -> None:
    text = svg(Curve(title, "", points), steps)
    assert Tags(text).tags[0][0] == "svg"
    coordinates = " ".join(re.findall(r' (?:d|x|y|cx|cy)="([^"]*)"', text))
    assert not re.search("nan|inf", coordinates)


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30))
def test_ticks_lie_between(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert found == sorted(found)


def test_many_steps_are_thinned() -> None:
    line = svg(Curve("a", "", {k: [float(k)] for k in range(10_000)}), 10_000)
    assert 300 < line.count("L") < 500
    assert number(1 / 3) == "0.333"


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("prompt", ["a red circle and a blue square", HOSTILE + "w" * 800])
def test_a_real_browser_lays_it_out(browser: Any, width: int, prompt: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "run", prompt)
    write_report(tmp_path / "one.html", [open_run(folder)])
    browser.show(tmp_path / "one.html", width)
    assert browser.ask("document.documentElement.scrollWidth") <= width  # nothing sticks out
    assert not browser.complaints()
    shot = browser.picture()
    assert shot.size[0] == width
    box = browser.ask("(b => [b.x, b.y, b.width, b.height])(document.querySelector('.screen').getBoundingClientRect())")
    assert box[1] < 120  # the picture comes first
    assert box[2] == pytest.approx(box[3], abs=1)
    middle = (round(box[0] + box[2] / 2), round(box[1] + box[3] / 2))
    assert shot.getpixel(middle) == pytest.approx((240, 60, 60), abs=4)
    curve = browser.ask("(b => [b.width, b.height])(document.querySelector('.mean').getBoundingClientRect())")
    assert min(curve) > 50
    browser.ask("document.querySelectorAll('.maps img')[2].scrollIntoView({block: 'center', behavior: 'instant'})")
    box = browser.ask(
        "(b => [b.x, b.y, b.width, b.height])(document.querySelectorAll('.maps img')[2].getBoundingClientRect())"
    )
    assert box[2] == pytest.approx(box[3], abs=1)
    spot = (round(box[0] + box[2] / 2), round(box[1] + box[3] / 2))
    assert browser.picture().getpixel(spot) == pytest.approx((250, 250, 250), abs=4)
    browser.ask("scrollTo({top: 0, behavior: 'instant'})")

    browser.ask("(r => { r.value = 1; r.dispatchEvent(new Event('input')); })(document.querySelector('.scrub input'))")
    assert browser.ask("document.querySelector('.scrub output').textContent") == "step 8"
    assert browser.picture().getpixel(middle) == pytest.approx((144, 60, 60), abs=4)  # the second frame
    assert not browser.complaints()


@pytest.mark.parametrize("width", [390, 1280])
def test_many_runs_and_many_pictures_are_laid_out(browser: Any, width: int, tmp_path: Path) -> None:
    folders = [
        write(tmp_path / f"run{i}", f"a {'very ' * 20 * i}red circle", tuple(range(1 + 4 * i))) for i in range(3)
    ]
    write_report(tmp_path / "all.html", [open_run(folder) for folder in folders])
    browser.show(tmp_path / "all.html", width)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask("document.querySelectorAll('.card').length") == 3
    assert not browser.complaints()


def test_broken_maps_are_told_and_many_pictures_show_those_of_the_first(tmp_path: Path) -> None:
    run = open_run(write(tmp_path / "a", seeds=tuple(range(6))))
    assert page([run]).count('alt="where first pulled') == 4
    (write(tmp_path / "b") / "maps-0.webp").write_bytes((tmp_path / "b" / "frames-0.webp").read_bytes())
    with pytest.raises(RunError, match=r"maps-0\.webp is 256 pixels high: not 3 frames"):
        page([open_run(tmp_path / "b")])
    (tmp_path / "b" / "maps-0.webp").unlink()
    assert "where first pulled" not in page([open_run(tmp_path / "b")])
