"""The full-size zoos: published checkpoints on the Hugging Face hub, as data. Importing this package imports neither
torch nor huggingface_hub.

``zoos/NAME.toml`` says which files of which repository, with sizes and sums; ``presets/NAME.toml`` the settings that
suit them; ``configs/NAME.json`` how the models are built (`architecture`). A zoo more is three files more.
"""

from __future__ import annotations

from collections.abc import Callable

from referee.hooks import ZooSpec, hookimpl

from .architecture import architecture
from .catalogue import names, zoo

__all__ = ["architecture", "names", "zoo"]


@hookimpl
def referee_zoos(register: Callable[[ZooSpec], None]) -> None:
    for name in names():
        register(zoo(name))
