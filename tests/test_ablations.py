"""Notebook 15's tables: settings moved one at a time, distances by hand, what others found below ours."""

import numpy as np
import pandas as pd
import pytest

from helpers.engine.features import hot_fractions
from helpers.experiments import ablations
from helpers.experiments.guardrail import rho_table
from helpers.lab.scores import Scored, Scores
from helpers.methods import DSG
from helpers.profiles import load_profile
from tests.toy import ToyLab, toy_scores

# by E[f^2] on forget text 0, 1, 2, ...; by ratio 5, 4, 3, ...
FORGET = np.array([36.0, 25.0, 16.0, 9.0, 4.0, 1.0])
RETAIN = FORGET * np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])


class Lab(ToyLab):
    """The toy lab with moments of six features, that notes which settings were asked of which half."""

    def __init__(self, **sizes) -> None:
        super().__init__(
            {f"ablations.{key}": value for key, value in sizes.items()} | {"selection.forget_percentile": 0.0}
        )
        self.asked: list = []

    def firing_rates(self):
        return tuple(pd.DataFrame({"mean": np.sqrt(x), "mean_square": x}) for x in (FORGET, RETAIN))

    def sweep(self, settings, half):
        assert half == 1
        self.asked += settings
        tables = self.judged.under([setting.apply(self) for setting in settings])
        return Scores(Scored(s, s.label, {}, table) for s, table in zip(settings, tables, strict=True))


def ours(table):
    return table[table["world"] == ablations.OURS]


def test_features_at_another_ratio_are_the_most_important_of_those_that_pass():
    """At 60 the three highest ratios pass, features 3, 4 and 5; at 0 all do, and importance alone decides."""
    assert ablations.features_at(Lab(), 60.0, 2) == (3, 4)
    assert ablations.features_at(Lab(), 0.0, 2) == (0, 1)
    with pytest.raises(ValueError, match=r"^4 features are asked for, p_ratio 60 leaves 3: lower ablations.ratio_perc"):
        ablations.features_at(Lab(), 60.0, 4)


def test_only_the_features_and_their_threshold_change_with_the_ratio():
    lab, setting = Lab(ratio_percentiles=[0.0, 60.0]), DSG(2, 4.0, features=(3, 1))
    found = ours(ablations.over_ratios(lab, setting))
    assert lab.asked == [DSG(2, 4.0, features=(0, 1)), DSG(2, 4.0, features=(3, 4))]
    assert found["ratio_percentile"].tolist() == [0, 60] and found["shared"].tolist() == [1, 1]
    taus = [
        np.percentile(hot_fractions(lab.model, lab.sae, ids, lab.framed_retain, 999), 95) for ids in ((0, 1), (3, 4))
    ]
    assert found["threshold"].tolist() == pytest.approx(taus)
    assert found["forget_n"].tolist() == [len(lab.judged.questions["toxins"])] * 2


def test_tau_is_a_percentile_of_rho_on_framed_retain_text_and_the_profiles_own_among_them():
    lab, setting = Lab(gate_percentiles=[50.0, 95.0]), DSG(2, 4.0)
    texts = {ablations.RETAIN: lab.framed_retain, ablations.PACKED: lab.retain_rows}
    rho = rho_table(lab.judged, lab.sae, setting.chosen(lab), texts)
    found = ours(ablations.over_thresholds(lab, setting, rho))
    shares = hot_fractions(lab.model, lab.sae, (8, 13), lab.framed_retain, 999)
    assert found["threshold"].tolist() == pytest.approx([np.median(shares), setting.gate(lab, (8, 13)).threshold])
    assert lab.asked == [DSG(2, 4.0, features=(8, 13), threshold=tau) for tau in found["threshold"]]


def test_the_grid_is_read_on_half_one_and_the_reproduction_stands_below():
    table = ablations.strength_grid(toy_scores(DSG, ((90, 60), (100, 100)), ((80, 30), (100, 90))))
    assert ours(table)[["strength", "forget_accuracy", "side_accuracy"]].values.tolist() == [[0, 0.6, 1], [1, 0.3, 0.9]]
    theirs = table[table["world"] != ablations.OURS]
    along = theirs[theirs["n_features"] == 20]
    assert along["strength"].tolist() == [10, 25, 50, 100, 200, 300, 400, 500]
    assert along["forget_accuracy"].tolist() == [0.6413, 0.3086, 0.2993, 0.2993, 0.3011, 0.2955, 0.2974, 0.2937]
    assert theirs["n_features"].tolist()[-3:] == [50, 100, 200] and theirs["side_accuracy"].notna().sum() == 4


