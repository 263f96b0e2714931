"""Verdicts follow from rows, and the README's table is not stale."""

import pandas as pd
import pytest

from helpers.records.provenance import ROOT
from helpers.report.claims import (
    CLAIMS,
    NOT_RUN,
    README,
    _clamp_of_one,
    _clamp_prime_forgets,
    _clamps_near_rmu,
    _condition_is_needed,
    _dsg_holds,
    _dsg_is_best,
    _near_falls,
    _refusal_is_best,
    _rmu_relearns,
    _saturation,
    markdown,
    verdicts,
    with_claims,
)


def curve(right, wrong):
    """Our clamp curve with p(right) (letter A) and p(B) by strength."""
    rows = [("ours, tiny", s, "A", True, right[s], 0.0) for s in right]
    rows += [("ours, tiny", s, "B", False, wrong[s], 0.0) for s in right]
    return pd.DataFrame(rows, columns=["world", "strength", "letter", "right", "probability", "loss_added"])


def test_a_flip_means_that_another_letter_is_said():
    flipped = curve({-1: 0.99, 0: 0.98, 5: 0.05, 9: 0.01}, {-1: 0.01, 0: 0.02, 5: 0.9, 9: 0.95})
    assert _clamp_of_one(flipped) == ("p(right) 0.05, p(B) 0.90 at c = 5", "agrees")
    assert _saturation(flipped)[1] == "agrees"
    assert _clamp_of_one(curve({-1: 0.99, 0: 0.98, 5: 0.6}, {-1: 0.0, 0: 0.0, 5: 0.4}))[1] == "disagrees"


def test_a_model_that_says_no_letter_any_more_has_not_flipped():
    collapsed = curve({-1: 0.99, 0: 0.98, 5: 0.05, 9: 1e-6}, {-1: 0.01, 0: 0.02, 5: 0.9, 9: 1e-5})
    assert _saturation(collapsed)[1] == "partly"
    assert _clamp_of_one(curve({-1: 0.99, 0: 0.98, 5: 1e-6}, {-1: 0.0, 0: 0.0, 5: 1e-5}))[1] == "disagrees"


def test_the_near_domain_falls_further_only_beyond_chance():
    row = {"method": "static clamp", "forget_accuracy": 0.3, "near_accuracy": 0.5, "near_n": 100, "side_accuracy": 0.8,
           "side_n": 500}  # fmt: skip
    assert _near_falls(pd.DataFrame([row]))[1] == "agrees"
    assert _near_falls(pd.DataFrame([{**row, "near_n": 4}]))[1] == "disagrees"


def held_out(**forget):
    rows = [("chosen on one half, reported on the other", m, "s", a, a - 0.1, a + 0.1, 100) for m, a in forget.items()]
    columns = ["protocol", "method", "setting", "forget_accuracy", "forget_low", "forget_high", "forget_n"]
    return pd.DataFrame(rows, columns=columns)


def test_dsg_is_best_on_questions_it_was_not_chosen_on():
    same = held_out(DSG=0.1).assign(protocol="chosen and reported on the same questions")
    table = held_out(DSG=0.4, RMU=0.7, **{"static clamp": 0.45})
    assert _dsg_is_best(pd.concat([same, table]))[1] == "partly"  # 40 and 45 of 100 do not differ beyond chance
    assert _dsg_is_best(held_out(DSG=0.4, RMU=0.7))[1] == "agrees"  # static clamps have no setting at all
    assert _dsg_is_best(held_out(DSG=0.8, RMU=0.7, **{"static clamp": 0.45}))[1] == "disagrees"


def aligned(**found):
    """Rows of the alignment table: method -> (alignment, R_good, R_bad), each with an interval of +-0.1."""
    rows = []
    for method, values in found.items():
        row = {"protocol": "chosen on one half, reported on the other", "method": method.replace("_", " ")}
        for name, x in zip(("alignment", "good_retention", "bad_retention"), values, strict=True):
            row |= {name: x, f"{name}_low": x - 0.1, f"{name}_high": x + 0.1}
        rows.append(row | {"setting": "s"})
    return pd.DataFrame(rows)


def test_conditional_clamps_are_judged_by_their_intervals():
    table = aligned(Clamp_Prime=(0.6, 0.95, 0.37), RMU=(0.7, 0.9, 0.2), unconditional_add=(0.3, 0.4, 0.3),
                    Refusal_Clamp=(0.65, 0.9, 0.3))  # fmt: skip
    assert _clamp_prime_forgets(table) == ("R_bad 0.37, R_good 0.95, held out", "agrees")
    assert _refusal_is_best(table)[1] == "partly"  # better than Clamp Prime, not than RMU
    assert _clamps_near_rmu(table)[1] == "agrees"  # 0.6 + 0.1 reaches 0.7 - 0.1
    assert _condition_is_needed(table)[1] == "agrees"
    other = aligned(Clamp_Prime=(0.35, 0.85, 0.6), RMU=(0.7, 0.9, 0.2), unconditional_add=(0.3, 0.4, 0.3))
    assert _clamp_prime_forgets(other)[1] == "disagrees"
    assert _clamps_near_rmu(other)[1] == _condition_is_needed(other)[1] == "disagrees"


def attack(arm, forget, side=(1.0, 1.0)):
    rows = [(arm, seed, epoch, role, a[epoch > 0] + shift) for seed, shift in ((0, -0.1), (1, 0.1))
            for epoch in (0, 5) for role, a in (("forget", forget), ("side", side))]  # fmt: skip
    return pd.DataFrame(rows, columns=["arm", "seed", "epoch", "role", "accuracy"])


def test_relearning_is_the_share_of_the_loss_that_came_back():
    assert _rmu_relearns(attack("RMU", (0.5, 0.8))) == ("forget 0.50 to 0.80: 60% of the loss is back", "agrees")
    assert _rmu_relearns(attack("RMU", (0.5, 0.6)))[1] == "disagrees"


def test_a_guard_that_ruins_the_rest_does_not_hold():
    good, ruined = attack("DSG at test time", (0.3, 0.3)), attack("DSG also in training", (0.3, 0.2), (1.0, 0.7))
    assert _dsg_holds(pd.concat([good, ruined]))[1] == "partly"


def test_a_figure_that_is_not_there_is_not_run(tmp_path):
    table = verdicts(tmp_path)
    assert len(table) == len(CLAIMS)
    assert set(table["verdict"]) == {NOT_RUN}
    assert len(verdicts(tmp_path, "06")) == 2


def test_the_table_goes_between_its_marks(tmp_path):
    table = pd.DataFrame([("c", "p", "o", "agrees")], columns=["claim", "paper", "ours", "verdict"])
    text = with_claims(README.read_text(encoding="utf-8"), table)
    assert markdown(table) in text
    assert with_claims(text, table) == text
    with pytest.raises(ValueError, match="lacks the marks"):
        with_claims("no marks", table)


def test_the_readmes_table_is_not_stale():
    text = README.read_text(encoding="utf-8")
    assert with_claims(text, verdicts(ROOT / "figures" / "tiny")) == text, "run python -m helpers.report.claims"


def test_every_claim_was_tested_on_tiny():
    assert NOT_RUN not in set(verdicts(ROOT / "figures" / "tiny")["verdict"])
