"""What can be set about the balancers, and the checks that need no torch."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from referee.errors import PluginError


class SmoothOptions(BaseModel):
    """Of `smooth`."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    decay: float = Field(default=0.9, ge=0, lt=1, description="of the running mean of a gradient's length, per step")
    clip: float = Field(default=3.0, ge=1, description="length over running mean is held within 1/clip and clip")


class TorchjdOptions(BaseModel):
    """Of `torchjd`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="an aggregator, as torchjd.aggregation calls it: UPGrad, CAGrad, ...")
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="what its constructor takes, as a table: {c = 0.5}; lists become tensors"
    )


def check_torchjd(options: TorchjdOptions) -> None:
    """See whether the library is there.

    Raises:
        PluginError: with the command that installs it.
    """
    if find_spec("torchjd") is None:
        raise PluginError("torchjd is not installed. Try: pip install 'vlm-referee[torchjd]'")