def test_ends_are_ours_at_the_lowest_and_the_highest_value():
    rows = [("ours", 9, 0.1), ("ours", 1, 0.2), ("ours", 5, 0.3), ("theirs", 99, 0.4)]
    table = pd.DataFrame(rows, columns=["world", "p", "forget_accuracy"]).assign(near_accuracy=1.0, side_accuracy=0.5)
    found = ablations.ends(table, "p").set_index(["variable", "end"])["value"]
    assert found["forget_accuracy"].to_dict() == {"lowest": 0.2, "highest": 0.1} and len(found) == 6


# --- rho or raw counts ------------------------------------------------------------------------------------------------


def test_total_variation_by_hand():
    """Shares of three bins: 3/4, 1/4, 0 and 1/4, 1/4, 2/4, which differ by 2/4, 0 and 2/4."""
    a, b, edges = np.array([0.1, 0.2, 0.3, 1.5]), np.array([0.9, 1.1, 2.5, 3.0]), np.array([0.0, 1.0, 2.0, 3.0])
    assert ablations.total_variation(a, b, edges) == ablations.total_variation(b, a, edges) == 0.5
    assert ablations.total_variation(a, a, edges) == 0
    assert ablations.total_variation(a, np.full(7, 2.5), edges) == 1


def rho_of(*sources):
    """`rho_table`: (role, rho, tokens, how many)."""
    rows = [(role, rho, tokens) for role, rho, tokens, n in sources for _ in range(n)]
    return pd.DataFrame(rows, columns=["role", "rho", "tokens"])


def test_length_hides_the_hazard_from_counts_and_not_from_rho():
    """Half of 20 tokens and a tenth of 100 are ten hot tokens each; of questions of one length both say the same."""
    rho = rho_of(("forget", 0.5, 20, 30), ("packed retain text", 0.1, 100, 40), ("side", 0.1, 20, 50),
                 ("forget text", 0.9, 100, 9))  # fmt: skip
    table = ours(ablations.separations(rho, 10, 50)).set_index(["against", "statistic"])
    assert table["tvd"].to_dict() == {
        ("packed retain text", "rho"): 1, ("packed retain text", "raw counts"): 0,
        ("side", "rho"): 1, ("side", "raw counts"): 1,
    }  # fmt: skip
    assert table["difference"].tolist() == table["difference_low"].tolist() == table["difference_high"].tolist()
    assert table["difference"].tolist() == [0, 1, 0, 0]
    assert table[["positives", "negatives"]].values.tolist() == [[30, 40], [30, 40], [30, 50], [30, 50]]


def test_intervals_are_of_both_statistics_in_the_same_resamples():
    draw = np.random.default_rng(1)
    rho = rho_of(
        *(("forget", x, 20, 1) for x in draw.uniform(0.2, 1, 60)),
        *(("side", x, 20, 1) for x in draw.uniform(0, 0.8, 60)),
    )
    table = ours(ablations.separations(rho, 8, 200))
    one, other = table[["tvd", "tvd_low", "tvd_high"]].to_numpy()
    np.testing.assert_allclose(one, other)  # all of one length: counts are rho in other units, resample by resample
    np.testing.assert_allclose(table[["difference_low", "difference_high"]], 0, atol=1e-12)
    assert one[1] < one[0] < one[2] and one[2] - one[1] > 0.05


def test_where_nothing_is_hot_nothing_is_apart():
    table = ours(ablations.separations(rho_of(("forget", 0.0, 9, 3), ("side", 0.0, 9, 3)), 5, 10))
    assert table["tvd"].tolist() == [0, 0]


def test_papers_distances_stand_below():
    table = ablations.separations(rho_of(("forget", 0.5, 9, 3), ("side", 0.0, 9, 3)), 5, 10)
    theirs = table[table["world"] != ablations.OURS].pivot(index="world", columns="statistic", values="tvd")
    assert theirs.loc["gemma-2-2b-it, the paper (second hand)"].to_dict() == {"rho": 0.9, "raw counts": 0.41}
    assert len(theirs) == 2


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("ratio_percentiles", [101.0], "ratio_percentiles.0 = 101.0: input should be less than or equal to 100"),
        ("gate_percentiles", [], "ablations.gate_percentiles = .*: tuple should have at least 1 item"),
        ("bins", 0, "ablations.bins = 0: input should be greater than 0"),
    ],
)  # fmt: skip
def test_percentiles_that_are_none_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        load_profile("tiny", {f"ablations.{setting}": value})
