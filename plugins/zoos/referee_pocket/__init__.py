"""The pocket zoo: a little world and every model that plays in it, small enough to ship.

Vocabulary and grammar are in `words`, the renderer in `world`, the held-out judge in `judge` and, for `--judge
pocket-judge`, in `referee`; `bench` asks how often pictures are right, by the methods of the tables in ``methods``, and
`paper` which of the paper's claims hold here. ``python -m referee_pocket.train`` rebuilds the weights. Importing this
package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from referee.bench.contract import SELECTS
from referee.errors import WeightsError
from referee.hooks import Checkpoint, Place, Register, Spec, ZooFile, ZooSpec, hookimpl
from referee.weights import check_folder
from referee_pocket.words import check_prompt, parse

if TYPE_CHECKING:
    from referee.bench.contract import Bench
    from referee.contract import Referee

HERE = Path(__file__).parent
WEIGHTS = HERE / "weights"
MANIFEST = "manifest.json"
"""Every file of the weights with its size in bytes and sha256."""

PRESETS = {path.stem: path.read_text(encoding="utf-8") for path in (HERE / "presets").glob("*.toml")}


ROLES = {
    "blip2": ("blip2", "model"),
    "clip": ("clip", "model"),
    "prior": ("stable-diffusion", "model"),
    "vqa": ("grounding-vqa", "vqa"),
    "detector": ("grounding-vqa", "detector"),
    "judge": ("pocket-judge", "model"),
}
"""Folders of the weights, with the part and the option that they are for."""
MEND = "Install the package again: pip install --force-reinstall vlm-referee"


class _File(BaseModel):
    bytes: int
    sha256: str


def checkpoints() -> tuple[Checkpoint, ...]:
    """The zoo's models, as the manifest lists them.

    Raises:
        WeightsError: the manifest is cut short.
    """
    listed = _manifest()
    there = {file.name.partition("/")[0] for file in listed}
    return tuple(
        Checkpoint(
            role,
            WEIGHTS,
            (ZooFile(MANIFEST), *(file for file in listed if file.name.startswith(f"{role}/"))),
            options={part: {option: str(WEIGHTS / role)}},
            licence="MIT",
            mend=MEND,
        )
        for role, (part, option) in ROLES.items()
        if not there or role in there  # a manifest without it is of a zoo that never had it
    )


def _manifest() -> list[ZooFile]:
    """All files; none if there is no manifest, which every checkpoint then lacks."""
    path = WEIGHTS / MANIFEST
    if not path.is_file():
        return []
    try:
        entries = TypeAdapter(dict[str, _File]).validate_json(path.read_bytes())
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise WeightsError(f"{path} is cut short or no manifest: {why}. {MEND}") from error
    return [ZooFile(name, entry.bytes, entry.sha256) for name, entry in entries.items()]


class Options(BaseModel):
    """Of the judge."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(WEIGHTS / "judge", description="folder of a pocket judge")


def _check(options: Options) -> None:
    check_folder(options.model.expanduser(), ["config.json", "model.safetensors"], mend=MEND)


def _grammar(prompt: str) -> None:
    parse(prompt)


def _make(options: Options, place: Place) -> Referee:
    from .judge import Detector, Judge  # torch: only now
    from .referee import DetectorReferee

    detector = Judge(options.model.expanduser()).detector if place.weights else Detector()
    return DetectorReferee(detector, place.device)


def _split(value: Any) -> Any:
    """``attributes+spatial``, as a list."""
    return tuple(value.split("+")) if isinstance(value, str) else value


class BenchOptions(BaseModel):
    """Of the bench."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    suites: Annotated[tuple[Literal["attributes", "spatial", "complex"], ...], BeforeValidator(_split)] = Field(
        ("attributes", "spatial", "complex"),
        min_length=1,
        description="which prompts, joined by +: of two things, of two that lie to each other as said, of three things",
        json_schema_extra=SELECTS,
    )
    n: int = Field(60, ge=1, le=1000, description="prompts of each suite", json_schema_extra=SELECTS)
    table: Literal["main", "priors", "balancers"] = Field(
        "main",
        description="which methods are its own: what inversion gives; relatives of the prior's sds; rules that balance "
        "three referees",
        json_schema_extra=SELECTS,
    )
    split: Literal["test", "tune"] = Field("test", description="test, or tune: prompts that settings may be chosen by")
    views: int = Field(16, ge=1, description="augmented views on which the referees' losses are told")
    weights: Path = Field(WEIGHTS, description="folder of the judge and of the referees that score")


def _check_bench(options: BenchOptions) -> None:
    folder = options.weights.expanduser()
    _check(Options(model=folder / "judge"))
    for role in ("blip2", "clip", "vqa", "detector"):
        check_folder(folder / role, ["config.json" if role != "clip" else "open_clip_config.json"], mend=MEND)


def _make_bench(options: BenchOptions, place: Place) -> Bench:
    from .bench import PocketBench  # torch: only now

    return PocketBench(options, place.device)


def _make_paper(options: Any, place: Place) -> Bench:
    from .paper.bench import PaperBench  # torch: only now

    return PaperBench(options, place.device)


@hookimpl
def referee_benches(register: Register) -> None:
    summary = "how often pictures of held-out prompts are right, by the pocket's judge and by each referee"
    register(Spec("pocket", summary, _make_bench, BenchOptions, _check_bench))
    from .paper import options as paper  # which reads this module: only now is it whole

    summary = "the paper's tables and figures, redrawn in this world: which of its claims hold here"
    register(Spec("paper", summary, _make_paper, paper.Options, paper.check))


@hookimpl
def referee_referees(register: Register) -> None:
    summary = "a detector of the pocket world, held out: for --judge"
    register(Spec("pocket-judge", summary, _make, Options, _check, check_prompt=_grammar))


@hookimpl
def referee_zoos(register: Callable[[ZooSpec], None]) -> None:
    summary = "an embedded little world: 8 shapes x 8 colours x 4 textures at 64 px, for a laptop"
    register(ZooSpec("pocket", summary, "pocket", checkpoints, PRESETS, check_prompt))
