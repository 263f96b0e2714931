"""Notebook 14's numbers: gradients by autograd, effects by a brute-force clamp, AUC by counting pairs."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.forward import residual_after
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import answer_probabilities
from helpers.experiments import theorems
from helpers.text.questions import ORIGINAL_ORDER, right_letters
from tests.test_features import one
from tests.toy import LAYER, NEUTRAL, toy_knowledge, toy_model, toy_sae

SAE, MODEL = toy_sae(), toy_model()


def test_the_squared_gradient_is_autograds_token_by_token():
    table = theorems.fisher_scores(MODEL, SAE, NEUTRAL, 100, (1.0, 2.0))
    with torch.no_grad():
        x = torch.cat([residual_after(MODEL, one(row), LAYER)[0] for row in NEUTRAL.tolist()])
        kept = ~torch.isin(NEUTRAL.flatten(), torch.tensor(MODEL.tokenizer.all_special_ids))
    for scale in (1.0, 2.0):
        squares = []
        for token in x[kept]:
            decoder = (SAE.W_dec * scale).detach().clone().requires_grad_()
            loss = (token - SAE.b_dec - SAE.encode(token) @ decoder).square().sum()
            squares.append(torch.autograd.grad(loss, decoder)[0].square().sum(dim=1))
        found = table.loc[table["scale"] == scale, "fisher"]
        np.testing.assert_allclose(found, torch.stack(squares).mean(dim=0), rtol=1e-4, atol=1e-7)


def test_a_proportional_moment_has_slope_one_and_misses_nothing():
    square = np.array([0.0, 1e-4, 1e-2, 1.0, 5.0])
    scores = pd.DataFrame({"mean_square": square, "fisher": 3 * square, "lost": 0.1, "layer": 1, "text": "forget text",
                           "scale": 1.0})  # fmt: skip
    row = theorems.fisher_fits(scores, 50).iloc[0]
    assert row["n"] == 4 and row["missed"] == pytest.approx(0)
    assert [row["slope"], row["r"], row["spearman"]] == pytest.approx([1, 1, 1])


def test_a_draw_takes_as_many_of_each_fifth_and_none_that_is_silent():
    square = np.concatenate([np.zeros(5), np.arange(1, 51)])
    ids = theorems.drawn_features(square, 10)
    assert np.histogram(ids - 5, [0, 10, 20, 30, 40, 50])[0].tolist() == [2] * 5
    with pytest.raises(ValueError, match="51 features are to be drawn, only 50 fire"):
        theorems.drawn_features(square, 51)


def test_effects_are_those_of_a_clamp_by_itself():
    knowledge = toy_knowledge(model=MODEL)
    right = torch.tensor(right_letters(knowledge.asked, ORIGINAL_ORDER))[:, 0]
    before, after = (
        answer_probabilities(MODEL, knowledge.asked, clamp, ORIGINAL_ORDER)[:, 0]
        for clamp in (None, Clamp(SAE, [5], -4.0))
    )

    def odds(p):
        return np.array(
            [np.log(row[r] / (row.sum() - row[r])) for row, r in zip(p.double().numpy(), right, strict=True)]
        )

    found = theorems.clamp_effects(knowledge, SAE, [3, 5], -4.0)[1]
    assert found == pytest.approx((odds(before) - odds(after)).mean(), rel=1e-3)


def test_the_likelihood_ratio_by_hand():
    fires, forget, retain = np.array([[True, False], [False, False]]), np.array([0.5, 0.2]), np.array([0.1, 0.4])
    by_hand = np.log(0.5 / 0.1) + np.log(0.5 / 0.9) + 2 * np.log(0.8 / 0.6)
    assert theorems.log_likelihood_ratio(fires, forget, retain) == pytest.approx(by_hand)


def test_auc_counts_pairs_and_power_counts_positives_above_the_negatives():
    table = pd.DataFrame({"role": ["forget"] * 3 + ["side"] * 3, "rho": [3.0, 2.0, 0.5, 1.0, 0.0, 0.0],
                          "other": [3.0, 3.0, 3.0, 0.0, 0.0, 0.0]})  # fmt: skip
    found = theorems.compared(table, 20).set_index("test")
    assert found.loc["rho", "auc"] == pytest.approx(8 / 9) and found.loc["other", "difference"] == pytest.approx(1 / 9)
    assert found.loc["rho", "power"] == pytest.approx(2 / 3)
