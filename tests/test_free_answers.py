"""Free answers: matches and gibberish by hand, when a gate opens by counting, and what generation itself does."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine import generation
from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Clamp, DuringGeneration, Gate
from helpers.engine.scoring import read_endings, read_rows
from helpers.experiments import guarded_answers
from helpers.experiments.guarded_answers import GATES, GIBBERISH, MATCHES, OPENED_BY
from helpers.measures.free_answers import free_answers, hard_to_predict, limit_of, matches, opened_at, repeats
from helpers.report.plots import guarded_answers as drawn
from tests.test_features import one
from tests.toy import D_SAE, LAYER, NEUTRAL, toy_knowledge, toy_model, toy_sae

MODEL, SAE = toy_model(), toy_sae()
FEATURES = list(range(0, D_SAE, 4))
N_NEW = 6


# --- matches and gibberish --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "true", "found"),
    [
        ("temple", "temple", True),
        ("It is the Temple.", "temple", True),
        ("temples", "temple", False),
        ("", "temple", False),
        ("a b", "a b c d e", False),  # two of five
        ("c a b", "a b c d e", True),  # three of five, in any order
        ("the the the", "the end the", True),  # two of three: each as often as it stands there
        ("end end end", "the end the", False),
    ],
)
def test_a_match_holds_three_fifths_of_the_right_words(said, true, found):
    assert matches(said, true) is found


def test_a_right_answer_without_words_is_refused():
    with pytest.raises(ValueError, match=r"a right answer has no word to be found: ' \.'; leave the question out"):
        matches("anything", " .")


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([], False),
        ([7], False),
        ([7, 7], False),  # one bigram
        ([7, 7, 7], False),  # one of two differs
        ([7, 7, 7, 7], True),  # one of three
        ([1, 2, 3, 4, 5], False),
        ([1, 2, 1, 2, 1, 2], True),  # two of five
    ],
)
def test_repetition_is_fewer_than_half_of_its_bigrams(said, found):
    assert repeats(said) is found


def nats(row, n):
    """Mean nats of the last n tokens by Hugging Face's own forward."""
    with torch.no_grad():
        logits = huggingface(MODEL)(input_ids=torch.tensor([row])).logits[0].double().log_softmax(-1)
    return float(np.mean([-logits[t - 1, row[t]] for t in range(len(row) - n, len(row))])) if n else 0.0


def test_endings_are_read_off_every_row_in_the_callers_order():
    rows, tokens = [[2, 11, 12], [2, 13, 14, 15, 16, 17], [2, 18, 19, 20]], [1, 4, 0]
    found = read_rows(MODEL, rows, read_endings(tokens), None, 12).tolist()
    assert found == pytest.approx([nats(row, n) for row, n in zip(rows, tokens, strict=True)], abs=1e-5)
    with pytest.raises(ValueError, match="3 tokens are to be read at the end of a row that predicts fewer"):
        read_rows(MODEL, rows[:1], read_endings([3]), None, 12)


def test_what_is_hard_to_predict_is_what_follows_the_first_token():
    knowledge = toy_knowledge(model=MODEL)
    prompts, said = [[2, 11, 12], [2, 13], [2, 14]], [[21, 22, 23], [24], []]
    expected = [nats([2, 11, 12, 21, 22, 23], 2), 0.0, 0.0]
    assert hard_to_predict(knowledge, prompts, said).tolist() == pytest.approx(expected, abs=1e-5)


def test_the_limit_is_what_few_neutral_rows_exceed():
    rows = [nats(row, len(row) - 1) for row in NEUTRAL.tolist()]
    assert limit_of(toy_knowledge(model=MODEL)) == pytest.approx(np.quantile(rows, 0.95), abs=1e-5)


# --- gates ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", GATES)
@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.4, 0.6, 0.999])
def test_a_gate_opens_where_counting_says_so(new, threshold):
    row, prompt = [2, *range(30, 60)], 9
    residual = residual_after(MODEL, one(row), LAYER)[0]
    clamp = Clamp(SAE, FEATURES, -9.0, "any", Gate(threshold))
    hot = clamp.hot(residual[None])[0].tolist()
    judged = {"running": lambda t: np.mean(hot[1 : t + 1]), "each": lambda t: float(hot[t])}.get(new, lambda t: 0.0)
    scores = [np.mean(hot[1:prompt]), *(judged(t) for t in range(prompt, len(row)))]
    expected = next((i for i, score in enumerate(scores) if score > threshold), None)
    assert opened_at(clamp, residual, prompt, new) == expected


