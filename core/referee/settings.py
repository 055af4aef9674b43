"""Settings: all that a run needs but the prompt, as data. TOML, command line and Python meet here and share one check.

Settings come in layers, later over earlier: the defaults of the models, a preset, a TOML file (``--config``), single
values (``--set rules.steps=80``), flags. Building them has no side effect and loads nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from referee.errors import OptionError, nearest
from referee.init_image import Init
from referee.plugins import Registry
from referee.region import RegionField, parse_prompted
from referee.rules import Rules
from referee.schedules import ScheduleField, constant

M = TypeVar("M", bound=BaseModel)

Layer = dict[str, Any]
"""A nested dictionary, as TOML gives it."""

MAX_SIDE = 4096
MAX_IMAGES = 64
MAX_DEPTH = 20
"""Tables within tables: deeper ones would break what writes them."""
RECORD = "run"
"""The table in which a run's record says what is no setting: prompt, versions. A file that has it is complete."""
NO_ZOO = "none"
"""What is written where no zoo is meant, as TOML has no null."""
REGION_WEIGHT = 4
"""Of a referee that --region adds: at 1 those of the whole, content with any order, had their way (docs/control.md)."""
PLAIN = "none"
"""What is written where a referee scores the plain image, whatever the run's augmentation."""


class Part(BaseModel):
    """A plug-in's part by name, with its options."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="as listed by `referee plugins`; 'distribution:name' chooses between two of one name")
    options: dict[str, Any] = Field(
        default_factory=dict, description="each part's own; listed by `referee plugins --json`"
    )


def _augmentation(value: Any) -> Any:
    """The name of one, or none, in place of a table."""
    return parse_part(value, Part) if isinstance(value, str) and value != PLAIN else value


class RefereePart(Part):
    """A referee by name, with its place at the table: see `referee.panel.Seat`."""

    model_config = ConfigDict(serialize_by_alias=True, populate_by_name=True)

    weight: ScheduleField = Field(constant(1.0), description="its share among the referees; a number or a schedule")
    label: str | None = Field(None, description="the name it plays under; its plug-in's name if not given")
    start: float = Field(0.0, ge=0, lt=1, alias="from", description="fraction of the run at which it begins to play")
    until: float = Field(1.0, gt=0, le=1, description="fraction of the run at which it stops")
    views: int | None = Field(None, ge=1, description="its own number of views per step; rules.views if not given")
    aug: Annotated[Part | Literal["none"] | None, BeforeValidator(_augmentation)] = Field(
        None, description="its own augmentation, or none for the plain image; the run's if not given"
    )
    prompt: str | None = Field(None, description="what it judges by; the run's prompt if not given")
    negative: bool = Field(False, description="it should not be satisfied: its loss is raised, up to the margin")
    margin: float | None = Field(
        None,
        allow_inf_nan=False,
        description="of a negative one, in its own unit; its loss on a grey picture if not given",
    )
    every: int = Field(1, ge=1, description="it is asked at every such step")
    between: Literal["reuse", "leave"] = Field(
        "reuse", description="at the steps between, its last gradient plays on (reuse) or not (leave)"
    )
    offload: bool = Field(False, description="its weights rest in the CPU's memory between its turns: slower, smaller")
    timeout: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="seconds it may take at a step: if it hangs, the run ends",
    )
    region: RegionField | None = Field(
        None, description='the part of the picture that it sees, "x0,y0,x1,y1" in pixels or per cent; all if not given'
    )

    @property
    def title(self) -> str:
        """The name it plays under."""
        return self.label or self.name.rpartition(":")[2]

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.start >= self.until:
            raise ValueError(f"'{self.title}' plays from {self.start:g} until {self.until:g}: that is never")
        if self.margin is not None and not self.negative:
            raise ValueError(f"'{self.title}' has a margin, which only a negative referee needs: add negative=true")
        return self


class JudgePart(Part):
    """A referee by name that only scores: see `referee.judging.Judge`."""

    label: str | None = Field(None, description="what it is called; its plug-in's name if not given")
    every: int = Field(10, ge=1, description="steps between two verdicts; the last step has one in any case")
    keep: Literal["best", "last"] = Field("best", description="the picture of its best verdict, or of the last step")
    patience: int | None = Field(
        None, ge=1, description="verdicts on end without a better one after which a picture ends; none if not given"
    )
    prompt: str | None = Field(None, description="what it judges by; the run's prompt if not given")
    pick: bool = Field(False, description="it says which of the pictures is best")

    @property
    def title(self) -> str:
        """What it is called."""
        return self.label or self.name.rpartition(":")[2]

    @model_validator(mode="after")
    def _in_accord(self) -> Self:
        if self.patience is not None and self.keep == "last":
            raise ValueError("patience ends a picture at the judge's best; it does not go with keep=last")
        return self


class BalancerPart(Part):
    """A balancer by name, and where it balances."""

    space: Literal["latent", "image"] = Field(
        "latent", description="gradients on the latent, exact; or on the image, with one decoder pass for all referees"
    )


class Settings(BaseModel):
    """Everything that shapes a run, but the prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    zoo: Annotated[str | None, BeforeValidator(lambda name: None if name == NO_ZOO else name)] = Field(
        "pocket", description="the set of checkpoints; none if every part names its own"
    )
    height: int = Field(64, ge=8, le=MAX_SIDE, multiple_of=8, description="pixels")
    width: int = Field(64, ge=8, le=MAX_SIDE, multiple_of=8, description="pixels")
    seeds: tuple[Annotated[int, Field(gt=-(1 << 128), lt=1 << 128)], ...] = Field(
        (0,), min_length=1, max_length=MAX_IMAGES, description="one picture each"
    )
    device: str = Field("auto", description="a torch device; auto takes cuda if there is one")
    dtype: str = Field(
        "float32", pattern="^(float32|bfloat16|float16)$", description="of the models; the latent stays float32"
    )
    rules: Rules = Field(default_factory=Rules, description="the numbers of the algorithm")
    referees: tuple[RefereePart, ...] = Field((), description="who plays")
    prior: Part | None = Field(None, description="who keeps it real, and owns the latent space")
    augmentation: Annotated[Part | None, BeforeValidator(lambda part: None if part == PLAIN else part)] = Field(
        None, description="the views' transforms; none scores the plain image"
    )
    balancer: BalancerPart | None = Field(None, description="the rule that makes one direction of several gradients")
    judge: JudgePart | None = Field(None, description="a referee that does not play: it says which step was best")
    init: Init | None = Field(None, description="the picture that the run begins with")

    @property
    def first_step(self) -> int:
        """The step, from 0, at which the run enters: later than 0 if it begins with a picture."""
        return self.rules.first_step(self.init.share) if self.init else 0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """What hangs on the run's size and length."""
        try:
            _ = self.first_step
            for part in self.referees:
                if part.region:
                    part.region.box(self.height, self.width)
        except OptionError as error:
            raise ValueError(str(error)) from error
        return self

    @model_validator(mode="after")
    def _check(self) -> Self:
        titles = [part.title for part in self.referees]
        if twice := {title for title in titles if titles.count(title) > 1}:
            raise ValueError(f"two referees are called '{min(twice)}': give each a label")
        if "prior" in titles:
            raise ValueError("a referee is called 'prior', as the prior itself is: give it another label")
        for part in self.referees:
            if (least := part.weight.least) < 0:
                raise ValueError(f"the weight of '{part.title}' falls to {least:g}: it must not be negative")
        if self.rules.prior_weight.most == 0 and not any(part.weight.most > 0 for part in self.referees):
            raise ValueError("nobody plays: name a referee, or give the prior a weight above 0 (rules.prior_weight)")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("the seeds repeat")
        return self


