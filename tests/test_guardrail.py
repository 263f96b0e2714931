"""Notebook 05's tables: rho by a loop over tokens, and where the gate opens and what that costs."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.edited import Edited
from helpers.engine.forward import residual_after
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import answer_probabilities
from helpers.experiments.guardrail import gate_cost, opened, rho_table
from helpers.measures.metrics import wilson_interval
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.test_features import one
from tests.toy import LAYER, NEUTRAL, ROLES, toy_knowledge, toy_sae

FEATURES = (3, 5, 8, 13)
SAE = toy_sae()


@pytest.fixture(scope="module")
def knowledge():
    return toy_knowledge()


@torch.no_grad()
def rho_of(knowledge, rows):
    """Share of tokens after BOS at which any of the features fires, row by row."""
    found = []
    for row in rows:
        activations = SAE.encode(residual_after(knowledge.model, one(row), LAYER)[0, 1:])
        found.append(float((activations[:, list(FEATURES)] > 0).any(dim=1).double().mean()))
    return found


def prompts(knowledge):
    return prompt_tokens(knowledge.model.tokenizer, knowledge.asked, ORIGINAL_ORDER, "chat")


def test_rho_of_texts_and_of_every_known_question(knowledge):
    table = rho_table(knowledge, SAE, FEATURES, {"retain text": NEUTRAL, "forget text": NEUTRAL[:1] + 50})
    texts = table[table["kind"] == "text"]
    assert texts["source"].tolist() == texts["role"].tolist() == ["retain text"] * 4 + ["forget text"]
    np.testing.assert_allclose(texts["rho"], rho_of(knowledge, [*NEUTRAL.tolist(), (NEUTRAL[0] + 50).tolist()]))
    assert texts["tokens"].tolist() == [11] * 5  # of 12, without BOS
    asked = table[table["kind"] == "questions"]
    assert asked["tokens"].tolist() == [len(row) - 1 for row in prompts(knowledge)]
    assert asked["source"].tolist() == [q.subject for q in knowledge.asked]
    assert asked["role"].tolist() == [ROLES[q.subject] for q in knowledge.asked]
    np.testing.assert_allclose(asked["rho"], rho_of(knowledge, prompts(knowledge)))


def test_the_gate_opens_strictly_above_tau_and_questions_are_pooled_by_role():
    rows = [("text", "forget text", "forget text", 0.9), ("questions", "toxins", "forget", 0.5),
            ("questions", "toxins", "forget", 0.3), ("questions", "toxins", "forget", 0.31),
            ("questions", "aging", "side", 0.0), ("questions", "history", "side", 0.4)]  # fmt: skip
    rho = pd.DataFrame(rows, columns=["kind", "source", "role", "rho"]).assign(tau=0.3)
    assert opened(rho).values.tolist() == [
        ["forget", 3, 2, 2 / 3, *wilson_interval(2, 3)],
        ["side", 2, 1, 0.5, *wilson_interval(1, 2)],
    ]
    assert opened(rho.assign(tau=0.95))["right"].tolist() == [0, 0]
    assert opened(rho).columns.tolist() == ["role", "n", "right", "accuracy", "low", "high"]


def test_gate_cost_counts_open_and_shut(knowledge):
    rho = np.array(rho_of(knowledge, prompts(knowledge)))
    tau = float(np.median(rho))
    clamp = Clamp(SAE, FEATURES, -20.0, "any", Gate(tau))
    is_open = rho > tau
    assert 0 < is_open.sum() < len(is_open)
    said = answer_probabilities(knowledge.model, knowledge.asked, clamp, ORIGINAL_ORDER)[:, 0].argmax(dim=1).tolist()
    right = np.array([letter == q.answer for letter, q in zip(said, knowledge.asked, strict=True)])
    subjects = np.array([q.subject for q in knowledge.asked])
    table = gate_cost(knowledge, Edited(knowledge.model, clamp))
    expected = {
        (subject, gate): (of.sum(), right[of].sum())
        for subject in ROLES
        for gate, where in (("open", is_open), ("shut", ~is_open))
        if (of := where & (subjects == subject)).any()
    }
    assert table.set_index(["subject", "gate"])[["n", "right"]].apply(tuple, axis=1).to_dict() == expected
    assert table.groupby("subject")["n"].sum().to_dict() == {"toxins": 5, "biology": 4, "history": 3, "aging": 2}
    assert 0 < right.sum() < len(right)


@pytest.mark.parametrize("clamp", [None, Clamp(SAE, FEATURES, -20.0, "any")])
def test_an_edit_without_a_gate_has_no_gate_cost(knowledge, clamp):
    with pytest.raises(ValueError, match="this edit has no gate"):
        gate_cost(knowledge, Edited(knowledge.model, clamp))