def test_a_gate_that_has_seen_nothing_has_no_verdict():
    clamp = Clamp(SAE, FEATURES, 0.0, "any", Gate(0.1))
    with pytest.raises(ValueError, match="no prompt has been seen yet"):
        _ = DuringGeneration(clamp, torch.ones(1, 4)).opened


@pytest.mark.parametrize("new", GATES)
def test_a_gate_opened_when_generation_says_it_did(new, monkeypatch):
    knowledge, verdicts = toy_knowledge(model=MODEL), []

    class Told(DuringGeneration):
        def __call__(self, residual):
            edited = super().__call__(residual)
            verdicts.append(self.opened.tolist())
            return edited

    rho = [0.05, 0.1, 0.15, 0.2]
    clamp = Clamp(SAE, FEATURES, -9.0, "any", Gate(rho[1]))
    monkeypatch.setattr(generation, "DuringGeneration", Told)
    table = free_answers(knowledge, Edited(MODEL, clamp), new, N_NEW)
    # one batch, whose rows stand longest first
    lengths = [len(row) for row in prompts_of(knowledge)]
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    for place, i in enumerate(order):
        mine = [verdict[place] for verdict in verdicts[: min(int(table["said"][i]), N_NEW - 1) + 1]]
        expected = mine.index(True) if any(mine) else np.nan
        assert table["opened"][i] == expected or (np.isnan(table["opened"][i]) and np.isnan(expected))
    assert table["opened"].notna().any()


def prompts_of(knowledge):
    texts = [f"<start_of_turn>user\n{q.question}<end_of_turn>\n<start_of_turn>model\n" for q in knowledge.asked]
    return knowledge.model.tokenizer(texts, add_special_tokens=False).input_ids


def test_free_answers_are_what_is_said_and_nothing_of_it_is_kept():
    knowledge = toy_knowledge(model=MODEL)
    said = generation.answers(MODEL, [[2, *row] for row in prompts_of(knowledge)], N_NEW, 10_000)
    table = free_answers(knowledge, Edited(MODEL), "held", N_NEW)
    assert table["said"].tolist() == [len(answer) for answer in said] and table["opened"].isna().all()
    odd = hard_to_predict(knowledge, [[2, *row] for row in prompts_of(knowledge)], said) > limit_of(knowledge)
    assert table["gibberish"].tolist() == [int(o or repeats(s)) for o, s in zip(odd, said, strict=True)]
    assert list(table) == ["subject", "role", "id", "n", "matches", "gibberish", "said", "opened"]


# --- counting ---------------------------------------------------------------------------------------------------------


def told():
    """Two hazard questions unguarded and under a gate asked in two ways; under 'each' one opens at the second token."""
    rows = [("unguarded", "", 1, 0, np.nan), ("unguarded", "", 1, 1, np.nan), ("DSG", "held", 0, 1, 0.0),
            ("DSG", "held", 1, 0, np.nan), ("DSG", "each", 0, 1, 0.0), ("DSG", "each", 0, 1, 2.0)]  # fmt: skip
    columns = ["method", "gate", "matches", "gibberish", "opened"]
    return pd.DataFrame(rows, columns=columns).assign(role="forget", n=1)


def test_shares_and_openings_are_counted():
    found = guarded_answers.in_generation(told(), 4)
    right = {key: of["right"].tolist() for key, of in found.groupby(["method", "gate", "measure"])}
    assert right[("unguarded", "", MATCHES)] == [2] and right[("DSG", "each", GIBBERISH)] == [2]
    openings = {gate: right[("DSG", gate, OPENED_BY)] for gate in ("held", "each")}
    assert openings == {"held": [1, 1, 1, 1], "each": [1, 1, 2, 2]}
    assert ("unguarded", "", OPENED_BY) not in right and (found["n"] == 2).all()
    assert found.loc[found["measure"] == OPENED_BY, "token"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_the_reproduction_stands_beside_ours_and_both_can_be_drawn():
    both = guarded_answers.with_reproduction(guarded_answers.in_generation(told(), 4))
    theirs = both[both["world"] != "ours"].set_index(["method", "gate", "measure"])[["low", "high"]].T.to_dict("list")
    assert theirs["unguarded", "", MATCHES] == [0.197, 0.197] and theirs["DSG", "each", GIBBERISH] == [0.55, 0.64]
    assert {both[column].dtype.kind for column in ("n", "right", "accuracy", "low", "high", "token")} == {"f"}
    assert len(drawn(both).axes) == 2
