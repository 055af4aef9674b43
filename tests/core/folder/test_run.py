"""A run read back: what was written comes out as it was, and what a stranger made up comes out as a RunError."""

from __future__ import annotations

import json
import os
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from referee.errors import OptionError, RefereeError, RunError
from referee.folder.film import write_film
from referee.folder.record import describe, write_metrics, write_picture, write_run
from referee.folder.run import open_run, prompt_of, read_config, read_picture
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.settings import Settings, build

FRAMES = [0, 5, 10]
HISTORY = [
    {
        "step": k,
        "losses": {"a": [1.0 / (k + 1), None]},
        "norms": {"a": [1.0, 2.0]},
        "agreement": [1.0, 0.5],
        "sat_out": {},
    }
    for k in range(10)
]


def write(folder: Path, prompt: str = "red", seeds: tuple[int, ...] = (3, 4)) -> Path:
    """A run as the command writes it."""
    description = describe(prompt, Settings(zoo=None, seeds=seeds, rules={"steps": 20}), Registry(), device="cpu")
    description["run"] |= {"frames": FRAMES, "maps": ["a", "prior"]}
    write_run(folder, description)
    write_metrics(folder, HISTORY)
    for seed in seeds:
        frames = [Image.new("RGB", (8, 6), (seed, 20 * i, 0)) for i in range(len(FRAMES))]
        write_picture(folder / f"picture-{seed}.png", frames[-1], description, seed)
        write_film(folder / f"frames-{seed}.webp", frames)
        write_film(folder / f"maps-{seed}.webp", frames[:2])
    return folder


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"judge": [1.0]}, "there must be 2 numbers"), ({"judge": ["a", "b"]}, "judge.0"),
        ({"hacked": [True]}, "there must be 2 numbers"), ({"hacked": {"3": True}}, "hacked"),
    ],
)  # fmt: skip
def test_verdicts_that_cannot_be_are_refused(tmp_path: Path, table: dict[str, Any], said: str) -> None:
    write(tmp_path)
    write_metrics(tmp_path, [*HISTORY[:9], {**HISTORY[9], **table}])
    with pytest.raises(RunError, match=f"line 10: .*{said}"):
        open_run(tmp_path)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    run = open_run(write(tmp_path))
    assert (run.prompt, run.seeds, run.complete) == (Prompt("red"), (3, 4), True)
    assert run.settings == Settings(zoo=None, seeds=(3, 4), rules={"steps": 20})
    assert {name: found.getpixel((0, 0)) for name, found in run.maps(4).items()} == {
        "a": (4, 0, 0),
        "prior": (4, 20, 0),
    }
    assert (run.about.device, run.about.command, run.about.frames) == ("cpu", "generate", tuple(FRAMES))
    assert run.about.libraries["torch"]
    assert run.pictures == {seed: tmp_path / f"picture-{seed}.png" for seed in (3, 4)}
    assert run.picture(4).getpixel((0, 0)) == (4, 40, 0)
    assert [frame.getpixel((0, 0)) for frame in run.film(3)] == [(3, 20 * i, 0) for i in range(3)]
    assert [row.step for row in run.metrics] == list(range(10))
    assert run.metrics[1].losses == {"a": [0.5, None]}
    assert run.evolution is None
    with pytest.raises(AttributeError):
        run.folder = Path()  # type: ignore[misc]


def test_an_older_run_is_read(tmp_path: Path) -> None:
    """The records of 0.1.0 say less of what shaped them."""
    (tmp_path / "run.toml").write_text(
        'zoo = "pocket"\nheight = 64\nwidth = 64\nseeds = [0]\n[run]\nprompt = "a red circle"\npython = "3.11.2"\n'
        'interrupted_after = 7\n[run.libraries]\ntorch = "2.6.0"\n[run.plugins]\npocket = "vlm-referee 0.1.0"\n'
    )
    run = open_run(tmp_path)
    assert (run.complete, run.about.interrupted_after, run.metrics) == (False, 7, ())
    assert (run.about.plugins, run.about.weights) == ({"pocket": "vlm-referee 0.1.0"}, {})
    assert (dict(run.pictures), run.film(0)) == ({}, [])
    with pytest.raises(RunError, match=r"picture-0\.png cannot be read: No such file"):
        run.picture(0)


def test_a_picture_is_a_config(tmp_path: Path) -> None:
    layer = read_config(write(tmp_path, "a red Würfel 日本") / "picture-4.png")
    assert prompt_of(layer) == "a red Würfel 日本"
    assert build([layer]) == Settings(zoo=None, seeds=(4,), rules={"steps": 20})  # itself, not its batch
    assert prompt_of(read_config(tmp_path / "run.toml")) == "a red Würfel 日本"
    assert prompt_of({}) is None


def text_chunks(path: Path, **chunks: str) -> Path:
    info = PngInfo()
    for name, text in chunks.items():
        info.add_itxt(name, text)
    Image.new("RGB", (4, 4)).save(path, pnginfo=info)
    return path


@pytest.mark.parametrize(
    ("chunks", "text"),
    [
        ({}, "does not say how it was drawn"),
        ({"settings": "", "seed": "1"}, r"has no table \[run\]"),
        ({"settings": "[run]\nprompt = 'red'", "seed": "one"}, "has 'one' for its seed"),
        ({"settings": "[run]\nprompt = 'red'", "seed": "9" * 5000}, "for its seed"),
        ({"settings": "not = = toml", "seed": "1"}, "is not TOML"),
        ({"settings": "[run]\n", "seed": "1"}, "'prompt' must be given"),
        ({"settings": "a=1\n" * 300_000, "seed": "1"}, "cannot be read as PNG|longer than"),
    ],
)
def test_pictures_that_say_nothing_of_use(chunks: dict[str, str], text: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=text):
        read_picture(text_chunks(tmp_path / "p.png", **chunks))


