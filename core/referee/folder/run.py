"""A run read back: the folder that `referee generate` left, or a picture of it, as data.

Both may come from a stranger. Nothing in them is executed or unpickled, every file is a plain file of the folder
itself (no link is followed) and of bounded size, and what is read is checked before it is used.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from referee import files
from referee.errors import OptionError, PromptError, RunError
from referee.layers import MAX_TOML, RECORD, Layer, read_toml
from referee.options import explain
from referee.prompt import Prompt
from referee.settings import MAX_IMAGES, MAX_SIDE, Settings, build

MAX_METRICS = 1 << 26
MAX_LINE = 1 << 20
MAX_PICTURE = 1 << 28
"""Bytes."""
MAX_ROWS = 100_000
MAX_FILM = 16383
"""Pixels: the longest side that WebP has."""
MAX_MAPS = 16

Text = Annotated[str, Field(max_length=1000)]
Table = Annotated[dict[Text, Text], Field(max_length=1000)]
PerSeed = Annotated[list[float | None], Field(max_length=MAX_IMAGES)]
Numbers = Annotated[dict[Text, PerSeed], Field(max_length=100)]


class Origin(BaseModel):
    """Which distribution brought a part that played."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    kind: Text
    name: Text
    distribution: Text = ""
    version: Text = ""


class Judged(BaseModel):
    """The table [run.judge]: what came of the judge. Its verdicts are in metrics.jsonl."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    taken: tuple[int, ...] = Field(max_length=MAX_IMAGES, description="steps after which each picture was taken")
    ended: int | None = Field(None, ge=0, description="steps after which all had reached their plateau")
    picked: int | None = Field(None, description="the seed whose picture it likes best")


class About(BaseModel):
    """The table [run] of run.toml: what shaped the run and is no setting. Older runs say less."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    prompt: str = Field(description="as drawn")
    command: Literal["generate", "sample"] = Field("generate", description="what was asked for")
    interrupted_after: int | None = Field(None, ge=0, description="steps, if it was stopped")
    unfinished: bool = Field(False, description="it is under way, or was cut off")
    at_once: dict[Text, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict, max_length=100, description="views that fitted at once, of those for whom memory ran out"
    )
    mixed: tuple[Text, ...] = Field((), max_length=100, description="what changed where it was gone on with, by force")
    device: Text = Field("", description="where it computed")
    python: Text = ""
    platform: Text = ""
    libraries: Table = Field(default_factory=dict, description="versions by distribution")
    plugins: Table = Field(default_factory=dict, description="those that were active: distribution and version")
    parts: tuple[Origin, ...] = Field((), max_length=100, description="those that played")
    weights: Table = Field(default_factory=dict, description="sha256 by file, where the zoo knows it")
    frames: tuple[int, ...] = Field((), max_length=100, description="steps taken at each frame of a film")
    judge: Judged | None = Field(None, description="what came of the judge, if there was one")
    maps: tuple[Text, ...] = Field((), max_length=MAX_MAPS, description="who pulled, at each map of a picture")


class Row(BaseModel):
    """A step: a line of metrics.jsonl; lists have one entry per seed, None where a number was not finite."""

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)

    step: int = Field(ge=0, lt=1 << 53)
    losses: Numbers = Field(default_factory=dict)
    norms: Numbers = Field(default_factory=dict)
    agreement: PerSeed | None = None
    sat_out: dict[str, Annotated[list[bool], Field(max_length=MAX_IMAGES)]] = Field(
        default_factory=dict, description="whose gradient was zero or not finite, for which pictures"
    )
    cosines: Numbers | None = Field(None, description="of the gradients, by pair: one/other")
    judge: PerSeed | None = Field(None, description="the judge's losses after the step, where it was asked")
    hacked: Annotated[list[bool], Field(max_length=MAX_IMAGES)] | None = Field(
        None, description="of which pictures reward hacking was found here"
    )


@dataclass(frozen=True, slots=True)
class Run:
    """A run, read back. Pictures are opened when asked for.

    Attributes:
        folder: where it lies.
        prompt: as drawn.
        settings: all of them, as checked then and now.
        about: what else shaped it: versions, plug-ins, device, hashes.
        metrics: a row per step; none of a plain sample.
    """

    folder: Path
    prompt: Prompt
    settings: Settings
    about: About
    metrics: tuple[Row, ...] = ()

    @property
    def seeds(self) -> tuple[int, ...]:
        """One per picture."""
        return self.settings.seeds

    @property
    def complete(self) -> bool:
        """False if it was stopped, see ``about.interrupted_after``, or cut off, or is under way."""
        return self.about.interrupted_after is None and not self.about.unfinished

    @property
    def pictures(self) -> Mapping[int, Path]:
        """The pictures that are there, by seed."""
        paths = {seed: self.folder / f"picture-{seed}.png" for seed in self.seeds}
        return {seed: path for seed, path in paths.items() if files.is_plain(path, links=False)}

    @property
    def evolution(self) -> Path | None:
        """The contact sheet, if there is one."""
        path = self.folder / "evolution.png"
        return path if files.is_plain(path, links=False) else None

    def picture(self, seed: int) -> Image.Image:
        """Open one picture.

        Raises:
            RunError: it is not there, or no picture.
        """
        return open_picture(self.folder / f"picture-{seed}.png", "PNG", MAX_SIDE)

    def film(self, seed: int) -> list[Image.Image]:
        """One picture's frames, taken after ``about.frames`` steps; empty if none were kept.

        Raises:
            RunError: the film is broken.
        """
        return self._stacked(f"frames-{seed}.webp", len(self.about.frames))

    def maps(self, seed: int) -> dict[str, Image.Image]:
        """Where on one picture each referee and the prior pulled, from black to white; empty if it was not kept.

        Raises:
            RunError: the file is broken.
        """
        return dict(zip(self.about.maps, self._stacked(f"maps-{seed}.webp", len(self.about.maps)), strict=False))

    def _stacked(self, name: str, count: int) -> list[Image.Image]:
        path = self.folder / name
        if not count or not files.is_plain(path, links=False):
            return []
        film = open_picture(path, "WEBP", MAX_FILM)
        high = film.height // count
        if high == 0 or film.height % count:
            raise RunError(f"{path} is {film.height} pixels high: not {count} frames.")
        return [film.crop((0, i * high, film.width, (i + 1) * high)) for i in range(count)]


