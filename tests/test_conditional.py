"""Notebook 04's tables: which features and how strongly, what is said under an edit, and how it reads by protocol."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.edited import Edited
from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import answer_probabilities, is_right
from helpers.experiments.conditional import (
    candidates_table,
    chosen_table,
    letters_table,
    protocols,
    published_points,
    random_features,
    refused_table,
    told,
    tradeoff_table,
)
from helpers.lab.choosing import points
from helpers.lab.scores import Scored, Scores
from helpers.loading.data import WORLD_SEED
from helpers.measures.knowledge import knowledge_under
from helpers.measures.metrics import alignment
from helpers.methods import DSG, RMU, ClampPrime, Unconditional
from helpers.organism.world import build_world
from helpers.profiles import load_profile
from helpers.text.questions import ORDERS, ORIGINAL_ORDER, encode_texts
from tests.test_knowledge import WEIGHTS, trained
from tests.toy import ToyLab, toy_knowledge, toy_sae, toy_scores

FEATURES = (3, 5, 8, 13)
SETTINGS = replace(load_profile("tiny").conditional, ordered_questions=1, resamples=50)
PRIME, ADD = ClampPrime(4, 5.0, features=FEATURES), Unconditional(4, 1.0, features=FEATURES)


@pytest.fixture(scope="module")
def knowledge():
    return toy_knowledge(toxins=4, biology=2, history=3, aging=2)


@pytest.fixture(scope="module")
def edits(knowledge):
    """Two interventions and other weights, by label and words."""
    lab = ToyLab()
    lab.model = knowledge.model
    found = {(setting.label, setting.words): setting.apply(lab) for setting in (PRIME, ADD)}
    return found | {("RMU", "layer 2"): Edited(knowledge.model, weights=trained(WEIGHTS))}


def said(edit, questions, orders=ORIGINAL_ORDER, prompt_format="chat"):
    """p(A..D) of an edit by the plain scorer, [questions, orders, 4]."""
    return answer_probabilities(edit.model, questions, edit.intervention, orders, prompt_format)


# --- which features ---------------------------------------------------------------------------------------------------


def test_random_features_are_not_forbidden():
    found = random_features(10, forbidden=[0, 1, 2], n=5, seed=0)
    assert len(set(found)) == 5 and not set(found) & {0, 1, 2} and set(found) < set(range(10))
    assert random_features(10, forbidden=[0, 1, 2], n=5, seed=0).tolist() == found.tolist() == sorted(found)


def test_chosen_table_counts_retain_tokens():
    forget = pd.DataFrame({"firing_rate": [0.0, 0.1, 0.3], "mean": [0.0, 0.2, 0.9], "tokens": 100})
    retain = pd.DataFrame({"firing_rate": [0.5, 0.02, 0.0], "mean": [0.0, 0.1, 0.0], "tokens": 200})
    table = chosen_table(np.array([2, 1]), forget, retain)
    assert table["feature"].tolist() == [2, 1] and table["forget_rate"].tolist() == [0.3, 0.1]
    assert table["retain_tokens"].tolist() == [0, 4] and table["of_tokens"].tolist() == [200, 200]
    assert table["mean_activation"].tolist() == pytest.approx([3.0, 2.0])
    assert table["weight"].tolist() == pytest.approx([1.5, 0.5])


ANSWERS = {
    "harmful": {"refused": np.array([True, True, False, True]), "tokens": np.array([7, 8, 20, 5]),
                "rates": np.array([0.5, 1.0, 0.25])},
    "benign": {"refused": np.array([False, False]), "tokens": np.array([10, 20]), "rates": np.array([0.0, 1.0, 0.5])},
}  # fmt: skip


def test_refusals_are_counted_by_kind_of_request():
    assert refused_table(ANSWERS).to_dict("records") == [
        {"requests": "harmful", "n": 4, "refused": 3, "share": 0.75, "tokens": 10.0},
        {"requests": "benign", "n": 2, "refused": 0, "share": 0.0, "tokens": 15.0},
    ]


def test_candidates_stand_with_their_rates_where_nothing_is_refused_too():
    retain = pd.DataFrame({"firing_rate": [0.125, 0.75, 0.0]})
    table = candidates_table({"rate": np.array([1, 0]), "contrast": np.array([0])}, ANSWERS, retain)
    assert table.columns.tolist() == ["rule", "feature", "harmful_rate", "benign_rate", "retain_rate"]
    assert table.values.tolist() == [
        ["rate", 1, 1.0, 1.0, 0.75], ["rate", 0, 0.5, 0.0, 0.125], ["contrast", 0, 0.5, 0.0, 0.125],
    ]  # fmt: skip


# --- beside the paper -------------------------------------------------------------------------------------------------


def test_our_points_stand_beside_the_papers():
    a = toy_scores(DSG, ((50, 50), (99, 99)), ((10, 10), (50, 50)), label="RMU")
    b = toy_scores(ClampPrime, ((40, 40), (100, 100)))
    table = tradeoff_table(Scores([a[0], b[0], a[1]]), "tiny")
    assert table["world"].value_counts().to_dict() == {"Khoriaty et al., gemma-2-2b": 68, "ours, tiny": 3}
    assert table.notna().all(axis=None)
    ours = table[table["world"] == "ours, tiny"]
    assert ours["method"].tolist() == ["RMU", "RMU", "Clamp Prime"]  # method by method
    assert ours["setting"].tolist() == ["10 features x0", "10 features x1", "10 features x0"]
    expected = [float(alignment(s, 1, f, 1)) for f, s in ((0.5, 0.99), (0.1, 0.5), (0.4, 1.0))]
    assert ours["alignment"].tolist() == pytest.approx(expected)
    assert (ours["good_retention"] * (1 - ours["bad_retention"])).tolist() == pytest.approx(expected)


def test_the_papers_alignments_are_what_their_retentions_say():
    paper = published_points()
    assert len(paper) == 68 and "base" not in set(paper["method"])
    assert (paper["good_retention"] * (1 - paper["bad_retention"])).tolist() == pytest.approx(
        paper["alignment"].tolist()
    )
    assert {"Clamp Prime", "Clamp Prime, proportional", "RMU"} <= set(paper["method"])
    assert paper[paper["method"] == "RMU"]["setting"].str.match(r"layer \d+, steering \d+, alpha \d+").all()


# --- what is said -----------------------------------------------------------------------------------------------------


def test_letters_are_counted_by_role(knowledge, edits):
    table = letters_table(knowledge, edits)
    names = ["right answers", *(", ".join(words) for words in edits)]
    assert names[1:3] == ["Clamp Prime, 4 features x5", "unconditional add, 4 features x1"]
    assert table.groupby(["name", "role"])["share"].sum().tolist() == pytest.approx([1.0] * 8)
    assert table["name"].tolist() == [name for _ in range(2) for name in names for _ in range(4)]
    right = table[(table["name"] == "right answers") & (table["role"] == "forget")]
    answers = [q.answer for q in knowledge.questions["toxins"]]
    assert (right["share"] * 4).tolist() == [answers.count(i) for i in range(4)]
    assert right["accuracy"].eq(1.0).all()
    roles = {
        "forget": knowledge.questions["toxins"],
        "side": [q for s in ("history", "aging") for q in knowledge.questions[s]],
    }
    for name, edit in zip(names[1:], edits.values(), strict=True):
        for role, questions in roles.items():
            found = table[(table["name"] == name) & (table["role"] == role)]
            plain = said(edit, questions)[:, 0]
            letters = plain.argmax(dim=1).tolist()
            assert (found["share"] * len(questions)).tolist() == pytest.approx([letters.count(i) for i in range(4)])
            assert found["letter"].tolist() == list("ABCD") and found["n"].eq(len(questions)).all()
            assert found["mass"].tolist() == pytest.approx([plain.sum(dim=1).mean().item()] * 4, abs=1e-6)
            hits = [letter == q.answer for letter, q in zip(letters, questions, strict=True)]
            assert found["accuracy"].tolist() == pytest.approx([np.mean(hits)] * 4)
    unedited = said(Edited(knowledge.model), roles["forget"])[:, 0].sum(dim=1).mean().item()
    assert right["mass"].iloc[0] == pytest.approx(unedited, abs=1e-6)


def test_text_is_hidden_where_the_profile_says_so(knowledge, edits):
    questions, model = knowledge.asked[:2], knowledge.model
    asked = {"no edit": Edited(model), "clamp": Edited(model, Clamp(toy_sae(), FEATURES, -20.0, "any"))}
    asked["weights"] = edits["RMU", "layer 2"]
    shown, hidden = (told(model, questions, asked, 4, show) for show in (True, False))
    assert set(hidden["says"]) | set(hidden["wanted"]) == {"#"}
    assert shown["wanted"].tolist() == [q.choices[q.answer] for q in questions for _ in asked]
    assert shown["name"].tolist() == list(asked) * 2
    assert shown["question"].tolist() == [str(q.id) for q in questions for _ in asked]
    assert hidden["kept"].equals(shown["kept"])


def test_what_is_told_is_what_is_generated_and_compared_token_by_token(knowledge, edits):
    questions, model = knowledge.asked[:8], knowledge.model
    asked = {"no edit": Edited(model), "clamp": Edited(model, Clamp(toy_sae(), FEATURES, -20.0, "any"))}
    asked["weights"] = edits["RMU", "layer 2"]
    table = told(model, questions, asked, 4, True).set_index(["name", "question"])
    prompts = encode_texts(model.tokenizer, [f"{q.question}\nAnswer:" for q in questions])
    plain = generate(model, prompts, 4)
    for name, edit in asked.items():
        tokens = generate(edit.model, prompts, 4, edit.intervention)
        for question, new, before in zip(questions, tokens, plain, strict=True):
            row = table.loc[(name, str(question.id))]
            assert row["says"] == model.tokenizer.decode(new).strip()
            same = 0
            while same < min(len(new), len(before)) and new[same] == before[same]:
                same += 1
            assert row["kept"] == same
    assert (table.loc["clamp", "kept"] < table.loc["no edit", "kept"]).all()
    assert (table.loc["weights", "says"] != table.loc["no edit", "says"]).any()


# --- protocols --------------------------------------------------------------------------------------------------------


def test_every_protocol_reads_every_edit(knowledge, edits):
    questions = {s: [*qs, *build_world(WORLD_SEED).questions(s)[-2:]] for s, qs in knowledge.questions.items()}
    table = protocols(knowledge, questions, edits, ["plain"], SETTINGS)
    assert table["method"].tolist() == ["Clamp Prime"] * 4 + ["unconditional add"] * 4 + ["RMU"] * 4
    assert table["setting"].tolist() == ["4 features x5"] * 4 + ["4 features x1"] * 4 + ["layer 2"] * 4
    assert table["protocol"].tolist() == [
        "some known questions, 24 orders", "the same known questions, one order", "all known questions, one order",
        "all questions, one order, plain frame",
    ] * 3  # fmt: skip
    # one a subject in 24 orders and in one, the known, all; no near domain
    assert table["forget_n"].tolist() == [1, 1, 4, 6] * 3
    assert table["side_n"].tolist() == [2, 2, 5, 9] * 3
    assert table["forget_before"].tolist()[:3] == [1.0, 1.0, 1.0]
    for i, edit in enumerate(edits.values()):
        for role, subjects in (("forget", ["toxins"]), ("side", ["history", "aging"])):
            one, known, every = (
                [q for s in subjects for q in of[s][:n]]
                for of, n in ((knowledge.questions, 1), (knowledge.questions, None), (questions, None))
            )
            after = table[f"{role}_after"].tolist()[4 * i : 4 * i + 4]
            expected = [(one, ORDERS, "chat"), (one, ORIGINAL_ORDER, "chat"), (known, ORIGINAL_ORDER, "chat")]
            for found, (asked, *how) in zip(after, [*expected, (every, ORIGINAL_ORDER, "plain")], strict=True):
                right = is_right(said(edit, asked, *how), asked, how[0])
                assert found == pytest.approx(right.double().mean().item())
            before = is_right(said(Edited(knowledge.model), every, ORIGINAL_ORDER, "plain"), every, ORIGINAL_ORDER)
            assert table[f"{role}_before"][4 * i + 3] == pytest.approx(before.double().mean().item())


def test_a_collapse_into_one_letter_is_seen(knowledge, edits):
    table = protocols(knowledge, knowledge.questions, edits, [], SETTINGS)
    for i, edit in enumerate(edits.values()):
        asked = knowledge.questions["toxins"]
        for row, of, orders in ((0, asked[:1], ORDERS), (2, asked, ORIGINAL_ORDER)):
            letters = torch.bincount(said(edit, of, orders).argmax(dim=-1).flatten(), minlength=4)
            assert table["forget_letter"][3 * i + row] == pytest.approx(letters.max().item() / (len(of) * len(orders)))


def test_one_order_of_known_questions_is_what_is_counted_under_the_edit(knowledge, edits):
    table = protocols(knowledge, knowledge.questions, edits, ["chat"], SETTINGS)
    for (label, words), edit in edits.items():
        (point,) = points(
            Scores(
                [
                    Scored(
                        RMU(2, 1.0, 1.0, steps=1, batch_rows=1, learning_rate=1.0),
                        label,
                        {},
                        knowledge_under(knowledge, edit),
                    )
                ]
            )
        ).to_dict("records")
        for protocol in ("all known questions, one order", "all questions, one order, chat frame"):
            (row,) = table[(table["protocol"] == protocol) & (table["method"] == label)].to_dict("records")
            assert row["setting"] == words
            assert row["forget_after"] == pytest.approx(point["forget_accuracy"])
            assert row["side_after"] == pytest.approx(point["side_accuracy"])
            assert row["forget_letter"] == pytest.approx(point["forget_letter"])
