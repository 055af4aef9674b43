"""From options to an open_clip model and its tokenizer; every weight must be in the file."""

from __future__ import annotations

from typing import Any

import open_clip

from referee.errors import OptionError, WeightsError, nearest
from referee_clip.options import Options, source


def load(options: Options) -> tuple[Any, Any]:
    """(model, tokenizer), float32 whatever is stored, on the CPU, in evaluation mode.

    Raises:
        OptionError: open_clip knows no such name, or no such weights for it.
        WeightsError: the folder or the download cannot be loaded.
    """
    name = source(options)
    if options.pretrained:
        _check_name(options)
    try:
        model = open_clip.create_model(name, options.pretrained or None, require_pretrained=True)
        tokenizer = open_clip.get_tokenizer(name)
    except (OSError, ValueError, RuntimeError, TypeError, KeyError) as error:
        raise WeightsError(f"open_clip cannot load {name}: {error}") from error
    return model.eval(), tokenizer


def _check_name(options: Options) -> None:
    if options.model not in (names := open_clip.list_models()):
        raise OptionError(f"open_clip has no model called '{options.model}'. {nearest(options.model, names)}")
    tags = open_clip.list_pretrained_tags_by_model(options.model)
    if options.pretrained not in tags:
        known = nearest(options.pretrained, tags)
        raise OptionError(f"open_clip has no weights '{options.pretrained}' for {options.model}. {known}")
