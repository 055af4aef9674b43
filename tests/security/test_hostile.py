"""What a stranger may hand in: prompts as file names, folders with links in them, settings and checkpoints that are
damaged or made up. Nothing is written outside the folder that was asked for, and nothing but a RefereeError comes out.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path, PureWindowsPath
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load, save, save_file

import referee_pocket
from referee.command.layer import flag_layer
from referee.errors import OptionError, OutputError, PromptError, RefereeError, WeightsError
from referee.folder.record import choose_folder, describe, write_picture, write_run, write_whole
from referee.layers import parse_set, read_toml
from referee.plugins import Registry
from referee.prompt import Prompt
from referee.schedules import Schedule, parse
from referee.settings import RefereePart, build
from referee.typed import parse_part
from referee.weights import check_safetensors
from referee_blip2.head import CaptionHead
from referee_pocket.judge import Detector, Judge

FUZZ = settings(max_examples=60, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))

NAMES = [
    "../../etc/passwd", "..", "con", "NUL", "com1.txt", "lpt9", "aux", ".hidden", "-rf", "~root",
    "C:\\Windows\\win.ini",
    "a\u2215b\uff0fc", "\u202egnp.exe", "\U0001f600" * 200, "e\u0301" * 300, "a" * 1000, "$(reboot)`id`;rm",
    "%2e%2e%2f", "日本語",
]  # fmt: skip


@pytest.mark.parametrize("prompt", NAMES)
def test_a_prompt_is_no_path(prompt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    text = Prompt(prompt).text
    folder = choose_folder(None, text, -3)
    description = describe(text, build([{"zoo": "none"}]), Registry())
    write_run(folder, description)
    write_picture(folder / "picture-3.png", Image.new("RGB", (2, 2)), description, 3)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    assert [path.name for path in here.iterdir()] == ["runs"]
    (made,) = (here / "runs").iterdir()
    assert {path.name for path in made.iterdir()} == {"run.toml", "picture-3.png"}
    assert made.name.isascii()
    assert len(made.name) < 100
    assert not PureWindowsPath(made.name).is_reserved()


def test_what_is_written_goes_through_no_link(tmp_path: Path) -> None:
    """In a shared folder another may have laid links under the names that a run will write."""
    secret, out = tmp_path / "secret", tmp_path / "out"
    secret.write_text("mine")
    out.mkdir()
    (out / "run.toml").symlink_to(secret)
    write_whole(out / "run.toml", b"new")
    assert (secret.read_text(), (out / "run.toml").read_text()) == ("mine", "new")
    assert not (out / "run.toml").is_symlink()
    (out / f".metrics.jsonl.{os.getpid()}.tmp").symlink_to(secret)
    write_whole(out / "metrics.jsonl", b"new")
    assert secret.read_text() == "mine"
    assert {path.name for path in out.iterdir()} == {"run.toml", "metrics.jsonl"}


def test_links_that_lead_nowhere_are_taken_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused before the run, that is; a folder could not be made there after it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="gone is a file, not a folder"):
        choose_folder(Path("gone"), "red", 0)
    with pytest.raises(OutputError, match="gone is a file, not a folder"):
        choose_folder(Path("gone") / "deeper", "red", 0)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "red-0").symlink_to(tmp_path / "nothing")
    assert choose_folder(None, "red", 0) == Path("runs/red-0-2")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "picture-0.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(OutputError, match="holds another run"):
        choose_folder(tmp_path / "out", "red", 0)


@FUZZ
@given(st.text(max_size=60))
def test_any_text_is_a_prompt_or_refused(text: str) -> None:
    with suppress(PromptError):
        assert Prompt(Prompt(text).text).text == Prompt(text).text


@FUZZ
@given(st.text("cosinelart(),.0123456789eE+- constant", max_size=40) | st.text(max_size=20))
def test_any_text_is_a_schedule_or_refused(text: str) -> None:
    with suppress(OptionError):
        assert isinstance(parse(text), Schedule)


pieces = st.text(max_size=12) | st.sampled_from(
    ["weight=cosine(1,0)", "rules.steps=3", "[" * 3000, "0x" + "f" * 5000, "{a=1}"]
)


@FUZZ
@given(st.text(max_size=12), st.lists(pieces, max_size=4))
def test_any_words_are_settings_or_refused(name: str, words: list[str]) -> None:
    for make in (
        lambda: parse_part(f"{name}:{','.join(words)}", RefereePart),
        lambda: parse_set(f"{name}={','.join(words)}"),
    ):
        with suppress(RefereeError):
            layer: dict[str, Any] = make()
            build([{"zoo": "none"}, layer if "name" not in layer else {"referees": [layer]}])


TOML = b"""zoo = "none"
seeds = [1, 2]
[rules]
steps = 20
lr = "cosine(1, 0.5)"
[[referees]]
name = "toy"
weight = 2
"""


@FUZZ
@given(data=st.data())
def test_a_damaged_config_is_settings_or_refused(data: st.DataObject, tmp_path: Path) -> None:
    content = bytearray(TOML)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    (tmp_path / "c.toml").write_bytes(bytes(content))
    with suppress(RefereeError):
        made = build([read_toml(tmp_path / "c.toml"), flag_layer(n=2)])
        write_run(tmp_path / "out", describe("red", made, Registry()))
        assert build([read_toml(tmp_path / "out" / "run.toml")]) == made


@pytest.mark.parametrize(
    "text",
    ["prior.options" + ".a" * 20_000 + " = 1", "rules" + ".a" * 20_000 + " = 1", "seeds = [0x" + "f" * 5000 + "]"],
    ids=["deep options", "deep rules", "large seed"],
)
def test_settings_that_would_break_what_writes_them(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text(f'zoo = "none"\n{text}\n')
    with pytest.raises(OptionError):
        describe("red", build([read_toml(tmp_path / "c.toml"), {"prior": {"name": "toy"}}]), Registry())


WHOLE = save({"a": torch.arange(6.0), "b": torch.ones(2, 2, dtype=torch.float16)}, metadata={"format": "pt"})
HEADER = 8 + int.from_bytes(WHOLE[:8], "little")


@settings(FUZZ, max_examples=300)
@given(data=st.data())
def test_what_passes_for_a_safetensors_file_is_one(data: st.DataObject, tmp_path: Path) -> None:
    """What our check lets through, safetensors reads: so its own errors cannot come out of any loader."""
    content, path = bytearray(WHOLE), tmp_path / "model.safetensors"
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(8, HEADER - 1))] = data.draw(st.integers(32, 126))
    path.write_bytes(bytes(content))
    try:
        check_safetensors(path, mend="Fetch it again.")
    except WeightsError:
        return
    with safe_open(path, framework="pt") as file:
        assert set(load(bytes(content))) == set(file.keys())


def damaged(content: bytes, data: st.DataObject) -> bytes:
    """Cut, or with a few bits of it flipped."""
    if data.draw(st.booleans()):
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * min(len(changed), 4000) - 1))  # where the header is
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judge")
    save_file({name: tensor.half() for name, tensor in Detector().state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"threshold": 0.4}')
    Judge(folder)
    return folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@settings(FUZZ, max_examples=20)
@given(data=st.data())
def test_a_damaged_judge_loads_or_is_refused(name: str, judge: Path, data: st.DataObject, tmp_path: Path) -> None:
    for path in judge.iterdir():
        (tmp_path / path.name).write_bytes(damaged(path.read_bytes(), data) if path.name == name else path.read_bytes())
    with suppress(WeightsError):
        Judge(tmp_path)


@settings(FUZZ, max_examples=30)
@given(data=st.data())
def test_a_damaged_caption_head_loads_or_is_refused(data: st.DataObject, tmp_path: Path) -> None:
    CaptionHead(4, 7).save(tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damaged(path.read_bytes(), data))
    with suppress(WeightsError):
        CaptionHead.load(tmp_path)


@settings(FUZZ, max_examples=40)
@given(data=st.data())
def test_a_damaged_manifest_is_read_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("weights")
    (folder / "config.json").write_text("{}")
    whole = json.dumps({"config.json": {"bytes": 2, "sha256": "00"}}).encode()
    (folder / "manifest.json").write_bytes(damaged(whole, data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(referee_pocket, "WEIGHTS", folder)
        with suppress(WeightsError):
            referee_pocket.checkpoints()


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"a": 1}', '{"a": {}}', '{"a": {"bytes": "x", "sha256": 1}}', "\\ud800", "[" * 9999]
)
def test_a_manifest_of_another_shape_is_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.json").write_text(text)
    monkeypatch.setattr(referee_pocket, "WEIGHTS", tmp_path)
    with pytest.raises(WeightsError, match=r"manifest\.json is cut short or no manifest"):
        referee_pocket.checkpoints()
