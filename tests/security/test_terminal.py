"""No text of a stranger's steers the terminal of who reads it: escape sequences are refused, or written out."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tomli_w

from referee.command.app import main
from referee.errors import OptionError, RefereeError, WeightsError
from referee.folder.record import describe, write_run
from referee.folder.run import open_run
from referee.plugins import Registry
from referee.settings import build

STEER = "\x1b]0;PWN\x07\x1b[2J"
PARTS = {"zoo": "none", "prior": {"name": "toy"}, "referees": [{"name": "toy"}]}


@pytest.mark.parametrize(
    "layer",
    [
        {"referees": [{"name": "toy", "label": STEER}]}, {"referees": [{"name": "toy", "options": {"model": STEER}}]},
        {"referees": [{"name": "toy", "prompt": STEER}]}, {"zoo": STEER}, {"prior": {"name": STEER}}, {STEER: 1},
        {"prior": {"name": "toy", "options": {STEER: [STEER]}}}, {"run": {"prompt": "red", "libraries": {STEER: "9"}}},
        {"run": {"mixed": [STEER]}}, {"referees": [{"name": "toy", "label": "\udcff"}]}, {"device": "\x9b2J"},
    ],
)  # fmt: skip
def test_settings_with_control_characters_are_refused(layer: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="has control characters or broken ones") as refused:
        build([PARTS, layer])
    assert str(refused.value).isprintable()


def test_lines_and_tabs_are_text() -> None:
    made = build([PARTS, {"prior": {"name": "toy", "options": {"negative": "blurry,\n\tgrey"}}}])
    assert made.prior
    assert made.prior.options == {"negative": "blurry,\n\tgrey"}


@pytest.mark.parametrize("error", [RefereeError, WeightsError])
def test_what_an_error_quotes_is_written_out(error: type[RefereeError]) -> None:
    """Whoever wrote it: a checkpoint's format, a config's class, a name in a table."""
    assert str(error(f"it is a '{STEER}'\n\ta second line")) == r"it is a '\x1b]0;PWN\x07\x1b[2J'" + "\n\ta second line"


def run(folder: Path, **about: object) -> Path:
    """As somebody might hand it in, cut off before its first step."""
    made = describe("red", build([PARTS]), Registry())
    write_run(folder, {**made, "run": {**made["run"], "unfinished": True, **about}})
    return folder


def said(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["referee", *words])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    return "".join(capfd.readouterr())


@pytest.mark.parametrize(
    "about",
    [{"libraries": {STEER: "9"}}, {"libraries": {"torch": STEER}}, {"plugins": {STEER: 3}}, {"device": STEER},
     {STEER: 1}, {"mixed": [STEER]}, {"prompt": STEER}, {"command": STEER}],
)  # fmt: skip
def test_a_strangers_run(
    about: dict[str, object], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(run(tmp_path / "run", **about))
    with pytest.raises(RefereeError):
        open_run(folder)
    for words in (["resume", folder], ["generate", "--config", f"{folder}/run.toml"]):
        assert "\x1b" not in (answer := said(capfd, monkeypatch, *words))
        assert answer.startswith("referee: ")


def test_a_strangers_config(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    labelled = {**PARTS, "referees": [{"name": "clip", "label": STEER}], "prior": {"name": "stable-diffusion"}}
    (tmp_path / "c.toml").write_text(tomli_w.dumps(labelled))
    answer = said(capfd, monkeypatch, "generate", "red", "--config", str(tmp_path / "c.toml"))
    assert "control characters" in answer
    assert "\x1b" not in answer


def test_a_warning(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tokenizer that came with a model says which words it cut."""
    (tmp_path / "warns.py").write_text(f"import warnings\nwarnings.warn({STEER!r} + ' was cut')\n")
    words = ["plugins", "show", "none-of-that-name", "--no-plugins", "--plugin", str(tmp_path / "warns.py")]
    answer = said(capfd, monkeypatch, *words)
    assert r"\x1b[2J was cut" in answer
    assert "\x1b" not in answer
