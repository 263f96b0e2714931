"""What a clamp strength of 1 is: an activation, a feature's own mean, or the length of the residual."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from helpers.engine.features import residual_norm
from helpers.engine.forward import residual_after
from helpers.engine.longer import longer_model, longer_sae
from helpers.engine.scoring import row_batches
from helpers.experiments.clamp_units import ABSOLUTE, RELATIVE, clamp_units
from helpers.lab.lab import Lab, open_lab
from helpers.methods.dsg import DSG
from helpers.methods.static_clamp import StaticClamp
from tests.families import family_model
from tests.scaled import scaled_organism
from tests.small import SMALL
from tests.toy import LAYER, toy_model, toy_sae

LONGER = 100.0
FEATURES, STRENGTH = 20, 3.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("clamp_unit")


def opened(folder: Path, unit: str) -> Lab:
    sizes = {"texts.forget_rows": 64, "texts.retain_rows": 96, "questions.limit": 12, "clamp_unit": unit}
    return open_lab("tiny", "09_lab", str(folder / "runs"), str(folder / "figures"), SMALL | sizes)


def rows(lab: Lab, strength: float) -> pd.DataFrame:
    """What is left under Farrell's clamp and under DSG's, at a strength in the lab's unit."""
    scores = lab.sweep([StaticClamp(FEATURES, strength), DSG(FEATURES, strength)])
    return pd.concat([one.table for one in scores], keys=["static", "dsg"])


def lost(table: pd.DataFrame, method: str, role: str) -> int:
    of = table.loc[method]
    return int((of["n"] - of["right"])[of["role"] == role].sum())


@torch.no_grad()
def test_the_residuals_norm_is_the_mean_over_tokens_that_are_not_special():
    model, texts = toy_model(), [[2, 10, 11, 12, 13], [2, 14, 1, 15]]  # 2 is BOS, 1 is EOS
    states = [residual_after(model, next(row_batches(model, [row], 100)), LAYER)[0] for row in texts]
    norms = [*states[0][[1, 2, 3, 4]].norm(dim=-1).tolist(), *states[1][[1, 3]].norm(dim=-1).tolist()]
    for tokens in (100, 5):  # in one padded batch, or a row at a time
        assert residual_norm(model, LAYER, texts, tokens) == pytest.approx(sum(norms) / 6, rel=1e-6)
    with pytest.raises(ValueError, match="norm needs text: there are special tokens only"):
        residual_norm(model, LAYER, [[2, 1, 1]], 100)


def test_a_strength_of_one_moves_the_residual_by_its_own_length_whatever_the_decoders_are(folder):
    lab = opened(folder, "residual norm")
    norm = residual_norm(lab.model, lab.profile.sae.layer, lab.retain_rows, 2048)
    assert lab.clamp_unit == pytest.approx(norm, rel=1e-5)  # the organism's decoder rows have length 1
    assert opened(folder, "absolute").clamp_unit == 1.0
    forget, chosen = lab.firing_rates()[0], lab.selections()["sparsity"]
    by_mean = opened(folder, "mean activation").clamp_unit
    assert by_mean == pytest.approx((forget["mean"] / forget["firing_rate"])[chosen].mean())
    with torch.no_grad():
        lab.sae.W_dec.mul_(4)
    view = lab.given(lab.forget_documents)
    assert view.clamp_unit == pytest.approx(norm / 4, rel=1e-5)


def test_with_a_residual_a_hundred_times_as_long_only_relative_strengths_do_the_same(folder):
    lab = opened(folder, "residual norm")
    unit, relative = lab.clamp_unit, rows(lab, STRENGTH)
    assert lost(relative, "static", "forget") > 2 and lost(relative, "dsg", "forget") > 2
    absolute = rows(opened(folder, "absolute"), STRENGTH * unit)
    pd.testing.assert_frame_equal(absolute, relative)  # one clamp in two units
    with scaled_organism(LONGER):
        longer = opened(folder, "residual norm")
        assert longer.clamp_unit == pytest.approx(LONGER * unit, rel=1e-4)
        again = rows(longer, STRENGTH)
        useless = rows(opened(folder, "absolute"), STRENGTH * unit)
    pd.testing.assert_frame_equal(again, relative, atol=1e-4, rtol=1e-4)
    assert lost(useless, "static", "forget") == lost(useless, "dsg", "forget") == 0
    assert useless.loc["static", "loss_added"].max() < relative.loc["static", "loss_added"].max() / 20


def test_notebook_13_shows_it_on_a_copy_in_one_lab(folder):
    lab = opened(folder, "residual norm")
    before = {name: weight.clone() for name, weight in lab.sae.state_dict().items()}
    table = clamp_units(lab, DSG(FEATURES, STRENGTH)).set_index(["longer", "unit"])
    right = {key: table.loc[key, "right"].tolist() for key in table.index.unique()}
    assert right[1, ABSOLUTE] == right[1, RELATIVE] == right[LONGER, RELATIVE] != right[LONGER, ABSOLUTE]
    assert (table.loc[(LONGER, ABSOLUTE), "accuracy"] == 1).all() and right[1, ABSOLUTE][-1] < right[1, ABSOLUTE][0]
    own, norms = table[table["chosen"]], table.loc[(1, RELATIVE), "moved"].tolist()
    assert own.loc[(1, RELATIVE), "strength"] == pytest.approx(STRENGTH, rel=0.05)  # the norm is of fewer rows
    assert table.loc[(1, ABSOLUTE), "moved"].tolist() == table.loc[(1, RELATIVE), "strength"].tolist() == norms
    assert table.loc[(LONGER, ABSOLUTE), "moved"].tolist() == pytest.approx([n / LONGER for n in norms], rel=1e-4)
    assert all(torch.equal(before[name], weight) for name, weight in lab.sae.state_dict().items())


def test_a_residual_that_cannot_be_made_longer_is_refused():
    with pytest.raises(ValueError, match="of a 'llama' model cannot be made longer, that of gemma2, gemma3_text can"):
        longer_model(family_model("Llama 3.1"), 2.0)
    sae = toy_sae()
    del sae.threshold
    with pytest.raises(ValueError, match="without thresholds"):
        longer_sae(sae, 2.0)
