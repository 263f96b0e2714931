"""Residuals are the same wherever they are kept, are computed no oftener than the bounds allow, and leave nothing."""

import logging
from pathlib import Path

import pytest
import torch

from helpers.engine.forward import residual_after
from helpers.engine.residuals import Residuals
from helpers.profiles import CacheSettings
from helpers.text.batches import batches
from tests.toy import D_MODEL, LAYER, toy_model

# five batches of one row of 4096 tokens, 256 kB each: four are a megabyte
ROWS = torch.arange(5 * 4096).view(5, 4096) % 1000 + 10
PER_MEGABYTE = 4


@pytest.fixture(scope="module")
def model():
    return toy_model(layers=2)


@pytest.fixture
def computed(monkeypatch):
    """The batches whose residual is computed, as they are."""
    ran = []

    def stand_in(model, batch, layer):
        ran.append(int(batch.rows))
        return (batch.ids[..., None] * torch.ones(D_MODEL)).float() + layer

    monkeypatch.setattr("helpers.engine.residuals.residual_after", stand_in)
    return ran


def kept_with(model, memory_mb, disk_mb):
    return Residuals(model, batches(ROWS, 1, 0), LAYER, CacheSettings(memory_mb, disk_mb))


def test_it_is_the_residual_after_the_layer(model):
    rows = [list(range(2, 20)), list(range(5, 12))]
    kept = Residuals(model, batches(rows, 1, 0), LAYER, CacheSettings(1, 0))
    for i, batch in enumerate(kept.batches):
        assert torch.equal(kept[i], residual_after(model, batch, LAYER))
        assert torch.equal(kept[i], residual_after(model, batch, LAYER))


@pytest.mark.parametrize(("memory_mb", "disk_mb", "again"), [(2, 0, 0), (1, 0, 1), (1, 1, 0), (0, 1, 1), (0, 0, 5)])
def test_what_fits_nowhere_is_computed_again_and_equal(model, computed, memory_mb, disk_mb, again):
    kept = kept_with(model, memory_mb, disk_mb)
    first = [kept[i].clone() for i in range(5)]
    assert computed == list(range(5))
    second = [kept[i] for i in range(5)]
    assert len(computed) == 5 + again
    assert all(map(torch.equal, first, second))
    assert len(kept._memory) == min(5, memory_mb * PER_MEGABYTE)
    assert len(kept._files) == min(5 - len(kept._memory), disk_mb * PER_MEGABYTE)


@pytest.mark.parametrize("fault", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:5000])])
def test_a_lost_or_broken_file_is_said_and_computed_again(model, computed, caplog, fault):
    kept = kept_with(model, 0, 2)
    first = [kept[i].clone() for i in range(5)]
    fault(kept._files[3])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(kept[3], first[3])
    assert computed[5:] == [3]
    assert "batch 3 cannot be read back" in caplog.text
    assert torch.equal(kept[3], first[3]) and computed[5:] == [3]


def test_the_files_go_with_it(model, computed):
    kept = kept_with(model, 0, 2)
    folder = Path(kept[0] is not None and kept._folder.name)
    assert len(list(folder.iterdir())) == 1
    del kept
    assert not folder.exists()
