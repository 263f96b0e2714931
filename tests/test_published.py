"""The papers' numbers carry their source, and are the published ones where those can be looked up."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers.engine.features import select_by_sparsity
from helpers.experiments import conditional
from helpers.lab.lab import Lab
from helpers.lab.published import published_statistics
from helpers.loading.data import NO_FORGET_TEXT
from helpers.loading.hub import Hub
from helpers.measures.metrics import alignment, unlearning_score
from helpers.profiles import load_profile
from helpers.published import available_tables, load_published, of_layer
from tests.benchmarks.guard import published_overhead

PUBLISHED = Path(__file__).parents[2] / "shared" / "published"


@pytest.mark.parametrize("name", available_tables())
def test_every_row_has_a_source(name):
    assert load_published(name)["source"].str.len().gt(10).all()


def test_an_unknown_table_lists_the_known():
    with pytest.raises(ValueError, match="'fig9' is unknown, the known ones are: dsg2025_features, dsg2025_latency"):
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


def test_the_numbers_that_the_claims_quote_are_the_tables():
    curve = load_published("farrell2024_fig4").set_index("strength")
    quoted = {0: (0.995, 0.0), 15: (0.21, 0.78), 16: (0.027, 0.97), 200: (0.0012, 0.997)}
    for strength, (p_a, p_c) in quoted.items():
        assert curve.loc[strength, ["p_A", "p_C"]].tolist() == pytest.approx([p_a, p_c], abs=5e-3)
    assert curve.loc[15, "loss_added"] == pytest.approx(5.3e-6, abs=5e-8)
    points = load_published("farrell2024_fig5").query("layer == 3 and method == 'static clamp'")
    at_50 = points[points["strength"] == 50].sort_values("n_features")
    assert at_50["forget_accuracy"].round(2).tolist() == [0.58, 0.48, 0.42]
    assert at_50["side_accuracy"].round(2).tolist() == [0.96, 0.92, 0.86]
    (strongest,) = points.query("n_features == 50 and strength == 100").itertuples()
    found = strongest.near_accuracy, strongest.side_accuracy, strongest.forget_accuracy
    assert [round(x, 2) for x in found] == [0.30, 0.65, 0.32]
    runs = conditional.published_points()
    best = runs.loc[runs.groupby("method")["alignment"].idxmax()].set_index("method")["alignment"].round(2)
    clamps = ["Clamp Prime", "Clamp Prime, proportional"]
    assert best[["Refusal Clamp", "RMU", "unconditional add"]].tolist() == [0.82, 0.81, 0.18]
    assert best[clamps].tolist() == [0.61, 0.79]
    assert runs["method"].isin(clamps).sum() == 48 and (runs["method"] == "RMU").sum() == 15
    (prime,) = runs[(runs["method"] == clamps[1]) & (runs["setting"] == "10 features x100")].itertuples()
    assert [round(prime.bad_retention, 2), round(prime.good_retention, 2)] == [0.13, 0.91]
    table = load_published("dsg2025_tables").query("benchmark == 'wmdp-bio'").set_index("method")
    assert table.loc["DSG", ["forget_accuracy", "side_accuracy"]].tolist() == pytest.approx([0.296, 0.993], abs=5e-4)
    assert table.loc[["DSG", "RMU", "static clamp"], "forget_accuracy"].round(2).tolist() == [0.30, 0.50, 0.59]
    cyber = load_published("dsg2025_tables").query("benchmark == 'wmdp-cyber'").set_index("method")
    assert cyber.loc["RMU", "forget_accuracy"] == 0.88


def test_a_guards_published_price_is_the_papers_per_cents():
    found = {method: [published_overhead(n, method) for n in (256, 512, 1024)] for method in ("DSG", "static clamp")}
    assert [f"{x:.1%}" for x in found["DSG"]] == ["7.3%", "3.6%", "3.6%"]
    assert [f"{x:.1%}" for x in found["static clamp"]] == ["7.0%", "2.5%", "3.1%"]
    assert np.isnan(published_overhead(300, "DSG"))


def test_ten_features_along_their_own_decoders_are_figure_5s():
    """The control's own clamps are points of Fig. 5; losses were measured on other batches, and differ by 0.007."""
    ours = load_published("farrell2024_random_decoder").query("decoder == 'own'").set_index("strength")
    points = load_published("farrell2024_fig5").query("layer == 3 and method == 'static clamp' and n_features == 10")
    points = points.set_index("strength")
    assert points.index.tolist() == [1, 5, 10, 50, 100]
    np.testing.assert_allclose(ours["forget_accuracy"][points.index], points["forget_accuracy"], atol=5e-5)
    np.testing.assert_allclose(ours["loss_added"][points.index], points["loss_added"], atol=7e-3)
    counts = load_published("farrell2024_random_decoder")["forget_accuracy"] * 522
    np.testing.assert_allclose(counts, counts.round(), atol=0.03)  # four decimals of counts of 522


def test_single_features_are_the_first_ten_and_three_of_them_lose_most():
    table = load_published("farrell2024_single_features")
    own = table[(table["decoder"] == "own") & (table["strength"] == 100)]
    features = load_published("farrell2024_features").query("sae == 'layer_3/width_16k/average_l0_59'")["feature"]
    assert own["feature"].tolist() == features.tolist()[:10]
    most = own["lost"].nlargest(3)
    assert most.tolist() == [174, 161, 121] and round(most.sum() / own["lost"].sum(), 2) == 0.79
    both = table.pivot(index=["feature", "strength"], columns="decoder", values="lost").dropna()
    assert len(both) == 16 and (both["next"] <= both["own"]).all()


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this checkout")
def test_the_random_decoders_own_points_equal_the_released_data():
    theirs = pd.read_csv(PUBLISHED / "farrell2024_gemma-2-2b-it_points.csv")
    theirs = theirs.query("question_filter == 'correct_under_all_permutations' and layer == 3 and n_features == 10")
    theirs = theirs[theirs["retain_threshold"] == 0.01].set_index("multiplier")["wmdp_bio_acc"]
    ours = load_published("farrell2024_random_decoder").query("decoder == 'own'").set_index("strength")
    assert len(theirs) == 5
    np.testing.assert_allclose(ours["forget_accuracy"][theirs.index], theirs, atol=5e-5)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this checkout")
