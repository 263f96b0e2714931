"""The papers' numbers carry their source, and are the published ones where those can be looked up."""

from pathlib import Path

import pandas as pd
import pytest

from helpers.metrics import unlearning_score
from helpers.published import available_tables, load_published

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


@pytest.mark.parametrize("name", available_tables())
def test_every_row_has_a_source(name):
    assert load_published(name)["source"].str.len().gt(10).all()


def test_an_unknown_table_lists_the_known():
    with pytest.raises(ValueError, match=r"'fig9' is unknown, the known ones are: dsg2025_tables, farrell2024_fig4"):
        load_published("fig9")


def test_farrells_points_give_the_scores_that_the_claims_quote():
    """SAEBench's rule on the paper's points of layer 3: 0.18 for clamps and 0.56 for RMU."""
    table = load_published("farrell2024_fig5")
    table = table[table["layer"] == 3]
    scores = {
        m: unlearning_score(t["forget_accuracy"].tolist(), t["side_accuracy"].tolist())
        for m, t in table.groupby("method")
    }
    assert scores == pytest.approx({"RMU": 0.5594, "static clamp": 0.1820}, abs=1e-4)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this checkout")
def test_points_equal_the_released_data():
    theirs = pd.read_csv(PUBLISHED / "farrell2024_gemma-2-2b-it_points.csv")
    theirs = theirs[theirs["question_filter"] == "correct_under_all_permutations"]
    ours = load_published("farrell2024_fig5")
    pairs = set(zip(theirs["wmdp_bio_acc"].round(6), theirs["mmlu_side_effect_acc"].round(6), strict=True))
    assert len(ours) == 48
    assert set(zip(ours["forget_accuracy"].round(6), ours["side_accuracy"].round(6), strict=True)) <= pairs
