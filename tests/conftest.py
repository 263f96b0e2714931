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

# Files whose tests share a server of processes (tests.forked).
FORKED = ("test_over_hub.py", "test_doctor.py", "test_first_contact.py")
# What takes longest, so that no process is left alone with it at the end.
FIRST = (*FORKED, "test_site.py", "test_plots.py", "test_pieces.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Under `pytest -n` a file's tests are run by one process, for they share fixtures; so are those of FORKED.

    xdist's own `--dist loadfile` knows no groups of files, and with pytest 9.2 its `loadgroup` has no effect
    (pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "forked" if file.endswith(FORKED) else file

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Under `pytest -n` what takes longest comes first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: FIRST.index(item.path.name) if item.path.name in FIRST else len(FIRST))


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
    """Runs a module in a process with the environment it is given (tests.forked); for tests of files in FORKED."""
    with forked.server() as run:
        yield run
