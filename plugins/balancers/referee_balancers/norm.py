"""The mean of the unit rows: what core does if no balancer is named. See `referee.balance`."""

from __future__ import annotations

from referee.balance import norm as rule

__all__ = ["rule"]
