"""Pictures and masks as files: what is taken, what is refused before a model loads, what a record says of them."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import struct
import sys
import tomllib
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from referee.command.app import main
from referee.command.layer import flag_layer
from referee.control.init_image import Init, open_init
from referee.errors import OptionError
from referee.folder.run import open_run
from referee.settings import build

PLUGIN = """
from pathlib import Path
from referee.hooks import Spec, hookimpl
from pydantic import BaseModel, Field

HERE = Path(__file__).parent


class Options(BaseModel, extra="forbid", frozen=True):
    negative: str = Field("", description="what should not be")
    blind: bool = Field(False, description="cannot encode")


def referee(options, place):
    (HERE / "made").open("a").write("referee ")
    from referee.testing import ToyReferee
    return ToyReferee()


def prior(options, place):
    (HERE / "made").open("a").write(f"prior {options.negative}")
    from referee.testing import ToyPrior
    class Blind:
        def __init__(self):
            toy = ToyPrior()
            self.latent_shape, self.decode, self.read = toy.latent_shape, toy.decode, toy.read
    return Blind() if options.blind else ToyPrior()


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", referee))


@hookimpl
def referee_priors(register):
    register(Spec("toy", "likes grey", prior, Options))


@hookimpl
def referee_step(step):
    if (HERE / "stop").exists() and step.k == int((HERE / "stop").read_text()):
        (HERE / "stop").unlink()
        raise KeyboardInterrupt
