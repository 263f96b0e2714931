"""Notebook 06's curves: every attack on every setting, and what is left of them before and after."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from helpers.attacks.relearning import relearned
from helpers.experiments.attack import (
    all_trainings,
    along_the_way,
    attacked_once,
    attacks,
    by_rate,
    drift_texts,
    few_attacks,
    few_documents,
    half_attack,
    half_questions,
    main_rate,
    other_half,
    relearning,
    told,
)
from helpers.methods import DSG, RMU
from helpers.text.corpora import Document, pack
from tests.toy import LAYER, ToyLab

SHORT = {"relearning.seeds": [4, 7], "relearning.learning_rates": [2e-4, 1e-2],
         "relearning.asked_after": [],
         "relearning.epochs": 2, "relearning.batch_rows": 2, "relearning.rows": 3,
         "texts.row_length": 12, "relearning.few_documents": [1, 3], "relearning.few_steps": 4,
         "relearning.few_seeds": [0], "relearning.half_seeds": [0]}  # fmt: skip
TEXT = "the of a and in to is it on that by for was with as at from " * 9


@pytest.fixture(scope="module")
def lab():
    lab = ToyLab(SHORT)
    lab.forget_documents = [Document("toxins", TEXT[i:]) for i in (0, 4, 11)]
    return lab


def test_attacks_differ_in_seed_and_rate_only(lab):
    one, other, fast = attacks(lab)
    assert [(a.seed, a.learning_rate) for a in (one, other, fast)] == [(4, 2e-4), (7, 2e-4), (4, 1e-2)]
    rows = pack(lab.model.tokenizer, [d.text for d in lab.forget_documents], 12)
    assert len(rows) > 3 and torch.equal(one.rows, rows[:3]) and torch.equal(other.rows, one.rows)
    assert (one.epochs, one.batch_rows) == (2, 2)
    assert replace(one, seed=7, rows=None) == replace(other, rows=None)


def test_an_attack_on_text_that_proves_nothing_is_refused():
    lab = ToyLab(SHORT)
    question = lab.knowledge.questions["toxins"][0].question
    for document, message in (
        (Document("benign", TEXT), "must be forget text"),
        (Document("toxins", question), "hold"),
    ):
        lab.forget_documents = [document]
        with pytest.raises(ValueError, match=message):
            attacks(lab)


def test_every_attack_and_training_of_every_setting_is_judged_on_the_judged_half(lab):
    dsg, rmu = DSG(2, 5.0, threshold=0.1), RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)
    found = relearning(lab, [rmu, dsg])
    forget = replace(lab.judged, questions={"toxins": lab.judged.questions["toxins"]})
    # the second seed measures no drift, and at the second rate the forget questions alone are asked
    of_attacks = zip(attacks(lab), (lab.judged, lab.judged, forget), (drift_texts(lab), {}, {}), strict=True)
    expected = [
        relearned(questions, lab.edited(setting), setting.label, attack, hooked, texts)
        for attack, questions, texts in of_attacks
        for setting, hooked in ((rmu, False), (dsg, False), (dsg, True))
    ]
    for name in ("accuracies", "losses", "drift"):
        tables = [getattr(one, name) for one in expected]
        together = pd.concat([table for table in tables if len(table)], ignore_index=True)
        pd.testing.assert_frame_equal(getattr(found, name)[together.columns], together)
    assert found.accuracies["above"].isna().all()  # nobody is the reference
    arms = ["RMU", "DSG at test time", "DSG, hook removed", "DSG also in training"]
    assert found.accuracies["arm"].drop_duplicates().tolist() == arms
    assert main_rate(found.accuracies)["learning_rate"].unique().tolist() == [2e-4]
    rates = by_rate(found.accuracies)
    assert rates["seed"].unique().tolist() == [4] and len(rates) == 2 * 4 * 3  # rates, arms, epochs
    asked = found.accuracies.drop_duplicates("role").set_index("role")["n"].to_dict()
    assert asked == {"forget": 2, "near": 2, "side": 2}  # of 5, 4, 3 and 2 questions the second halves


def test_all_trainings_in_one_queue_are_what_the_sections_ask_for(monkeypatch):
    inside, outside = min(told("abcd", 0)), min(set("abcd") - told("abcd", 0))
    lab, settings = (
        about_lab(asked=(inside, outside)),
        [RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=0.01)],
    )
    computed, queues = lab.computed, []

    def keep(pieces, dear):
        queues.append([piece.keys for piece in pieces])
        return computed(pieces, dear)

    monkeypatch.setattr(lab, "computed", keep)
    all_trainings(lab, settings)
    few_documents(lab, settings), relearning(lab, settings), other_half(lab, settings)
    first, *sections = queues
    assert first == [keys for section in sections for keys in section] and len(first) == 1 + 3 + 1


def test_attacked_once_is_the_first_attack_on_forget_questions_before_and_after(lab):
    setting = RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)
    table = attacked_once(lab, [setting]).set_index("epoch")
    assert table.index.tolist() == [0, 2] and set(table["role"]) == {"forget"} and set(table["seed"]) == {4}
    long = relearned(lab.judged, lab.edited(setting), "RMU", attacks(lab)[0], False).accuracies
    expected = long[long["role"] == "forget"].set_index("epoch")
    columns = ["n", "right", "accuracy", "low", "high"]
    pd.testing.assert_frame_equal(table[columns], expected.loc[[0, 2], columns])


def test_few_documents_are_drawn_one_among_the_other_and_take_the_same_steps(lab):
    one, three = few_attacks(lab, 0)
    assert (len(one.rows), len(three.rows)) == (1, 3) and three.rows[0] == one.rows[0]
    assert [a.epochs * a.epoch_steps for a in (one, three)] == [4, 4]
    table = few_documents(lab, [RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)])
    assert table["documents"].tolist() == [0, 1, 3] and table["steps"].tolist() == [4] * 3
    assert table["n"].tolist() == [2] * 3


def test_few_documents_that_are_too_few_or_steps_that_do_not_divide_are_refused():
    for changed, message in (({"relearning.few_documents": [9]}, "few_documents = 9, there are 2"),
                             ({"relearning.few_steps": 3, "relearning.few_documents": [2], "relearning.batch_rows": 1},
                              "few_steps = 3: 2 documents take 2 steps")):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            few_attacks(ToyLab({**SHORT, **changed}), 0)


def about_lab(documents=("a", "b", "c", "d"), asked=("a", "b")):
    lab = ToyLab(SHORT)
    lab.forget_documents = [Document("toxins", f"{TEXT} {name}", name) for name in documents]
    questions = dict(lab.judged.questions)
    questions["toxins"] = [replace(q, about=x) for q, x in zip(questions["toxins"], asked, strict=True)]
    lab.judged = replace(lab.judged, questions=questions)
    return lab


def test_half_of_the_names_is_told_and_the_questions_part_accordingly():
    names = told(["a", "b", "c", "d", "a"], 0)
    assert len(names) == 2 and names < set("abcd") and len({told("abcdefgh", seed) for seed in range(5)}) > 1
    inside, outside = sorted(names)[0], sorted(set("abcd") - names)[0]
    lab = about_lab(asked=(inside, outside))
    questions = half_questions(lab, 0).questions
    assert {role: [q.about for q in of] for role, of in questions.items()} == {"told": [inside], "not told": [outside]}
    texts = [d.text for d in lab.forget_documents if d.about in names]
    assert torch.equal(half_attack(lab, 0).rows, pack(lab.model.tokenizer, texts, 12)[:3])
    table = other_half(lab, [RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)])
    assert table["role"].tolist() == ["told", "not told"] * 2 and table["epoch"].tolist() == [0, 0, 2, 2]
    with pytest.raises(ValueError, match="no known question is about the half that is not told"):
        half_questions(about_lab(asked=(inside, inside)), 0)
    with pytest.raises(ValueError, match="has no documents"):
        half_attack(about_lab(documents=("a",)), 0)


def test_where_nobody_says_what_documents_are_about_there_is_a_warning_and_no_question(lab):
    said: list[str] = []
    lab.warn = said.append
    table = other_half(lab, [RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)])
    assert "nobody has said" in said[0] and table["n"].tolist() == [0] and table["accuracy"].isna().all()


def test_along_the_way_are_means_over_seeds_by_hand():
    rows = [(arm, seed, epoch, role, accuracy)
            for arm, shift in (("RMU", 0.0), ("DSG at test time", 0.2))
            for seed, epoch, accuracy in ((0, 0, 0.1), (0, 1, 0.9), (0, 2, 0.5), (1, 0, 0.3), (1, 1, 0.9), (1, 2, 0.7))
            for role, accuracy in (("forget", accuracy + shift), ("side", 1.0))]  # fmt: skip
    curves = pd.DataFrame(rows, columns=["arm", "seed", "epoch", "role", "accuracy"])
    table = along_the_way(curves)
    assert table.set_index(["arm", "when"])["accuracy"].to_dict() == {
        ("RMU", "0"): pytest.approx(0.2), ("RMU", "1"): pytest.approx(0.9), ("RMU", "last"): pytest.approx(0.6),
        ("DSG at test time", "0"): pytest.approx(0.4), ("DSG at test time", "1"): pytest.approx(1.1),
        ("DSG at test time", "last"): pytest.approx(0.8),
    }  # fmt: skip
    assert table.columns.tolist() == ["arm", "when", "accuracy"] and len(table) == 6
    # of a single epoch the first is the last
    short = along_the_way(curves[curves["epoch"] < 2]).set_index(["arm", "when"])["accuracy"]
    assert short["RMU", "1"] == short["RMU", "last"] == pytest.approx(0.9)
