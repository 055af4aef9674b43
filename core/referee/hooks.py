"""The hooks that a plug-in may implement, and the light specs that it registers through them.

A plug-in is a module with one entry point in the group ``referee``. It must import fast: no torch, no model library
until a factory is called. A whole one:

    import pydantic
    from referee.hooks import Place, Spec, hookimpl

    class Options(pydantic.BaseModel, extra="forbid", frozen=True):
        colour: str = pydantic.Field("red", description="the colour it likes")

    def make(options: Options, place: Place):
        from .referee import ColourReferee          # imports torch: only now
        return ColourReferee(options.colour, place.device)

    @hookimpl
    def referee_referees(register):
        register(Spec("hello", "likes a colour", make, Options))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from referee.inversion import Step

PROJECT = "referee"
"""Name of the pluggy project and of the entry-point group."""

API_VERSION = 1
"""The version of these hooks. It goes up when a hook goes or means something else, not when one gains an argument: a
plug-in names only the arguments that it uses. A plug-in module may say which version it was written for,
``REFEREE_API = 1``; one that does not fit is listed as failed, with the mend."""

HEAVY = frozenset(
    {"torch", "torchvision", "numpy", "transformers", "diffusers", "open_clip", "kornia", "timm", "scipy", "cv2",
     "sklearn", "tensorflow", "jax"}
)  # fmt: skip
"""Libraries that a plug-in's module must not import: it is read whenever the command starts."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class NoOptions(BaseModel):
    """For parts that have nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a part computes: a torch device and dtype by name, so that specs need no torch.

    Args:
        device: torch's name.
        dtype: float32, bfloat16 or float16.
        weights: if False, only sizes are asked for (`referee plan`): the part is built as its configuration files say,
            and reads no weights, which may not be on the disk. Tensors made by the factory then have no numbers
            (torch's FakeTensorMode); a part without weights need not look at this.
    """

    device: str = "cpu"
    dtype: str = "float32"
    weights: bool = True


@dataclass(frozen=True, slots=True)
class Spec:
    """One part that a plug-in offers: its name on the command line, and how it is made.

    Args:
        name: as typed, e.g. ``--referee NAME``; lower case, digits and dashes.
        summary: half a line for ``referee plugins``.
        factory: called once per run with the validated options and the place; may import what it likes.
        options: a frozen pydantic model; its field descriptions are the help: `referee plugins show NAME`.
        check: looks at the options before any model loads (files there, sizes sane); raises RefereeError.
        words: the texts among the options that its model will read, e.g. a negative prompt. A zoo that knows few words
            refuses the others, as it does for the prompt.
        families: of a referee: whose kin its models are ("clip", "blip"); its name if not given. Kin share blind spots,
            so a judge should be of another family than those who play.
        check_prompt: of a referee: raises PromptError for what it cannot judge by, before any model loads.
        bare: the option that a word without = is taken for: with "name", ``part:UPGrad`` is ``part:name=UPGrad``.
    """

    name: str
    summary: str
    factory: Callable[[Any, Place], Any]
    options: type[BaseModel] = NoOptions
    check: Callable[[Any], None] | None = None
    words: Callable[[Any], Sequence[str]] | None = None
    families: Sequence[str] = ()
    check_prompt: Callable[[str], None] | None = None
    bare: str = ""