"""
RUN = [
    "generate", "red", "--zoo", "none", "--prior", "toy", "-r", "toy", "--size", "16x24", "--device", "cpu", "--steps",
    "10", "--set", "rules.tail=2", "--set", "rules.prior_weight=0.1",
]  # fmt: skip
Call = Callable[..., tuple[int, str]]


def draw(path: Path, size: tuple[int, int] = (24, 16), seed: int = 0) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def cover(path: Path, size: tuple[int, int] = (24, 16), box: tuple[int, int, int, int] | None = (2, 2, 11, 9)) -> Path:
    mask = Image.new("L", size, 0)
    if box:
        mask.paste(255, box)
    mask.save(path)
    return path


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """`referee` in this process, in a folder with the toys, init.png and mask.png; gives exit code and output."""
    (tmp_path / "toys.py").write_text(PLUGIN)
    draw(tmp_path / "init.png")
    cover(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["referee", *words, "--plugin", "toys.py", "--no-plugins"])
        with pytest.raises(SystemExit) as end:
            main()
        caught = capsys.readouterr()
        return (end.value.code if isinstance(end.value.code, int) else 0), caught.out + caught.err

    return run


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_a_mask_keeps_the_rest_of_the_file(call: Call, tmp_path: Path) -> None:
    code, said = call(*RUN, "--init", "init.png", "--mask", "mask.png", "-n", "2", "--out", "a")
    assert code == 0, said
    kept = pixels(tmp_path / "mask.png")[..., 0] == 0
    for seed in (0, 1):
        made = pixels(tmp_path / f"a/picture-{seed}.png")
        assert (made[kept] == pixels(tmp_path / "init.png")[kept]).all()
        assert (made != pixels(tmp_path / "init.png"))[~kept].mean() > 0.8
    run = open_run(tmp_path / "a")
    assert run.settings.init == Init(
        image=str(tmp_path / "init.png"), mask=str(tmp_path / "mask.png"), strength=1.0,
        image_sha256=hashlib.sha256((tmp_path / "init.png").read_bytes()).hexdigest(),
        mask_sha256=hashlib.sha256((tmp_path / "mask.png").read_bytes()).hexdigest(),
    )  # fmt: skip
    assert [row.step for row in run.metrics] == list(range(10))


def test_strength_shortens_a_run_and_all_its_files_say_so(call: Call, tmp_path: Path) -> None:
    code, said = call(*RUN, "--init", "init.png", "--strength", "0.5", "--out", "a", "--json")
    assert code == 0, said
    assert json.loads(said.splitlines()[0])["steps"] == 10
    run = open_run(tmp_path / "a")
    assert [row.step for row in run.metrics] == [5, 6, 7, 8, 9]
    assert run.about.frames == (5, 6, 7, 8, 9, 10)
    assert len(run.film(0)) == 6
    html = (tmp_path / "a/report.html").read_text()
    assert "init.png" in html
    assert "0.5" in html


def test_a_record_repeats_its_run_and_a_picture_itself(call: Call, tmp_path: Path) -> None:
    begin = ["--init", "init.png", "--mask", "mask.png", "--strength", "0.9", "--negative", "a blue ring"]
    assert call(*RUN, *begin, "-n", "2", "--out", "a")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    os.chdir(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/toys.py").write_text(PLUGIN)
    assert call("generate", "--config", "../a/run.toml", "--out", "b")[0] == 0
    assert "a blue ring" in Path("made").read_text()
    assert (pixels(Path("b/picture-1.png")) == pixels(Path("../a/picture-1.png"))).all()
    assert call("generate", "--config", "../a/picture-1.png", "--out", "c")[0] == 0
    assert np.abs(pixels(Path("c/picture-1.png")).astype(int) - pixels(Path("../a/picture-1.png"))).max() <= 1
    draw(tmp_path / "init.png", seed=1)
    Path("made").unlink()
    code, said = call("generate", "--config", "../a/run.toml", "--out", "d")
    assert (code, Path("d").exists(), Path("made").exists()) == (2, False, False)
    assert f"--init: {tmp_path / 'init.png'} is not the file that it was" in said
    assert call("generate", "--config", "../a/run.toml", "--init", "../init.png", "--out", "e")[0] == 0


@pytest.mark.parametrize(
    ("begin", "stop"), [("--strength 0.7", 4), ("--mask mask.png", 6), ("--mask mask.png --strength 0.8", 6)]
)
def test_resume_goes_on_bit_for_bit_and_refuses_another_file(call: Call, tmp_path: Path, begin: str, stop: int) -> None:
    words = [*RUN, "--init", "init.png", *begin.split(), "--no-report"]
    assert call(*words, "--out", "whole")[0] == 0
    (tmp_path / "stop").write_text(str(stop))
    code, said = call(*words, "--out", "cut")
    assert code == 130, said
    assert f"Stopped after {stop + 1} steps" in said
    if stop == 6:
        moved = (tmp_path / "init.png").read_bytes()
        draw(tmp_path / "init.png", seed=1)
        code, said = call("resume", "cut")
        assert code == 2
        assert "is not the file that it was" in said
        (tmp_path / "init.png").unlink()
        code, said = call("resume", "cut")
        assert code == 2
        assert "init.png is not there" in said
        (tmp_path / "init.png").write_bytes(moved)
    code, said = call("resume", "cut", "--no-report")
    assert code == 0, said
    names = {path.name for path in (tmp_path / "whole").iterdir()}
    assert names == {path.name for path in (tmp_path / "cut").iterdir()}
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_file_that_moved_can_be_told_in_run_toml(call: Call, tmp_path: Path) -> None:
    (tmp_path / "stop").write_text("5")
    assert call(*RUN, "--init", "init.png", "--strength", "1", "--out", "a")[0] == 130
    (tmp_path / "init.png").rename(tmp_path / "other.png")
    path = tmp_path / "a/run.toml"
    path.write_text(path.read_text().replace("init.png", "other.png"))
    code, said = call("resume", "a")
    assert code == 0, said


def bomb(path: Path, side: int) -> None:
    """A PNG of a few bytes that says that it is enormous."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def test_bad_input_is_refused_before_a_model_loads_and_nothing_is_written(call: Call, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes((tmp_path / "init.png").read_bytes()[:300])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    bomb(tmp_path / "bomb.png", 30_000)
    bomb(tmp_path / "large.png", 9000)
    cover(tmp_path / "small.png", (16, 16))
    cover(tmp_path / "black.png", box=None)
    Image.new("RGBA", (24, 16), (255, 255, 255, 0)).save(tmp_path / "clear.png")
    init, before = ["--init", "init.png"], {path.name for path in tmp_path.iterdir()}
    for words, message in {
        ("--init", "nothing.png"): "--init: .*nothing.png is not there",
        ("--init", "folder"): "folder is no plain file",
        ("--init", "pipe"): "pipe is no plain file",
        ("--init", "a\0b"): "has control characters",
        ("--init", "x" * 5000): "File name too long",
        ("--init", "text.png"): "text.png cannot be read as a picture: it must be one of PNG, JPEG",
        ("--init", "empty.png"): "empty.png cannot be read as a picture",
        ("--init", "cut.png"): "cut.png cannot be read as a picture",
        ("--init", "page.eps"): "page.eps cannot be read as a picture: it must be one of",
        ("--init", "bomb.png"): "bomb.png (cannot be read as a picture|has 30000 x 30000 pixels)",
        ("--init", "large.png"): "large.png has 9000 x 9000 pixels; at most 67,108,864",
        ("--mask", "mask.png"): "add --init FILE",
        ("--strength", "0.5"): "add --init FILE",
        (*init, "--mask", "nothing.png"): "--mask: .*nothing.png is not there",
        (*init, "--mask", "text.png"): "--mask: .*text.png cannot be read",
        (*init, "--mask", "small.png"): "The mask has 16 x 16 pixels and the picture 24 x 16",
        (*init, "--mask", "black.png"): "The mask is empty",
        (*init, "--mask", "clear.png"): "The mask is transparent",
        (*init, "--strength", "0"): "init.strength.*greater than 0",
        (*init, "--strength", "1.5"): "init.strength.*less than or equal to 1",
        (*init, "--strength", "nan"): "init.strength",
        (*init, "--strength", "0.1"): "With the strength 0.1 the referees have no step of 10",
        ("--set", "init.image=init.png", "--set", "init.image_sha256=abc"): "init.image_sha256",
        (*init, "--set", "init.mask_sha256=" + "0" * 64): "there is a mask_sha256 and no mask",
        (*init, "--set", "init.streng=1"): "there is no 'init.streng'. Did you mean 'strength'",
        ("--region", "0,0,99,16: red"): "The region 0,0,99,16 is not inside of the picture, which is 0,0,24,16",
        ("--region", "0,0,12 16: red"): "expected ',' and y1 at character 8",
        ("--region", "0,0,12,16"): "at character 10",
        ("-r", "toy:region=[0,0,12]"): "',' and y1",
    }.items():
        code, said = call(*RUN, *words, "--out", "a")
        flat = " ".join(said.split())
        assert code == 2, (words, said)
        assert re.search(message, flat), (words, said)
        assert "Traceback" not in said
        assert {path.name for path in tmp_path.iterdir()} == before, words


