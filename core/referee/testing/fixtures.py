"""Fixtures for the tests of a plug-in. In its conftest.py: ``pytest_plugins = ["referee.testing.fixtures"]``.

They are not loaded into every pytest run of an environment (no entry point ``pytest11``): most runs there have nothing
to do with this project, ``registry`` is a name that others use, too, and a plug-in that pytest loads at its start is
imported before coverage can see it. Importing this module imports no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from referee.plugins import Registry

if TYPE_CHECKING:
    from referee.contract import Image
    from referee.testing.toys import ToyPrior


@pytest.fixture
def registry() -> Registry:
    """A registry with nothing in it: no installed plug-in can get in a test's way. Fill it with ``registry.add``."""
    return Registry()


@pytest.fixture
def toy_prior() -> ToyPrior:
    """A prior without a model: a latent decoded by smooth upsampling, pulled towards grey."""
    from referee.testing.toys import ToyPrior

    return ToyPrior()


@pytest.fixture
def toy_image() -> Image:
    """One colourful picture (1, 3, 64, 64) in [0.05, 0.95], always the same."""
    from referee.testing.probe import pictures

    return pictures(1, 64, 64)