def test_points_equal_the_released_data():
    theirs = pd.read_csv(PUBLISHED / "farrell2024_gemma-2-2b-it_points.csv")
    theirs = theirs[theirs["question_filter"] == "correct_under_all_permutations"]
    ours = load_published("farrell2024_fig5")
    pairs = set(zip(theirs["wmdp_bio_acc"].round(6), theirs["mmlu_side_effect_acc"].round(6), strict=True))
    assert len(ours) == 48
    assert set(zip(ours["forget_accuracy"].round(6), ours["side_accuracy"].round(6), strict=True)) <= pairs


def test_khoriatys_runs_pool_mmlu_by_questions():
    """RMU s400 a300 layer 3: (204 * .6078 + 198 * .6263 + 223 * .5919 + 100 * .43) / 725 = .5834, alignment .8065."""
    runs = conditional.published_points().set_index("setting")
    rmu = runs.loc["layer 3, steering 400, alpha 300"]
    assert rmu["alignment"] == pytest.approx(float(alignment(0.5834, 0.5738, 0.3150, 0.5860)), abs=5e-4)
    assert rmu["alignment"] == pytest.approx(0.8065, abs=5e-4)
    # the clamps' runs lack computer science, and so does the base that they are measured from
    clamp = runs[runs["method"] == "Clamp Prime, proportional"].loc["10 features x100"]
    assert clamp["good_retention"] == pytest.approx((0.5648 - 0.25) / (0.5968 - 0.25), abs=5e-4)
    assert runs[runs["method"] == "Refusal Clamp"]["good_retention"].item() == pytest.approx(
        0.8226 / (1 - 0.0649), abs=5e-4
    )
    second_hand = load_published("khoriaty2025_lm_eval")["source"].str.contains("second hand")
    assert second_hand.sum() == 1


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this checkout")
def test_khoriatys_runs_equal_the_released_ones():
    theirs = pd.read_csv(PUBLISHED / "khoriaty2025_gemma-2-2b_lm_eval.csv")
    ours = load_published("khoriaty2025_lm_eval")
    released = ours[~ours["source"].str.contains("second hand|rounded")]
    columns = ["wmdp_bio", "high_school_us_history", "high_school_geography", "human_aging", "college_computer_science",
               "college_biology"]  # fmt: skip
    assert len(released) == len(theirs) == 67
    kinds = {
        "base": "base",
        "rmu": "RMU",
        "clamp_layer7_none": "Clamp Prime",
        "clamp_layer7_proportional": "Clamp Prime",
    }
    pairs = (sorted(zip(kind, *(t[c].fillna(-1) for c in columns), strict=True))
             for kind, t in ((theirs["method"].map(kinds), theirs), (released["method"], released)))  # fmt: skip
    assert next(pairs) == next(pairs)


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published numbers are not beside this checkout")
def test_farrells_features_are_what_their_rule_chooses_from_the_released_rates():
    rates, table = (
        np.load(PUBLISHED / "farrell2024_gemma-2-2b-it_firing_rates.npz"),
        load_published("farrell2024_features"),
    )
    for name, layer in (("gemma-2-2b-it", 3), ("gemma-2-2b-it-layer-7", 7)):
        ours = table[table["sae"] == load_profile(name).sae.id]["feature"]
        pair = rates[f"layer{layer}_forget"], rates[f"layer{layer}_retain"]
        assert ours.tolist() == select_by_sparsity(*pair, 50, 0.01).tolist()


def test_published_features_stand_in_for_statistics_where_there_is_no_forget_text():
    statistics = published_statistics(load_profile("gemma-2-2b-it"))
    rates = statistics["firing_rate"].to_numpy()
    assert (
        select_by_sparsity(rates, np.zeros(16384), 3, 0.01).tolist() == [8786, 3025, 11913] and (rates > 0).sum() == 50
    )
    assert statistics["mean"].isna().all()  # no activations are published, so no rule chooses by them
    assert published_statistics(load_profile("gemma-2-2b-it", notebook="05")).empty


@pytest.mark.parametrize(("notebook", "served"), [("03_multi_feature_pareto", True), ("06_relearning_attack", False)])
def test_only_some_notebooks_go_on_without_forget_text_and_none_silently(notebook, served):
    hub, facts = Hub(), {}
    hub.warnings += [f"{NO_FORGET_TEXT}: no access", "cais/mmlu human_aging/test-*: 224 rows, known are 223"]
    run = SimpleNamespace(notebook=notebook, profile=load_profile("gemma-2-2b-it"), note=facts.update)
    if served:
        Lab._check_published(run, hub, published_features=served)
        assert facts == {"features": "published"}
    else:
        with pytest.raises(
            ValueError,
            match="06_relearning_attack cannot do without forget text. forget text missing: no access; or name a",
        ):
            Lab._check_published(run, hub, published_features=served)


def test_published_rows_are_of_the_layer_that_is_asked_for_or_of_the_first():
    table = load_published("farrell2024_fig5")
    assert set(of_layer(table, 7)["layer"]) == {7} and len(of_layer(table, 7)) == (table["layer"] == 7).sum()
    assert set(of_layer(table, 1)["layer"]) == {table["layer"].iloc[0]} == {3}
