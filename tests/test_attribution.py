"""Attribution is the slope of the right letter's lead along a feature, and the paper's filters keep what they say."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.attribution import attributions
from helpers.engine.forward import final_state_from, residual_after
from helpers.engine.interventions import Clamp, Scale
from helpers.engine.scoring import answer_probabilities, loss_added, unembed
from helpers.loading.data import WORLD_SEED
from helpers.measures.alone import lost_alone
from helpers.methods.selection import (
    DEAR,
    KEPT,
    USELESS,
    candidates_by_attribution,
    fates,
    select_by_attribution,
)
from helpers.organism.world import build_world
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from helpers.text.tokens import letter_ids
from tests.test_features import one
from tests.toy import D_SAE, LAYER, NEUTRAL, toy_knowledge, toy_model, toy_sae


@pytest.fixture(scope="module")
def double():
    """The toys in float64, so that a difference of small steps is exact enough, and five questions."""
    model, sae = toy_model(), toy_sae()
    model._module.double()
    knowledge = toy_knowledge(model=model)
    return model, sae, knowledge.questions["toxins"]


def summed(model, sae, questions, batch_tokens=10_000):
    """The attributions alone, [d_sae]."""
    table = attributions(model, sae, questions, "chat", batch_tokens)
    assert table["feature"].tolist() == list(range(D_SAE))
    return table["attribution"].to_numpy()


@torch.no_grad()
def lead(model, row, residual, right):
    """The right letter's logit above the mean of the others, after a residual; the larger of 'A' and ' A' counts."""
    state = final_state_from(model, one(row), LAYER, residual)
    logits = unembed(model, state[:, -1])[0][letter_ids(model.tokenizer)].amax(dim=0).double()
    others = [i for i in range(4) if i != right]
    return (logits[right] - logits[others].mean()).item()


@torch.no_grad()
def by_differences(model, sae, questions, step=1e-3):
    """Feature by feature, token by token: the activation times the slope along the decoder, two sided."""
    total = np.zeros(D_SAE)
    for question in questions:
        (row,) = prompt_tokens(model.tokenizer, [question], ORIGINAL_ORDER, "chat")
        residual = residual_after(model, one(row), LAYER)
        for t in range(1, len(row)):
            active = sae.encode(residual[0, t].float())
            for i in active.nonzero().flatten().tolist():
                up, down = (residual.clone() for _ in range(2))
                up[0, t] += step * sae.W_dec[i].double()
                down[0, t] -= step * sae.W_dec[i].double()
                slope = (lead(model, row, up, question.answer) - lead(model, row, down, question.answer)) / (2 * step)
                total[i] += active[i].item() * slope
    return total


def test_attribution_is_the_slope_along_every_decoder_by_finite_differences(double):
    model, sae, questions = double
    found = summed(model, sae, questions[:2])
    expected = by_differences(model, sae, questions[:2])
    assert np.abs(expected).max() > 0.01 and (found > 0).any() and (found < 0).any()
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_batches_and_chunks_change_no_sum(double, monkeypatch):
    model, sae, questions = double
    whole = summed(model, sae, questions)
    alone = sum(summed(model, sae, [q], 1) for q in questions)
    np.testing.assert_allclose(alone, whole, atol=1e-4 * np.abs(whole).max())
    monkeypatch.setattr("helpers.engine.attribution.CHUNK_ACTIVATIONS", 3 * D_SAE)
    np.testing.assert_allclose(summed(model, sae, questions), whole, atol=1e-5)


def test_a_small_ablation_loses_what_the_attribution_says(double):
    """To first order the lead falls by the attribution times the share of the feature that is taken away."""
    model, sae, questions = double
    question = questions[0]
    found = summed(model, sae, [question])
    feature, share = int(found.argmax()), 1e-2
    (row,) = prompt_tokens(model.tokenizer, [question], ORIGINAL_ORDER, "chat")
    with torch.no_grad():
        residual = residual_after(model, one(row), LAYER)
        weaker = Clamp(sae, [feature], Scale(1 - share)).edit(residual, one(row).mask & (torch.arange(len(row)) > 0))
    lost = lead(model, row, residual, question.answer) - lead(model, row, weaker.double(), question.answer)
    assert lost == pytest.approx(share * found[feature], rel=0.05)


