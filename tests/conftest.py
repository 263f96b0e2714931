"""Fixtures shared by the tests; the model is loaded only where a test asks for it, once for all of them."""

import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests import forked

# before matplotlib, huggingface_hub and torch are imported anywhere: no screen, no network, and one thread, for tests
# run in several processes at once (pytest -n), and the profile tiny computes with one
os.environ["MPLBACKEND"] = "Agg"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def profile() -> Any:
    """The profile of the embedded model."""
    from helpers.profiles import load_profile

    return load_profile("tiny")


@pytest.fixture(scope="session")
def model(profile: Any) -> Any:
    """The embedded model. Shared by all tests: one that trains weights must copy it first."""
    from helpers.loading.models import load_model

    return load_model(profile)


@pytest.fixture(scope="session")
def sae(profile: Any) -> Any:
    """The embedded model's SAE."""
    from helpers.loading.saes import load_sae

    return load_sae(profile)


@pytest.fixture(scope="session")
def run_forked() -> Iterator[Any]:
    """Runs a module in a process with the environment it is given (tests.forked); for tests marked FORKED."""
    with forked.server() as run:
        yield run
