"""For the core's tests: torch on one thread, and property tests that try the same examples each time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import settings

# No deadline: what a slow machine does is no fault. `--hypothesis-profile=default` tries other examples at each call.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)