def test_without_questions_there_is_no_attribution(double):
    with pytest.raises(ValueError, match="there are no questions to ask"):
        attributions(double[0], double[1], [], "chat", 100)


# --- filters ----------------------------------------------------------------------------------------------------------


def lost_by_hand(knowledge, sae, feature, value):
    """Wrong answers of every subject under the clamp of one feature, by the plain scorer."""
    clamp, wrong = Clamp(sae, [feature], value), {}
    for subject, questions in knowledge.questions.items():
        said = answer_probabilities(knowledge.model, questions, clamp, ORIGINAL_ORDER)[:, 0].argmax(dim=-1)
        wrong[subject] = sum(int(letter) != q.answer for letter, q in zip(said, questions, strict=True))
    return wrong


@pytest.fixture(scope="module")
def known():
    """Questions that the toy answers right, three or four a subject."""
    model, world, sizes = toy_model(), build_world(WORLD_SEED), {"toxins": 3, "biology": 3, "history": 4, "aging": 4}
    questions = {}
    for subject, n in sizes.items():
        asked = world.questions(subject)[:40]
        said = answer_probabilities(model, asked, None, ORIGINAL_ORDER)[:, 0].argmax(dim=-1).tolist()
        questions[subject] = [q for q, letter in zip(asked, said, strict=True) if letter == q.answer][:n]
    return toy_knowledge(model=model, questions=questions)


def test_each_feature_alone_is_asked_the_next_question_only_if_it_passed_the_last(known):
    sae, allowed = toy_sae(), 1
    table = lost_alone(known, sae, range(D_SAE), -6.0, allowed)
    assert table["feature"].tolist() == list(range(D_SAE))
    seen = set()
    for row in table.itertuples():
        lost = lost_by_hand(known, sae, row.feature, -6.0)
        # history comes first, and where it loses too many nobody asks the other
        side = max(lost["history"], lost["aging"]) if lost["history"] <= allowed else lost["history"]
        assert row.forget_lost == lost["toxins"]
        if not lost["toxins"]:
            assert np.isnan(row.side_lost) and np.isnan(row.loss_added)
        else:
            assert row.side_lost == side and np.isnan(row.loss_added) == (side > allowed)
        if not np.isnan(row.loss_added):
            added = loss_added(known.model, NEUTRAL, Clamp(sae, [row.feature], -6.0))
            assert row.loss_added == pytest.approx(added, abs=1e-6)
        seen.add(fates(table[table["feature"] == row.feature], allowed)[0])
    assert seen == {USELESS, DEAR, KEPT}


def test_without_a_candidate_nothing_is_asked(known):
    none = lost_alone(known, toy_sae(), [], -6.0, side_lost=1)
    assert list(none) == ["feature", "forget_lost", "side_lost", "loss_added"] and none.empty


LOST = pd.DataFrame({
    "feature": [7, 3, 9, 1, 4], "forget_lost": [2, 0, 5, 1, 3], "side_lost": [0, np.nan, 3, 2, 1],
    "loss_added": [0.2, np.nan, np.nan, 0.2, -0.1],
})  # fmt: skip


def test_the_filters_keep_what_forgets_and_spares_the_least_loss_added_first():
    assert fates(LOST, 2).tolist() == [KEPT, USELESS, DEAR, KEPT, KEPT]
    assert select_by_attribution(LOST, 2).tolist() == [4, 7, 1]  # of equal loss the larger attribution comes first
    assert select_by_attribution(LOST, 1).tolist() == [4, 7] and select_by_attribution(LOST, 0).tolist() == [7]
    assert select_by_attribution(LOST[1:3], 2).tolist() == []


def test_candidates_are_the_largest_that_speak_for_the_answer():
    attribution = np.array([0.5, -2.0, 3.0, 0.0, 0.5, 1.0])
    assert candidates_by_attribution(attribution, 3).tolist() == [2, 5, 0]  # of equals the lower id
    assert candidates_by_attribution(attribution, 9).tolist() == [2, 5, 0, 4]  # neither 0 nor below it
