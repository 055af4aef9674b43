"""What can be set about the two benches, and the checks that need no model library."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from referee.bench.contract import SELECTS
from referee.errors import OptionError, WeightsError
from referee.weights import check_folder

Suite = Literal["color", "shape", "texture", "spatial", "non_spatial", "complex"]
SUITES: tuple[Suite, ...] = ("color", "shape", "texture", "spatial", "non_spatial", "complex")
ATTRIBUTES: frozenset[str] = frozenset({"color", "shape", "texture"})
MEASURES: dict[str, frozenset[str]] = {
    "vqa": ATTRIBUTES | {"complex"},
    "detector": frozenset({"spatial", "complex"}),
    "clip": frozenset({"non_spatial", "complex"}),
}
"""The suites that each of the benchmark's models measures; no other needs it."""
QUESTION = 'Does this figure show "{prompt}"? Please answer yes or no.'
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
KINDS = {"vqa": {"blip"}, "detector": {"owlv2", "owlvit"}}
"""``model_type`` that a folder's configuration may have."""


def _place(given: object) -> object:
    """A folder as a path, which is each machine's own; an id as it is."""
    return Path(given).expanduser() if isinstance(given, str) and given and Path(given).expanduser().is_dir() else given


Model = Annotated[Path | str, BeforeValidator(_place)]
"""A folder, or a name under which a model is known elsewhere; "" for none."""


def _words(given: object) -> object:
    """``color+shape``, as it is typed easily, or a list."""
    return [word for word in re.split(r"[+,\s\[\]\"']+", given) if word] if isinstance(given, str) else given