def edited(folder: Path, **run: Any) -> Path:
    """The run with its table [run] changed; None takes an entry away."""
    table = tomllib.loads((folder / "run.toml").read_text())
    table["run"] = {key: value for key, value in (table["run"] | run).items() if value is not None}
    (folder / "run.toml").write_text(tomli_w.dumps(table))
    return folder


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"prompt": None}, "'prompt' must be given"),
        ({"prompt": " "}, "The prompt is empty"),
        ({"prompt": "a\x1b[2Jb"}, "control characters"),
        ({"prompt": 3}, "prompt: Input should be a valid string"),
        ({"command": "rm"}, "command"),
        ({"interrupted_after": -1}, "interrupted_after"),
        ({"frames": list(range(101))}, "frames"),
        ({"libraries": {"torch": "x" * 2000}}, "libraries"),
        ({"parts": [{"kind": "referee"}]}, "name"),
    ],
)
def test_records_that_cannot_be_so(change: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=text):
        open_run(edited(write(tmp_path), **change))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("{", "line 11"),
        ("[]", "line 11"),
        ("", "line 11"),
        ('{"step": 3}', "step 3 comes after step 9"),
        ('{"step": -1}', "step"),
        ('{"step": 10, "losses": {"a": [1]}}', "2 numbers in each list"),
        ('{"step": 10, "losses": {"a": [1, NaN]}}', "finite"),
        ('{"step": 10, "losses": {"a": [1, "x"]}}', "losses"),
        ('{"step": 10, "losses": {"a": [' + "1," * 70 + "1]}}", "losses"),
        ("[" * 100_000, "line 11"),
        ('{"step": 10, "x": "' + "x" * (1 << 20) + '"}', "at most"),
    ],
)
def test_metrics_that_cannot_be_so(line: str, text: str, tmp_path: Path) -> None:
    path = write(tmp_path) / "metrics.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(RunError, match=text):
        open_run(tmp_path)


def test_no_link_is_followed(tmp_path: Path) -> None:
    """A stranger's folder must not show what lies elsewhere: in a report that is sent on, it would leave the house."""
    folder = write(tmp_path / "run")
    for name in ("picture-3.png", "frames-3.webp", "metrics.jsonl", "run.toml"):
        (folder / name).rename(tmp_path / name)
        (folder / name).symlink_to(tmp_path / name)
        if name == "run.toml":
            with pytest.raises(RunError, match=r"run\.toml is no plain file"):
                open_run(folder)
        elif name == "metrics.jsonl":
            with pytest.raises(RunError, match=r"metrics\.jsonl is no plain file"):
                open_run(folder)
            (folder / name).unlink()
        else:
            run = open_run(folder)
            assert 3 not in run.pictures
            assert run.film(3) == [] or name == "picture-3.png"
            with pytest.raises(RunError, match="is no plain file"):
                run.picture(3)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_does_not_hang_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    with pytest.raises(RunError, match="is no plain file"):
        open_run(tmp_path)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    with (tmp_path / "run.toml").open("wb") as file:
        file.truncate(1 << 40)  # a hole: a terabyte that takes no room
    with pytest.raises(RunError, match="at most 1,048,576 are read"):
        open_run(tmp_path)
    Image.new("L", (5000, 1)).save(tmp_path / "wide.png")
    with pytest.raises(RunError, match="at most 4096 a side"):
        read_picture(tmp_path / "wide.png")


def test_a_film_of_another_length_is_refused(tmp_path: Path) -> None:
    folder = edited(write(tmp_path), frames=[0, 1, 2, 3])
    with pytest.raises(RunError, match="18 pixels high: not 4 frames"):
        open_run(folder).film(3)


def test_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file"):
        open_run(tmp_path / "nothing")
    with pytest.raises(RunError, match="cannot be read"):
        open_run("a\0b")
    (tmp_path / "run.toml").write_text("height = 64\n")
    with pytest.raises(RunError, match=r"has no table \[run\]: no run wrote it"):
        open_run(tmp_path)
    (tmp_path / "text.png").write_text("")
    with pytest.raises(RunError, match="cannot be read as PNG"):
        read_config(tmp_path / "text.png")
    with pytest.raises(OptionError, match="No such file"):
        read_config(tmp_path / "nothing.toml")


FUZZ = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = write(tmp_path_factory.mktemp("whole"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("name", ["run.toml", "metrics.jsonl", "picture-3.png", "frames-3.webp", "maps-3.webp"])
@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    name: str, whole: dict[str, bytes], data: st.DataObject, tmp_path: Path
) -> None:
    """Cut short, with bits flipped, or with bytes put in: nothing but a RunError comes out."""
    content = bytearray(whole[name])
    for _ in range(data.draw(st.integers(0, 4))):
        bit = data.draw(st.integers(0, 8 * len(content) - 1))
        content[bit // 8] ^= 1 << bit % 8
    at = data.draw(st.integers(0, len(content)))
    content[at:at] = data.draw(st.binary(max_size=8))
    content = content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    for other, original in whole.items():
        (tmp_path / other).write_bytes(bytes(content) if other == name else original)
    with suppress(RunError):
        run = open_run(tmp_path)
        if 3 in run.seeds:
            assert np.asarray(run.picture(3)).shape[2] == 3
            run.film(3)
            run.maps(3)
        read_picture(tmp_path / "picture-3.png")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@FUZZ
@given(st.dictionaries(st.sampled_from(["step", "losses", "norms", "agreement", "cosines", "x"]), json_values))
def test_any_line_of_metrics_is_a_row_or_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    folder = write(tmp_path)
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    with suppress(RefereeError):
        assert len(open_run(folder).metrics) == 1
