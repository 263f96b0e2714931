"""Notebook 06's curves: every attack on every setting, and what is left of them before and after."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from helpers.attacks.relearning import relearned
from helpers.experiments.attack import along_the_way, attacks, relearning_curves
from helpers.methods import DSG, RMU
from helpers.text.corpora import Document, pack
from tests.toy import LAYER, ToyLab

SHORT = {"relearning.seeds": [4, 7], "relearning.epochs": 2, "relearning.batch_rows": 2, "relearning.rows": 3,
         "texts.row_length": 12}  # fmt: skip
TEXT = "the of a and in to is it on that by for was with as at from " * 9


@pytest.fixture(scope="module")
def lab():
    lab = ToyLab(SHORT)
    lab.forget_documents = [Document("toxins", TEXT[i:]) for i in (0, 4, 11)]
    return lab


def test_attacks_differ_in_their_seed_only(lab):
    one, other = attacks(lab)
    assert (one.seed, other.seed) == (4, 7)
    rows = pack(lab.model.tokenizer, [d.text for d in lab.forget_documents], 12)
    assert len(rows) > 3 and torch.equal(one.rows, rows[:3]) and torch.equal(other.rows, one.rows)
    assert (one.epochs, one.learning_rate, one.batch_rows) == (2, 2e-4, 2)
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


def test_every_seed_and_training_of_every_setting_is_attacked_on_the_judged_half(lab):
    dsg, rmu = DSG(2, 5.0, threshold=0.1), RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)
    curves = relearning_curves(lab, [rmu, dsg])
    expected = [
        relearned(lab.judged, lab.edited(setting), setting.label, attack, hooked)
        for attack in attacks(lab)
        for setting, hooked in ((rmu, False), (dsg, False), (dsg, True))
    ]
    pd.testing.assert_frame_equal(curves, pd.concat(expected, ignore_index=True))
    arms = ["RMU", "DSG at test time", "DSG, hook removed", "DSG also in training"]
    assert curves["arm"].drop_duplicates().tolist() == arms
    per_arm = 3 * 3  # epochs 0 to 2, three roles
    assert curves.groupby(["arm", "seed"]).size().eq(per_arm).all() and len(curves) == 4 * 2 * per_arm
    asked = curves.drop_duplicates("role").set_index("role")["n"].to_dict()
    assert asked == {"forget": 2, "near": 2, "side": 2}  # of 5, 4, 3 and 2 questions the second halves


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