def build(layers: Iterable[Layer]) -> Settings:
    """Merge layers and check them.

    Raises:
        OptionError: naming each field that is unknown or of the wrong type or value.
    """
    merged: Layer = {}
    for layer in layers:
        merged = merge(merged, layer)
    merged.pop(RECORD, None)
    if not _shallow(merged):
        raise OptionError(f"The settings are nested more than {MAX_DEPTH} deep.")
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise OptionError(explain(error, Settings)) from error


def _shallow(value: Any, depth: int = MAX_DEPTH) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return depth > 0 and all(_shallow(one, depth - 1) for one in inner)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Layer:
    """Tables merge key by key; anything else, lists too, is replaced. A part of another name starts afresh.

    >>> merge({"rules": {"steps": 1, "tail": 0}}, {"rules": {"steps": 2}})
    {'rules': {'steps': 2, 'tail': 0}}
    """
    out = dict(base)
    for key, value in over.items():
        before = out.get(key)
        if (
            isinstance(before, dict)
            and isinstance(value, dict)
            and before.get("name") in (None, value.get("name", before.get("name")))
        ):
            out[key] = merge(before, value)
        else:
            out[key] = value
    return out


def validate(model: type[M], values: Mapping[str, Any], owner: str, also: Iterable[str] = ()) -> M:
    """A plug-in's options, checked.

    Args:
        also: names that may stand beside the options, for the hint at a misspelt one.

    Raises:
        OptionError: naming the part and each option that is unknown or wrong.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise OptionError(f"{owner}: {explain(error, model, also)}") from error


def explain(error: ValidationError, model: type[BaseModel], also: Iterable[str] = ()) -> str:
    """pydantic's findings as sentences, with the nearest names for unknown fields; ``also`` are such names, too."""
    sentences = []
    for found in error.errors():
        where = ".".join(str(part) for part in found["loc"])
        owner: Any = model
        for part in found["loc"][:-1]:
            owner = _inner(owner, part)
        fields = owner.model_fields if owner is not None else {}
        known = {field.alias or name: field for name, field in fields.items()}  # as people type them
        if found["type"] == "extra_forbidden":
            sentences.append(f"there is no '{where}'. {nearest(str(found['loc'][-1]), [*known, *also])}")
        elif found["type"] == "missing" and found["loc"][-1] in known:
            sentences.append(f"'{where}' must be given: {known[found['loc'][-1]].description}")
        else:
            message = found["msg"].removeprefix("Value error, ")
            plain = where and not isinstance(found["input"], (dict, list))
            given = f" (given: {_told(found['input'])})" if plain else ""
            sentences.append(f"{where + ': ' if where else ''}{message}{given}")
    return "; ".join(sentences)


