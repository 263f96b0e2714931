"""A lab on the embedded model with a residual so many times as long."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from helpers.engine.longer import longer_model, longer_sae
from helpers.loading import models, saes


@contextmanager
def scaled_organism(factor: float) -> Iterator[None]:
    """Inside, a lab that is opened on the organism gets the scaled pair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("helpers.lab.lab.load_model", lambda *args: longer_model(models.load_model(*args), factor))
        patch.setattr("helpers.lab.lab.load_sae", lambda *args: longer_sae(saes.load_sae(*args), factor))
        yield