def open_run(path: str | Path) -> Run:
    """Read a run's folder, anybody's.

    Raises:
        RunError: there is no run, or what it says cannot be so.
    """
    folder = Path(path)
    layer = _toml(read_plain(folder / "run.toml", MAX_TOML), folder / "run.toml")
    about = _about(layer, folder / "run.toml")
    try:
        settings, prompt = build([layer]), Prompt(about.prompt)
    except (OptionError, PromptError) as error:
        raise RunError(f"{folder / 'run.toml'}: {error}") from error
    metrics = _metrics(folder / "metrics.jsonl", len(settings.seeds), torn=about.unfinished)
    return Run(folder, prompt, settings, about, metrics)


def read_config(path: Path) -> Layer:
    """What ``--config`` takes: settings as TOML, a run's ``run.toml``, or a picture, which is then drawn again alone.

    Raises:
        OptionError: it is no TOML.
        RunError: the picture does not say how it was drawn.
    """
    return read_picture(path) if path.suffix.lower() == ".png" else read_toml(path)


def read_picture(path: str | Path) -> Layer:
    """The settings in a picture's text chunks, with its own seed alone.

    Raises:
        RunError: it is no PNG, or none that a run wrote.
    """
    path = Path(path)
    image = open_picture(path, "PNG", MAX_SIDE)
    text = {str(key): str(value) for key, value in image.info.items() if isinstance(value, str)}
    if not {"settings", "seed"} <= set(text):
        raise RunError(f"{path} does not say how it was drawn: its text chunks are lost, or referee did not draw it.")
    layer = _toml(text["settings"].encode(errors="replace")[: MAX_TOML + 1], path)
    _about(layer, path)
    try:
        layer["seeds"] = [int(text["seed"])]
    except ValueError as error:
        raise RunError(f"{path} has {text['seed'][:30]!r} for its seed.") from error
    return layer


def prompt_of(layer: Mapping[str, Any]) -> str | None:
    """The prompt in a run's record; None if the layer is no record."""
    said = layer.get(RECORD)
    found = said.get("prompt") if isinstance(said, dict) else None
    return found if isinstance(found, str) else None


def read_plain(path: Path, limit: int) -> bytes:
    """All of a plain file, which a link or a pipe is not.

    Raises:
        RunError: it is missing, something else, or larger than ``limit`` bytes.
    """
    try:
        return files.read_plain(path, limit, links=False)
    except files.NotPlain as error:
        raise RunError(f"{path} {error}.") from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def open_picture(path: Path, kind: Literal["PNG", "WEBP"], side: int) -> Image.Image:
    """A picture of one format, whole, with what it says of itself in ``info``.

    Raises:
        RunError: it is missing, broken, of another format, or has a side of more than so many pixels.
    """
    content = read_plain(path, MAX_PICTURE)
    try:
        with Image.open(BytesIO(content), formats=[kind]) as image:
            if max(image.size) > side:
                raise RunError(f"{path} has {image.width} x {image.height} pixels; at most {side} a side are read.")
            image.load()
            picture = image.convert("RGB")
            picture.info = dict(image.info)
    except RunError:
        raise
    except Exception as error:  # for a stranger's file a decoder may raise anything
        raise RunError(f"{path} cannot be read as {kind}: {error}.") from error
    return picture


def _toml(content: bytes, path: Path) -> Layer:
    if len(content) > MAX_TOML:
        raise RunError(f"{path}: its settings are longer than {MAX_TOML:,} bytes.")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is not TOML: {error}.") from error


def _about(layer: Layer, path: Path) -> About:
    if RECORD not in layer:
        raise RunError(f"{path} has no table [{RECORD}]: no run wrote it.")
    try:
        return About.model_validate(layer[RECORD])
    except ValidationError as error:
        raise RunError(f"{path}, [{RECORD}]: {explain(error, About)}") from error


def _metrics(path: Path, seeds: int, *, torn: bool) -> tuple[Row, ...]:
    """``torn``: the last line may be cut off, as the run may have been while it was written."""
    if not path.is_symlink() and not path.exists():
        return ()
    rows: list[Row] = []
    for number, line in enumerate(BytesIO(read_plain(path, MAX_METRICS)), 1):
        if number > MAX_ROWS or len(line) > MAX_LINE:
            raise RunError(f"{path}, line {number}: at most {MAX_ROWS:,} lines of {MAX_LINE:,} bytes are read.")
        if torn and not line.endswith(b"\n"):
            break
        try:
            row = Row.model_validate_json(line)
        except ValidationError as error:
            raise RunError(f"{path}, line {number}: {explain(error, Row)}") from error
        lists = [each for each in (row.agreement, row.judge, row.hacked) if each is not None]
        lists += [values for table in (row.losses, row.norms, row.cosines or {}) for values in table.values()]
        if any(len(values) != seeds for values in lists):
            raise RunError(f"{path}, line {number}: there must be {seeds} numbers in each list, one per seed.")
        if rows and row.step <= rows[-1].step:
            raise RunError(f"{path}, line {number}: step {row.step} comes after step {rows[-1].step}.")
        rows.append(row)
    return tuple(rows)