def _told(value: Any) -> str:
    try:
        return repr(value)
    except ValueError:  # Python writes no integer of more than 4300 digits
        return "a number of thousands of digits"


def _inner(owner: Any, part: str | int) -> Any:
    """The model that a field holds, through options and lists."""
    if owner is None or isinstance(part, int):
        return owner
    field = owner.model_fields.get(part)
    kinds = [field.annotation] if field else []
    while kinds:
        kind = kinds.pop()
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
        kinds += getattr(kind, "__args__", ())
    return None


def read_toml(path: str | Path) -> Layer:
    """Settings from a TOML file; a ``run.toml`` that a run wrote is one too.

    Raises:
        OptionError: no such file, or it is not TOML.
    """
    try:
        layer = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OptionError(f"--config {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not TOML, a number of 5000 digits, 1000 brackets
        raise OptionError(f"--config {path} is not TOML: {error}.") from error
    if not _shallow(layer):
        raise OptionError(f"--config {path} is nested more than {MAX_DEPTH} deep.")
    return layer


def preset(name: str, registry: Registry) -> Layer:
    """A preset by name: those that ship with the framework, and those that zoos bring.

    Raises:
        OptionError: no such preset, with the nearest names.
    """
    known = {path.name.removesuffix(".toml"): path.read_text(encoding="utf-8") for path in _shipped()}
    for zoo in registry.names("zoo"):
        known |= registry.find("zoo", zoo).presets
    if name not in known:
        raise OptionError(f"There is no preset '{name}'. {nearest(name, known)}")
    return tomllib.loads(known[name])


def _shipped() -> list[Any]:
    return [path for path in (files("referee") / "presets").iterdir() if path.name.endswith(".toml")]


def parse_set(text: str) -> Layer:
    """``a.b=value`` as a layer; the value is read as TOML, or else as text.

    >>> parse_set("rules.steps=80"), parse_set("rules.lr=cosine(1,0.5)")
    ({'rules': {'steps': 80}}, {'rules': {'lr': 'cosine(1,0.5)'}})
    """
    path, equals, value = text.partition("=")
    keys = path.strip().split(".")
    if not equals or not all(keys) or len(keys) > MAX_DEPTH:
        raise OptionError(f"--set {text}: write a.b=value, for example --set rules.noise=0.05")
    layer: Any = parse_value(value)
    for key in reversed(keys):
        layer = {key: layer}
    return dict(layer)


def parse_value(text: str) -> Any:
    """A TOML value (number, true, "text", [list]), or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML; or a number of 5000 digits, or 1000 brackets
        return text.strip()


def parse_part(text: str, model: type[Part] = RefereePart) -> Layer:
    """``NAME[:key=value,...]`` as a layer; commas inside brackets or double quotes belong to the value.

    Args:
        text: as typed.
        model: what is parsed; keys that it knows are its own, the others are the plug-in's options.

    Raises:
        OptionError: it names nothing, or has a piece without an equals sign.

    >>> parse_part("clip:weight=cosine(1,0),model=/m")
    {'name': 'clip', 'weight': 'cosine(1,0)', 'options': {'model': '/m'}}
    """
    name, options = text, ""
    head, colon, rest = text.partition(":")
    if colon and "=" in rest:
        first, second, tail = rest.partition(":")
        if second and "=" not in first:  # distribution:name:options
            name, options = f"{head}:{first}", tail
        else:
            name, options = head, rest
    if not name.strip() or (":" in name and not all(name.split(":"))):
        raise OptionError(f"'{text}' names no plug-in: write NAME or NAME:key=value,key=value")
    own = own_keys(model)
    layer: Layer = {"name": name.strip()}
    for piece in _split(options):
        key, equals, value = (word.strip() for word in piece.partition("="))
        if not equals or not key:
            raise OptionError(f"'{piece}' in '{text}' is not of the form key=value.")
        if key not in own:
            layer.setdefault("options", {})[key] = parse_value(value)
        elif own[key].annotation == str | None:  # a label of 7 is a label
            layer[key] = read if isinstance(read := parse_value(value), str) else value
        else:
            layer[key] = parse_value(value)
    return layer


def own_keys(model: type[Part]) -> dict[str, FieldInfo]:
    """What may stand after the colon beside the plug-in's options, as it is typed.

    >>> list(own_keys(BalancerPart))
    ['space']
    """
    return {field.alias or key: field for key, field in model.model_fields.items() if key not in Part.model_fields}


def _split(text: str) -> list[str]:
    pieces, depth, quoted, piece = [], 0, False, ""
    for char in text:
        quoted ^= char == '"'
        if not quoted:
            depth += (char in "([{") - (char in ")]}")
        if char == "," and depth <= 0 and not quoted:
            pieces.append(piece)
            piece = ""
        else:
            piece += char
    return [p for p in [*pieces, piece] if p.strip()]


def flag_layer(
    *,
    referee: Iterable[str] | None = None,
    prior: str | None = None,
    aug: str | None = None,
    balancer: str | None = None,
    judge: str | None = None,
    keep: str | None = None,
    pick: bool = False,
    steps: int | None = None,
    views: int | None = None,
    seed: int | None = None,
    n: int | None = None,
    size: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    init: str | None = None,
    strength: float | None = None,
    mask: str | None = None,
    region: Iterable[str] | None = None,
    negative: str | None = None,
    seeds: Any = None,
    referees: Any = None,
) -> Layer:
    """The command line's short flags as the last layer; None says nothing.

    Args:
        seeds: those of the layers below, not yet checked: n without seed counts on from the first of them.
        referees: likewise: the first of them is asked again for each region.

    Raises:
        OptionError: n is below 1, the size is not of the form HxW, or a region cannot be read.
    """
    layer: Layer = {"rules": {}}
    if referee is not None:
        layer["referees"] = [parse_part(text) for text in referee]
    if region:
        layer["referees"] = _with_regions(layer.get("referees", referees), region)
    if prior is not None:
        layer["prior"] = parse_part(prior, Part)
    if negative is not None:
        layer["prior"] = merge(layer.get("prior", {}), {"options": {"negative": negative}})
    for name, value in (("image", init), ("mask", mask)):
        if value is not None:  # another file than a record's
            layer.setdefault("init", {}).update({name: value, f"{name}_sha256": ""})
    if strength is not None:
        layer.setdefault("init", {})["strength"] = strength
    if aug is not None:
        layer["augmentation"] = None if aug == "none" else parse_part(aug, Part)
    if balancer is not None:
        layer["balancer"] = parse_part(balancer, BalancerPart)
    if judge is not None:
        layer["judge"] = None if judge == "none" else parse_part(judge, JudgePart)
    if keep is not None or pick:
        own = {} if keep is None else {"keep": keep}
        layer["judge"] = {**(layer.get("judge") or {}), **own, **({"pick": True} if pick else {})}
    for name, number in (("steps", steps), ("views", views)):
        if number is not None:
            layer["rules"][name] = number
    if n is not None and not 1 <= n <= MAX_IMAGES:
        raise OptionError(f"-n {n}: ask for 1 to {MAX_IMAGES} pictures.")
    if seed is not None or n is not None:
        below = seeds[0] if isinstance(seeds, list) and seeds and isinstance(seeds[0], int) else 0
        first = below if seed is None else seed
        layer["seeds"] = list(range(first, first + (n or 1)))
    if size is not None:
        sides = re.fullmatch(r"([0-9]{1,9})x([0-9]{1,9})", size.lower())
        if not sides:
            raise OptionError(f"--size {size}: write HEIGHTxWIDTH in pixels, for example 64x64.")
        layer["height"], layer["width"] = int(sides[1]), int(sides[2])
    for name, text in (("device", device), ("dtype", dtype)):
        if text is not None:
            layer[name] = text
    return layer


def _with_regions(referees: Any, regions: Iterable[str]) -> list[Any]:
    """The panel, and for each ``x0,y0,x1,y1: prompt`` its first referee once more, which sees that part alone."""
    panel = list(referees) if isinstance(referees, (list, tuple)) else []
    if not panel or not isinstance(panel[0], dict):
        raise OptionError(
            "--region shows a part of the picture to the first referee, and there is none: add --referee."
        )
    own = {key: panel[0][key] for key in ("name", "options", "timeout") if key in panel[0]}
    taken = {part.get("label") for part in panel if isinstance(part, dict)}
    labels = (label for i in range(1, 1000) if (label := f"region-{i}") not in taken)
    for text, label in zip(regions, labels, strict=False):
        part, prompt = parse_prompted(text)
        panel.append({**own, "label": label, "region": str(part), "prompt": prompt, "weight": REGION_WEIGHT})
    return panel
