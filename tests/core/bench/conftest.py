"""A bench of toys in a plug-in file, and `referee bench` called where it lies."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from referee.bench.contract import Item
from referee.bench.records import Evidence, read
from referee.command.app import main

PLUGIN = '''
"""A bench of colours, and the toys that draw them. What lies in at.py is run before each score, once."""
import os, signal
from pathlib import Path
from typing import Literal
from pydantic import BaseModel, ConfigDict, Field
from referee.bench.contract import SELECTS, Column, Item
from referee.hooks import Spec, hookimpl

HERE = Path(__file__).parent
COLOURS = {"red": 0, "green": 1, "blue": 2}
RUN = {"zoo": "none", "height": 8, "width": 8, "prior": {"name": "toy"}, "referees": [{"name": "toy"}],
       "rules": {"steps": 4, "tail": 1, "views": 1, "prior_weight": 0.1, "restart_every": 0}}


class Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    n: int = Field(3, ge=0, le=3, description="prompts of a suite", json_schema_extra=SELECTS)
    scale: float = Field(1.0, description="of the first column")
    weights: Path = Field(HERE, description="of the scorer")
    note: str = Field("", description="for the scorer")


class Colours:
    columns = {
        "share": Column("share of the colour", proportion=True),
        "loss": Column("toy loss", more=False, families=("toy",)),
        "even": Column("of even prompts", proportion=True),
    }

    def __init__(self, options):
        self.options = options

    def items(self):
        words = list(COLOURS)[: self.options.n]
        bright = [Item(i, f"a {word} square", "bright", {"note": self.options.note}) for i, word in enumerate(words)]
        return [*bright, *(Item(i, f"a dim {word} square", "half dim") for i, word in enumerate(words[:1]))]

    def methods(self):
        return {"run": RUN, "plain": {**RUN, "draw": "sample"}}

    def score(self, image, item, seed):
        if (HERE / "at.py").exists():
            code = (HERE / "at.py").read_text()
            names = {**globals(), "item": item, "seed": seed, "image": image}
            exec(code, names)
            if "answer" in names:
                return names["answer"]
        channel = next(COLOURS[word] for word in item.prompt.split() if word in COLOURS)
        share = (image[0, channel].mean() / image[0].sum(0).mean().clamp_min(1e-3)).item()
        found = {"share": self.options.scale * share, "loss": 1 - share + seed * 1e-6}
        return {**found, "even": 1.0} if item.index % 2 == 0 else found


class Named(Colours):
    """Knows pictures by their prompts."""

    def files(self, folder, item):
        return [(int(path.stem.rpartition("_")[2]), path) for path in folder.glob(f"{item.prompt}_*.png")]


def referee(options, place):
    from referee.testing import ToyReferee
    (HERE / "loaded").touch()
    return ToyReferee()


def prior(options, place):
    from referee.testing import ToyPrior
    (HERE / "loaded").touch()
    return ToyPrior()


@hookimpl
def referee_referees(register):
    register(Spec("toy", "likes a colour", referee, check_prompt=look))


def look(prompt):
    from referee.errors import PromptError
    if "ugly" in prompt:
        raise PromptError("it is ugly")


@hookimpl
def referee_priors(register):
    register(Spec("toy", "likes grey", prior))


@hookimpl
def referee_benches(register):
    register(Spec("colours", "of one colour", lambda options, place: Colours(options), Options))
    register(Spec("named", "by prompts", lambda options, place: Named(options), Options))
'''


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str


class Desk:
    """A folder with the plug-in in it, and `referee` called there."""

    TOYS: ClassVar = ["--plugin", "toys.py", "--no-plugins"]
    BENCH: ClassVar = ["bench", "colours", "--zoo", "none", "--device", "cpu", "--seed", "1", *TOYS]

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.out, self.monkeypatch, self.capsys = folder, folder / "out", monkeypatch, capsys
        (folder / "toys.py").write_text(PLUGIN)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("COLUMNS", "200")

    def __call__(self, *words: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["referee", *words])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        caught = self.capsys.readouterr()
        return Answer(end.value.code if isinstance(end.value.code, int) else 0, caught.out, caught.err)

    def bench(self, *words: str, name: str = "colours", out: str = "out") -> Answer:
        """`referee bench` with the toys."""
        return self("bench", name, *self.BENCH[2:], "--out", out, *words)

    def done(self, *words: str, name: str = "colours", out: str = "out") -> Evidence:
        """The same, which must succeed; gives what it left."""
        answer = self.bench(*words, name=name, out=out)
        assert answer.code == 0, answer.err
        return read([self.folder / out])

    def refused(self, says: str, *words: str, name: str = "colours", out: str = "out") -> None:
        """The same, which must be refused in these words, with no model loaded and nothing written."""
        (self.folder / "loaded").unlink(missing_ok=True)
        before = self.files(out)
        answer = self.bench(*words, name=name, out=out)
        assert (answer.code, says in answer.err) == (2, True), answer.err
        assert not (self.folder / "loaded").exists()
        assert self.files(out) == before

    def files(self, out: str = "out") -> dict[str, bytes]:
        """All files of a folder."""
        there = (self.folder / out).rglob("*") if (self.folder / out).exists() else ()
        return {str(path): path.read_bytes() for path in there if path.is_file()}

    def at(self, code: str) -> None:
        """Have something done before each score."""
        (self.folder / "at.py").write_text(code)

    def pictures(self, items: dict[str, Any], folder: str = "given") -> Path:
        """A folder of pictures: names, each with a colour or with bytes."""
        from PIL import Image

        home = self.folder / folder
        for name, content in items.items():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                (home / name).write_bytes(content)
            else:
                Image.new("RGB", (8, 8), content).save(home / name)
        return home


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, monkeypatch, capsys)


def scores(evidence: Evidence) -> dict[str, Any]:
    """What was scored, without the times."""
    rows = (record.model_dump(exclude={"seconds", "cpu_seconds"}) for record in evidence.records)
    return {json.dumps([row["method"], row["suite"], row["index"], row["seed"]]): row for row in rows}


def item(index: int = 0, prompt: str = "a red square", suite: str = "s") -> Item:
    return Item(index, prompt, suite)