def test_a_prior_that_cannot_encode_is_refused_and_nothing_is_written(call: Call, tmp_path: Path) -> None:
    code, said = call(*RUN, "--prior", "toy:blind=true", "--init", "init.png", "--out", "a")
    assert code == 2
    assert "No run of a Blind can begin with a picture, as it cannot encode one" in said
    assert not (tmp_path / "a").exists()
    assert call(*RUN, "--prior", "toy:blind=true", "--out", "a")[0] == 0


def test_a_picture_of_another_size_is_scaled_and_cropped_and_that_is_said(call: Call, tmp_path: Path) -> None:
    draw(tmp_path / "large.png", (100, 50))
    cover(tmp_path / "cover.png", (100, 50), (0, 0, 60, 50))
    code, said = call(*RUN, "--init", "large.png", "--mask", "cover.png", "--out", "a")
    assert code == 0
    assert "100 x 50 pixels: it is scaled and cropped to the run's 24 x 16" in " ".join(said.split())
    whole = Image.open(tmp_path / "large.png").convert("RGB")
    box = (12.5, 0, 87.5, 50)  # the middle, of 3 : 2
    expected = np.asarray(whole.resize((24, 16), Image.Resampling.LANCZOS, box=box))
    made = pixels(tmp_path / "a/picture-0.png")
    assert (made[:, 18:] == expected[:, 18:]).all()
    assert not (made[:, :10] == expected[:, :10]).all()


def test_other_commands_take_the_record(call: Call, tmp_path: Path) -> None:
    assert call(*RUN, "--init", "init.png", "--strength", "0.5", "--region", "0,0,50%,100%: blue", "--out", "a")[0] == 0
    run = tomllib.loads((tmp_path / "a/run.toml").read_text())
    assert [part.get("region") for part in run["referees"]] == [None, "0,0,50%,100%"]
    (tmp_path / "init.png").unlink()
    code, said = call("score", "a/picture-0.png", "red", "--config", "a/run.toml")
    assert code == 0, said
    assert "region-1" in said
    code, said = call("plan", "red", "--config", "a/run.toml", "--json")
    assert code == 0, said
    costs = json.loads(said)
    assert costs["tflop"] < 10 * costs["tflop_per_step"] or costs["tflop"] == 0


def test_a_second_seat_of_a_region_shares_the_model(call: Call, tmp_path: Path) -> None:
    assert call(*RUN, "--region", "0,0,50%,100%: blue", "--region", "50%,0,100%,100%: red", "--out", "a")[0] == 0
    assert (tmp_path / "made").read_text().count("referee") == 1


def test_photographs_are_the_right_way_up_and_on_white(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    picture.save(buffer, "png", exif=exif)
    (tmp_path / "photo.png").write_bytes(buffer.getvalue())
    begun = open_init(Init(image=str(tmp_path / "photo.png")), 16, 24)
    assert np.array_equal(np.asarray(begun.picture), np.rot90(np.asarray(picture), -1))
    Image.new("RGBA", (24, 16), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    begun = open_init(Init(image=str(tmp_path / "clear.png")), 16, 24)
    assert np.asarray(begun.picture).min() == 255
    assert begun.init.strength == begun.init.share


def test_settings_say_it_in_toml_and_flags_come_last() -> None:
    base = {"zoo": "none", "prior": {"name": "toy"}, "referees": [{"name": "toy"}]}
    toml = tomllib.loads('[init]\nimage = "a.png"\nimage_sha256 = "' + "0" * 64 + '"\nstrength = 0.5\nmask = "m.png"')
    settings = build([base, toml])
    assert settings.init
    assert (settings.init.share, settings.first_step) == (0.5, 80)
    over = build([base, toml, flag_layer(init="b.png", negative="blurry")])
    assert over.init
    assert over.prior
    assert (over.init.image, over.init.image_sha256, over.init.mask, over.init.share) == ("b.png", "", "m.png", 0.5)
    assert over.prior.options == {"negative": "blurry"}
    both = build([base, flag_layer(prior="toy:blind=true", negative="blurry")])
    assert both.prior
    assert both.prior.options == {"blind": True, "negative": "blurry"}
    with pytest.raises(OptionError, match=r"'prior\.name' must be given"):
        build([{"zoo": "none", "referees": base["referees"]}, flag_layer(negative="blurry")])
