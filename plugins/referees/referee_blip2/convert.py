"""From LAVIS' published files to a folder that `model.Blip2` loads, and transformers with it.

Nothing in a file is trusted but its tensors; every name must be known, and every tensor of the network there.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from referee import weights
from referee.errors import WeightsError
from referee_blip2.architecture import empty, load_network
from referee_blip2.eva import PREFIX, from_eva, stretch
from referee_blip2.head import CaptionHead
from referee_blip2.lavis import from_lavis
from referee_blip2.model import Blip2, load_tokenizer
from referee_blip2.options import Conversion
from referee_blip2.preprocess import load_normalisation
from referee_blip2.sizes import config_of, grid_of
from referee_blip2.vocabulary import read_vocabulary, tokenizer_of

State = dict[str, Tensor]
FAULTS = (*weights.FAULTS, UnpicklingError, SafetensorError)
"""What torch and safetensors raise for files that are not theirs, or not whole."""
MEND = "What is read is LAVIS' stage-1 file, blip2_pretrained.pth, as it is published."
WORDS, POSITIONS = "embeddings.word_embeddings.weight", "vision_model.embeddings.position_embedding"


def convert(options: Conversion, folder: Path) -> None:
    """Fill the folder.

    Raises:
        WeightsError: a file cannot be read, is of something else, or lacks something.
    """
    model = _with_base(options, options.base) if options.base else _whole(options)
    model.save(folder)


def _whole(options: Conversion) -> Blip2:
    """All from LAVIS: the stage-1 file, and the vision tower from it or from EVA's file."""
    state = _tower(read_tensors(options.lavis), options)
    with _of(options.lavis, MEND):
        network, head = from_lavis(state)
    del state
    pieces = read_vocabulary(options.vocab)  # without a file it is asked of the hub: not for a checkpoint that is none
    heads = {"vision_heads": options.vision_heads, "qformer_heads": options.qformer_heads}
    with _of(options.lavis):
        config = config_of(network, **heads, padding=pieces.index("[PAD]"))
    _resize(network, config.vision_config, options.image_size)
    rows, positions = config.qformer_config.vocab_size, config.qformer_config.max_position_embeddings
    tokenizer = tokenizer_of(pieces, rows, positions)
    modules = empty(config)
    with _of(options.lavis, MEND):
        for module, tensors in zip(modules, (network, head), strict=True):
            _fill(module, tensors)
    return Blip2(*modules, tokenizer)


def _with_base(options: Conversion, base: Path) -> Blip2:
    """transformers' own conversion, which lacks nothing but the caption head."""
    content = read_tensors(options.lavis)
    with _of(options.lavis, MEND):
        state, tensors = from_lavis(content)
    network = load_network(base)
    if not torch.equal(network.embeddings.word_embeddings.weight, state[WORDS].float()):
        raise WeightsError(f"{options.lavis} is not what {base} was made of: their word embeddings differ.")
    sizes = network.config.qformer_config
    head = CaptionHead(sizes.hidden_size, sizes.vocab_size)
    with _of(options.lavis, MEND):
        _fill(head, tensors)
    if options.vocab:
        tokenizer = tokenizer_of(read_vocabulary(options.vocab), sizes.vocab_size, sizes.max_position_embeddings)
    else:
        tokenizer = load_tokenizer(base)
    return Blip2(network, head, tokenizer, *load_normalisation(base))


@contextmanager
def _of(path: Path, mend: str = "") -> Iterator[None]:
    """What is wrong with a file's tensors is said with its name."""
    try:
        yield
    except WeightsError as error:
        raise WeightsError(f"{path}: {error} {mend}".rstrip()) from error


def read_tensors(path: Path) -> State:
    """The tensors of a ``.safetensors`` file, or of one of torch's, by name; pickled code is refused and never run.

    Raises:
        WeightsError: it holds anything else, or is cut short.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # A zip is mapped, not read; what is cut short is no zip any more, and torch says so.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # torch asks to be told of pickles that it refuses
                content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except FAULTS as error:
        raise WeightsError(
            f"{path} cannot be read as tensors alone ({type(error).__name__}): it is cut short, is no checkpoint, or "
            "holds code, which is never run. Fetch it again from where it is published."
        ) from error
    for outer in ("model", "module", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(outer), Mapping):
            content = content[outer]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise WeightsError(f"{path} is no table of tensors by name: not a checkpoint of LAVIS' or EVA's.")
    return {str(name): tensor for name, tensor in content.items()}


def _tower(state: State, options: Conversion) -> State:
    """The state dict with a vision tower, wherever it comes from."""
    whole = any(name.startswith(PREFIX) for name in state)
    if whole and options.eva:
        raise WeightsError(f"{options.lavis} has its own vision tower: leave --eva out.")
    if options.eva:
        return state | from_eva(read_tensors(options.eva), options.eva_blocks)
    if not whole and "ln_vision.weight" in state:
        raise WeightsError(
            f"{options.lavis} holds no vision tower, as LAVIS' stage-1 file does not: fetch eva_vit_g.pth, which LAVIS "
            "publishes beside it, and say --eva eva_vit_g.pth."
        )
    return state


def _resize(state: State, vision: Any, image_size: int | None) -> None:
    if image_size is None:
        return
    side = image_size // vision.patch_size
    if side < 1:
        raise WeightsError(f"--image-size {image_size} is smaller than a patch, {vision.patch_size} pixels.")
    if side != grid_of(state):
        state[POSITIONS] = stretch(state[POSITIONS], side)
    vision.image_size = image_size


def _fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put tensors into a module as float32, all and no others."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            found = given.get(name, "missing")
            fits = wanted.get(name, "nothing of that name")
            raise WeightsError(f"{name} (in transformers' names) is {found} where {fits} is expected.")
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
