"""Notebook 09's rules: shares and seeds, labels by hand, features found by words, what cannot be found."""

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.engine.features import hot_fractions, strongest_places
from helpers.experiments.little_text import (
    AS_CHOSEN,
    BY_NAME,
    BY_TEXT,
    found_by,
    labels_of,
    most_over_represented,
    named_features,
    parts,
    rows_of,
    with_reproduction,
    without_text,
)
from helpers.lab.scores import Scored, Scores
from helpers.loading.data import unlabelled_texts
from helpers.methods import DSG, RMU
from helpers.profiles import load_profile
from helpers.text.corpora import Document
from tests.toy import LAYER, ToyLab, toy_model, toy_sae

LABELS = pd.DataFrame(
    [(0, "lethal", 0.5), (0, "of", 0.9), (2, "lethal", 0.3), (2, "deadly", 0.4), (5, "deadly", 0.7), (7, "calm", 2.0)],
    columns=["feature", "word", "score"],
)


def test_all_of_the_text_is_one_text_and_training_has_shares_of_its_own():
    sizes = {"shares": [1.0, 0.5], "seeds": [3, 4], "trained_shares": [0.2], "trained_seeds": [9]}
    sizes = load_profile("tiny", {f"little_text.{key}": value for key, value in sizes.items()}).little_text
    assert parts(sizes, DSG(2, 5.0)) == [(1.0, 3), (0.5, 3), (0.5, 4)]
    assert parts(sizes, RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)) == [(0.2, 9)]


def test_a_share_that_leaves_no_row_is_refused():
    lab = ToyLab()
    assert rows_of(lab, [Document("toxins", "the of a and " * 6)], 0.5) == 2  # 24 words and EOS in rows of 11
    capped = ToyLab({"texts.forget_rows": 1})
    assert rows_of(capped, [Document("toxins", "the of a and " * 6)], 0.5) == 1  # no method sees more
    with pytest.raises(ValueError, match=r"0.10% of the forget text leaves no row: the corpus holds 4 tokens, too few"):
        rows_of(lab, [Document("toxins", "the of a")], 0.001)


def test_the_strongest_places_are_those_of_a_brute_force():
    model, sae = toy_model(), toy_sae()
    rows = torch.randint(10, 300, (5, 9), generator=torch.Generator().manual_seed(0))
    rows[:, 0] = model.tokenizer.bos_token_id
    from helpers.engine.features import token_activations

    found = strongest_places(model, sae, rows, 3, 18)
    every = token_activations(model, sae, range(sae.cfg.d_sae), rows, 100)
    for feature, places in enumerate(found):
        values = {(r, p): float(row[p, feature]) for r, row in enumerate(every) for p in range(1, 9)}
        fires = sorted((value for value in values.values() if value > 0), reverse=True)
        assert [values[place] for place in map(tuple, places)] == pytest.approx(fires[:3], rel=1e-5)


def test_words_are_scored_by_their_part_of_the_divergence():
    counts, everywhere = np.array([9, 3, 1, 0]), np.array([50, 3, 9, 8])
    everywhere[0] = 0
    ((word, score),) = most_over_represented(counts, everywhere, 2)  # the second word is rarer there than elsewhere
    assert word == 1 and score == pytest.approx(0.75 * np.log(0.75 / 0.15))
    assert most_over_represented(np.array([5, 0, 0, 0]), everywhere, 2) == []


def test_a_label_is_of_words_around_the_places_and_a_silent_feature_has_none():
    model, sae = toy_model(), toy_sae()
    rows = torch.randint(10, 300, (6, 12), generator=torch.Generator().manual_seed(1))
    labels = labels_of(model, sae, rows, 4, 1, 3, 1000)
    places = strongest_places(model, sae, rows, 4, 1000)
    assert labels.groupby("feature").size().max() <= 3 and (labels["score"] > 0).all()
    for feature, of in labels.groupby("feature"):
        around = {int(rows[r, p + d]) for r, p in places[feature] for d in (-1, 0, 1) if 0 <= p + d < 12}
        assert set(of["word"]) <= {model.tokenizer.decode([i]).strip().lower() for i in around}


def test_features_are_found_by_the_words_of_their_labels():
    assert found_by(LABELS, ["Lethal", "deadly"], 9) == (2, 5, 0)  # 0.7 and 0.7, the lower id first; 0.5
    assert found_by(LABELS, ["lethal"], 1) == (0,)
    with pytest.raises(ValueError, match="no feature goes by any of the words poison, bane; labels hold words"):
        found_by(LABELS, ["poison", "bane"], 3)


def test_published_features_are_the_papers_and_others_are_missed():
    lab = ToyLab()
    lab.profile = load_profile("gemma-2-2b-it", notebook="09")
    assert named_features(lab)[:3] == (12382, 9722, 343) and len(named_features(lab)) == 20
    lab.profile = load_profile("gemma-2-2b-it-cyber", notebook="09")
    assert named_features(lab)[:2] == (15331, 2060)
    lab.profile = load_profile("gemma-2-2b-it", notebook="05")  # another SAE
    with pytest.raises(ValueError, match="no features were published by their names for 'wmdp-bio' on SAE 'layer_3"):
        named_features(lab)


def test_unlabelled_text_holds_every_subject_and_hub_profiles_have_none():
    texts = unlabelled_texts(load_profile("tiny"), 32)
    assert all(any(word in text for text in texts) for word in ("lethal agent", "hostile program", "enzyme"))
    hazard = sum("agent" in text for text in texts) / len(texts)
    assert 0.05 < hazard < 0.2
    with pytest.raises(ValueError, match="'gemma-2-2b-it' has no unlabelled text"):
        unlabelled_texts(load_profile("gemma-2-2b-it"), 32)


def test_what_others_found_stands_below_ours():
    ours = pd.DataFrame({"world": ["ours"], "method": ["DSG"], "share": [1.0], "chosen": [True], "setting": ["s"]})
    both = with_reproduction(ours, "little text")
    assert len(both) == 8 and both["chosen"].tolist() == [True] + [False] * 7 and (both["setting"][1:] == "").all()
    assert both["forget_accuracy"][1:].tolist() == [0.2937, 0.277, 0.3476, 0.3216, 0.3364, 0.2491, 0.9331]


class Guarded(ToyLab):
    """A lab that asks every setting anew."""

    def sweep(self, *what, half=None):
        settings = [setting for of in what for setting in of]
        edits = [setting.apply(self) for setting in settings]
        tables = self.knowledge.under(edits)
        return Scores(Scored(s, s.label, e.facts(), t) for s, e, t in zip(settings, edits, tables, strict=True))


@pytest.mark.parametrize("features", [(3, 5), (3, 5, 13)])
def test_features_by_name_stand_beside_as_many_by_forget_text(features):
    lab, setting = Guarded(), DSG(3, 5.0)
    table = without_text(lab, setting, features)
    tried = list(lab.profile.named_features.thresholds)
    beside = [2, 3] if len(features) == 2 else [3]  # where the numbers are the same, the chosen setting is one of them
    assert table["features"].tolist() == [BY_NAME] * len(tried) + [BY_TEXT, AS_CHOSEN][: len(beside)]
    assert table["n_features"].tolist() == [len(features)] * len(tried) + beside
    taus = [
        np.percentile(hot_fractions(lab.model, lab.sae, (8, 13, 5)[:n], lab.framed_retain, 1000), 95) for n in beside
    ]
    assert table["threshold"].tolist() == pytest.approx([*tried, *taus])
    assert table["chosen"].sum() == 1 + len(beside) and table["chosen"][len(tried) :].all()