@dataclass(frozen=True, slots=True)
class ZooFile:
    """One file of a checkpoint, as it was published.

    Args:
        name: relative to the checkpoint's folder, with slashes.
        size: bytes; None if nobody said.
        sha256: hexadecimal; "" if nobody said.
    """

    name: str
    size: int | None = None
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Files of a zoo that belong together, and the parts that they are for.

    Args:
        name: within its zoo, for ``referee zoo get ZOO NAME`` and, as ``zoo:NAME``, in a part's option.
        folder: where the files lie on this machine, or will; nothing needs to be there yet.
        files: all that a run reads.
        options: for each part by name, the options that point it to these files, unless the person sets them. They are
            places on a disk, so a run's record leaves them out; other options belong into a preset.
        source: where it is published, ``repository@revision``; "" if it cannot be fetched.
        licence: of the weights, by its name.
        note: what one should know before fetching or using it.
        mend: what to type if a file is missing or broken.
        optional: ``referee zoo get ZOO`` leaves it out unless it is named.
        outline: the small files of which a part can be built without weights, as text by name; for `referee plan`,
            where the files are not here. None if nobody wrote them down.
        thrift: for each part by name, the options with which it takes less memory by means of these files.
    """

    name: str
    folder: Path
    files: tuple[ZooFile, ...] = ()
    options: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    source: str = ""
    licence: str = ""
    note: str = ""
    mend: str = ""
    optional: bool = False
    outline: Callable[[], Mapping[str, str]] | None = None
    thrift: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ZooSpec:
    """A named set of checkpoints for plug-ins that are there anyway.

    Args:
        name: as typed, ``--zoo NAME``.
        summary: half a line for ``referee plugins``.
        preset: the name of the settings that suit it; see ``presets``.
        checkpoints: called when they are asked for, as only a run knows where a cache lies. Files are checked by name
            and size before any model loads, if a part is pointed to them.
        presets: settings that the zoo brings, as TOML text by name.
        check_prompt: raises PromptError for what its models cannot read or draw.
        get: fetches a checkpoint's files, shows how far it is, and raises WeightsError; None if they come otherwise.
    """

    name: str
    summary: str
    preset: str
    checkpoints: Callable[[], Sequence[Checkpoint]] = tuple
    presets: Mapping[str, str] = field(default_factory=dict)
    check_prompt: Callable[[str], None] | None = None
    get: Callable[[Checkpoint], None] | None = None


@dataclass(frozen=True, slots=True)
class ConverterSpec:
    """Makes a folder that a plug-in loads of a checkpoint that it does not: ``referee convert NAME --out DIR``.

    A whole one, as a single file for ``referee convert --plugin FILE``:

        from pathlib import Path
        import pydantic
        from referee.errors import WeightsError
        from referee.hooks import ConverterSpec, hookimpl

        class Options(pydantic.BaseModel, extra="forbid", frozen=True):
            file: Path = pydantic.Field(description="a line of numbers")   # becomes --file
            scale: float = pydantic.Field(1.0, description="what they are multiplied with")

        def check(options: Options):
            if not options.file.is_file():
                raise WeightsError(f"There is no file {options.file}.")

        def convert(options: Options, folder: Path):
            import json                                    # a model library, rather: only now
            numbers = [options.scale * float(word) for word in options.file.read_text().split()]
            (folder / "numbers.json").write_text(json.dumps(numbers))

        @hookimpl
        def referee_converters(register):
            register(ConverterSpec("numbers", "a line of numbers to a folder", convert, Options, check))

    Args:
        name: as typed; lower case, digits and dashes. That of the part that loads the folder is a good one.
        summary: a line for ``referee convert --help``.
        convert: called with the validated options and an empty folder, which it fills. The folder becomes --out
            only when it returns; if it raises, nothing is left.
        options: a frozen pydantic model; each field is an option of the command.
        check: looks at the options before anything is loaded; raises RefereeError.
    """

    name: str
    summary: str
    convert: Callable[[Any, Path], None]
    options: type[BaseModel] = NoOptions
    check: Callable[[Any], None] | None = None


Register = Callable[[Spec], None]


class Hooks:
    """The hook specifications. Every hook takes keyword arguments; a plug-in names only those it uses."""

    @hookspec
    def referee_referees(self, register: Register) -> None:
        """Offer referees: ``register(Spec(...))`` whose factory returns a `referee.contract.Referee`."""

    @hookspec
    def referee_priors(self, register: Register) -> None:
        """Offer priors: the factory returns a `referee.contract.Prior`."""

    @hookspec
    def referee_augmentations(self, register: Register) -> None:
        """Offer augmentations: the factory returns a `referee.contract.Augmentation`."""

    @hookspec
    def referee_balancers(self, register: Register) -> None:
        """Offer balancing rules: the factory returns a `referee.contract.Balancer`."""

    @hookspec
    def referee_zoos(self, register: Callable[[ZooSpec], None]) -> None:
        """Offer zoos: ``register(ZooSpec(...))``."""

    @hookspec
    def referee_converters(self, register: Callable[[ConverterSpec], None]) -> None:
        """Offer converters of checkpoints: ``register(ConverterSpec(...))``."""

    @hookspec
    def referee_benches(self, register: Register) -> None:
        """Offer benches: ``register(Spec(...))`` whose factory returns a `referee.bench.contract.Bench`.

        A whole one, as a single file for ``referee bench bright --plugin FILE``:

            import pydantic
            from referee.bench.contract import Column, Item
            from referee.hooks import Spec, hookimpl

            class Options(pydantic.BaseModel, extra="forbid", frozen=True):
                n: int = pydantic.Field(2, ge=1, le=3, description="prompts")

            class Bright:
                columns = {"bright": Column("brightness", proportion=True)}

                def __init__(self, n):
                    self.n = n

                def items(self):
                    colours = ("red", "yellow", "black")[: self.n]
                    return [Item(i, f"a {colour} circle", "circles") for i, colour in enumerate(colours)]

                def methods(self):
                    return {"plain": {"draw": "sample"}, "short": {"rules": {"steps": 20}}}

                def score(self, image, item, seed):
                    return {"bright": image.mean().item()}

            @hookimpl
            def referee_benches(register):
                register(Spec("bright", "how bright circles are", lambda options, place: Bright(options.n), Options))
        """

    @hookspec
    def referee_step(self, step: Step) -> None:
        """Observe each step of the command's runs, after it: log it, draw it. What is returned is ignored.

        A whole one, as a single file for ``referee generate --plugin FILE``:

            from referee.hooks import hookimpl

            @hookimpl
            def referee_step(step):
                if step.losses:
                    means = {name: round(losses.mean().item(), 3) for name, losses in step.losses.items()}
                    print(step.k, means)
        """