class _Judged(BaseModel):
    """What both benches have."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    prompts: int = Field(0, ge=0, description="only the first so many of each suite; 0: all", json_schema_extra=SELECTS)
    detector: Model = Field(
        "google/owlv2-base-patch16-ensemble",
        description="folder or hub id of a transformers OWLv2 or OWL-ViT; '' leaves out what it measures",
    )
    line: str = Field(
        "a photo of a {name}", pattern=re.escape("{name}"), description="what the detector reads of a thing's name"
    )
    confidence: float = Field(0.2, ge=0, lt=1, description="above which a thing counts as found; by OWL's own scores")
    vlm: Model = Field(
        "", description="folder or hub id of a transformers image-text-to-text model that is asked yes or no; '': none"
    )
    question: str = Field(QUESTION, pattern=re.escape("{prompt}"), description="what it is asked; VQAScore's")


class CompBenchOptions(_Judged):
    """T2I-CompBench: where its prompts are, and what measures the pictures."""

    path: Path = Field(description="folder of the official prompt files: color_val.txt, ..., complex_val_spatial.txt")
    suites: Annotated[tuple[Suite, ...], BeforeValidator(_words)] = Field(
        SUITES, min_length=1, description="which of them, joined by +", json_schema_extra=SELECTS
    )
    colors: Path | None = Field(
        None, description="another file than color_val.txt, such as that of before September 2025"
    )
    vqa: Model = Field(
        "Salesforce/blip-vqa-capfilt-large",
        description="folder or hub id of a transformers BlipForQuestionAnswering; '' leaves out what it measures",
    )
    vqa_size: Literal[384, 480, 0] = Field(480, description="side of BLIP's images; the benchmark's: 480; 0: its own")
    clip: Model = Field(
        "ViT-B-32-quickgelu:openai",
        description="open_clip's NAME:TAG, hf-hub:OWNER/NAME, or a folder; '' leaves out what it measures",
    )
    phrases: Path | None = Field(None, description="JSON file of what each prompt names, see docs/t2i-compbench.md")
    parser: Literal["auto", "spacy", "template"] = Field(
        "auto", description="what reads the other prompts: spaCy's small English model, as the benchmark, or templates"
    )
    most: int = Field(8, ge=1, description="phrases of a prompt that count; before December 2023: 2")


class GenEvalOptions(_Judged):
    """GenEval: where its prompts are, and what measures the pictures."""

    path: Path = Field(description="the official JSONL file of structured prompts, evaluation_metadata.jsonl")
    confidence: float = Field(0.3, ge=0, lt=1, description="above which a thing counts as found; by OWL's own scores")
    counting: float = Field(0.3, ge=0, lt=1, description="the same for prompts that count")
    clip: Model = Field(
        "ViT-L-14-quickgelu:openai", description="what tells colours: open_clip's NAME:TAG, hf-hub:OWNER/NAME, a folder"
    )


def check_compbench(options: CompBenchOptions) -> None:
    """Look at the files before anything is loaded.

    Raises:
        OptionError: nothing is left to measure with, a prompt file is missing or of the wrong kind, or spaCy is asked
            for and not there.
        WeightsError: a model is not on this machine, or of another kind.
    """
    from referee_compbench.phrases import read_given, spacy_is_here
    from referee_compbench.prompts import read_suites

    if not any((options.vqa, options.detector, options.clip, options.vlm)):
        raise OptionError("t2i-compbench has nothing to measure with: vqa, detector, clip and vlm are all left out.")
    read_suites(options)
    if options.phrases is not None:
        read_given(options.phrases)
    if options.parser == "spacy" and not spacy_is_here():
        raise OptionError(
            "parser=spacy needs spaCy and its model en_core_web_sm, and they are not installed here. Both come from "
            "spaCy's own site, see docs/t2i-compbench.md; or give the phrases as data (phrases=FILE)."
        )
    used = {option: getattr(options, option) if option in _wanted(options) else "" for option in MEASURES}
    if not any((*used.values(), options.vlm)):
        raise OptionError(
            f"t2i-compbench has nothing to measure {', '.join(options.suites)} with: {' and '.join(_wanted(options))} "
            "is left out."
        )
    for option in ("vqa", "detector"):
        if used[option]:
            check_model(used[option], option)
    if used["vqa"]:
        _check_size(options)
    _check_others(used["clip"], options.vlm)


def _wanted(options: CompBenchOptions) -> list[str]:
    """The models that the suites are measured with."""
    return [option for option, suites in MEASURES.items() if set(options.suites) & suites]


def check_geneval(options: GenEvalOptions) -> None:
    """Look at the files before anything is loaded.

    Raises:
        OptionError: nothing is left to measure with, colours cannot be told, or the prompt file is missing or of the
            wrong kind.
        WeightsError: a model is not on this machine, or of another kind.
    """
    from referee_compbench.prompts import read_tasks

    if not options.detector and not options.vlm:
        raise OptionError("geneval has nothing to measure with: detector and vlm are both left out.")
    if options.detector and not options.clip:
        raise OptionError("geneval tells colours by CLIP: say clip=ViT-L-14-quickgelu:openai, or a folder.")
    read_tasks(options.path)
    if options.detector:
        check_model(options.detector, "detector")
    _check_others(options.clip if options.detector else "", options.vlm)


def folder_of(given: Path | str, option: str) -> Path:
    """A model's folder: as given, or of the hub's cache on this machine. Nothing is fetched.

    Raises:
        WeightsError: there is no such folder, or the hub's repository was never fetched.
    """
    folder = Path(given).expanduser()
    if folder.is_dir() or not HUB_ID.fullmatch(str(given)):
        check_folder(folder, (), mend=f"{option}= wants a folder, or OWNER/NAME on the hub.")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(given), local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise WeightsError(
            f"{given} ({option}) is not on this machine. Once, where there is a network: hf download {given}; or say "
            f"{option}=FOLDER, or {option}='' to do without what it measures."
        ) from error


def check_model(given: Path | str, option: str) -> dict[str, Any]:
    """Look at a transformers folder; its configuration.

    Raises:
        WeightsError: a file is missing or cut short, or it is of another kind.
    """
    folder = folder_of(given, option)
    mend = f"{option}= wants a folder of transformers with config.json, *.safetensors and a tokenizer."
    check_folder(folder, ("config.json",), mend=mend)
    check_folder(folder, [path.name for path in folder.glob("*.safetensors")] or ["model.safetensors"], mend=mend)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        kind = config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / 'config.json'} is no configuration: {error}. {mend}") from error
    wanted = KINDS.get(option)
    if wanted and kind not in wanted:
        raise WeightsError(f"{folder} holds a model of type '{kind}', not {' or '.join(sorted(wanted))}. {mend}")
    return dict(config)


def clip_options(given: Path | str) -> Any:
    """What the plug-in `clip` makes of an option: a folder, hf-hub:OWNER/NAME, or open_clip's NAME:TAG."""
    from referee_clip.options import HUB, Options

    if isinstance(given, Path) or given.startswith(HUB):
        return Options(model=str(given))
    name, _, tag = given.partition(":")
    return Options(model=name, pretrained=tag)


def _check_size(options: CompBenchOptions) -> None:
    vision = check_model(options.vqa, "vqa").get("vision_config") or {}
    patch = vision.get("patch_size", 16)  # transformers' default, which old folders do not write down
    if options.vqa_size % patch:
        raise OptionError(
            f"vqa_size is {options.vqa_size}, which is no multiple of this BLIP's patches of {patch} pixels."
        )


def _check_others(clip: Path | str, vlm: Path | str) -> None:
    from referee_clip.options import check

    if clip:
        chosen = clip_options(clip)
        check(chosen)
        if chosen.pretrained == "openai" and not chosen.model.endswith("-quickgelu"):
            raise OptionError(
                f"clip={clip}: OpenAI's weights were trained with another activation than open_clip's {chosen.model} "
                f"has, and all numbers would be wrong: say clip={chosen.model}-quickgelu:openai."
            )
    if vlm:
        check_model(vlm, "vlm")
