"""Verdicts follow from rows, and the README's table is not stale."""

import pandas as pd
import pytest

from helpers.claims import (
    CLAIMS,
    NOT_RUN,
    README,
    _clamp_of_one,
    _near_falls,
    _rmu_relearns,
    markdown,
    verdicts,
    with_claims,
)
from helpers.provenance import ROOT


def curve(probabilities):
    rows = [("ours, tiny", s, "A", True, p, 0.0) for s, p in probabilities.items()]
    return pd.DataFrame(rows, columns=["world", "strength", "letter", "right", "probability", "loss_added"])


def test_a_clamp_that_flips_the_answer_agrees_and_one_that_does_not_disagrees():
    assert _clamp_of_one(curve({-1: 0.99, 0: 0.98, 5: 0.05})) == ("p(right) 0.05 at c = 5", "agrees")
    assert _clamp_of_one(curve({-1: 0.99, 0: 0.98, 5: 0.6}))[1] == "disagrees"


def test_the_near_domain_falls_further_only_if_the_intervals_do_not_overlap():
    row = {"method": "static clamp", "forget_accuracy": 0.3, "near_accuracy": 0.5, "near_low": 0.4, "near_high": 0.6,
           "side_accuracy": 0.8, "side_low": 0.7, "side_high": 0.9}  # fmt: skip
    assert _near_falls(pd.DataFrame([row]))[1] == "agrees"
    assert _near_falls(pd.DataFrame([{**row, "side_low": 0.55}]))[1] == "disagrees"


def test_relearning_is_the_mean_over_seeds():
    rows = [
        ("RMU", seed, epoch, "forget", a) for seed, epoch, a in ((0, 0, 0.4), (1, 0, 0.6), (0, 5, 0.8), (1, 5, 1.0))
    ]
    table = pd.DataFrame(rows, columns=["arm", "seed", "epoch", "role", "accuracy"])
    assert _rmu_relearns(table) == ("forget 0.50 before, 0.90 after", "agrees")


def test_a_figure_that_is_not_there_is_not_run(tmp_path):
    table = verdicts(tmp_path)
    assert len(table) == len(CLAIMS)
    assert set(table["verdict"]) == {NOT_RUN}
    assert len(verdicts(tmp_path, "06")) == 3


def test_the_table_goes_between_its_marks(tmp_path):
    table = pd.DataFrame([("c", "p", "o", "agrees")], columns=["claim", "paper", "ours", "verdict"])
    text = with_claims(README.read_text(encoding="utf-8"), table)
    assert markdown(table) in text
    assert with_claims(text, table) == text
    with pytest.raises(ValueError, match="lacks the marks"):
        with_claims("no marks", table)


def test_the_readmes_table_is_not_stale():
    text = README.read_text(encoding="utf-8")
    assert with_claims(text, verdicts(ROOT / "figures" / "tiny")) == text, "run python -m helpers.claims"


def test_every_claim_was_tested_on_tiny():
    assert NOT_RUN not in set(verdicts(ROOT / "figures" / "tiny")["verdict"])
