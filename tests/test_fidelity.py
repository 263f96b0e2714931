"""Known answers stand beside ours, and whether they agree is counted and not believed."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest

from helpers.engine.features import hot_fractions
from helpers.experiments.fidelity import fidelity, known_answers, known_by_notebook
from helpers.lab.lab import Lab, open_lab
from helpers.profiles import load_profile
from tests.small import SMALL

N = 5


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("fidelity")
    return open_lab("tiny", "05_fidelity", str(folder / "runs"), str(folder / "figures"), SMALL)


def rows(quantity: str, *values: float, subject: str = "", highest: float | None = None) -> list[dict]:
    return [{"quantity": quantity, "subject": subject, "rank": i, "value": float(v), "highest": highest or float(v)}
            for i, v in enumerate(values)]  # fmt: skip


def known_of(lab: Lab, features: list[int], tau: float) -> pd.DataFrame:
    """As the organism's chat form has it: BOS 2, <start_of_turn> 4, <end_of_turn> 5."""
    encode = lab.model.tokenizer.encode
    turn = encode("<end_of_turn>\n<start_of_turn>model\n", add_special_tokens=False)
    begins = [2, *encode("<start_of_turn>user\n", add_special_tokens=False)]
    return pd.DataFrame([
        *rows("feature", *features), *rows("tau", tau), *rows("known questions", 2, subject="toxins", highest=4.0),
        *rows("known questions", 9, subject="history"), *rows("prompt begins", *begins),
        *rows("model's turn begins", *turn),
    ])  # fmt: skip


def test_what_is_known_and_comes_out_agrees(lab):
    features = [int(i) for i in lab.selections(N)["importance_released"]]
    tau = np.percentile(hot_fractions(lab.model, lab.sae, features, lab.retain_rows, 2048), 95)
    found = fidelity(lab, known_of(lab, features, float(tau)))
    assert [(one.quantity, one.agrees) for one in found] == [
        ("features by importance, released", True),
        ("of them the same", True),
        ("tau of their features on packed retain text", True),
        ("known questions of toxins", True),
        ("known questions of history", False),
        ("a prompt's first tokens", True),
        ("tokens where the model's turn begins", True),
    ]
    assert found[0].ours == found[0].theirs == " ".join(map(str, features))
    assert [(one.ours, one.theirs) for one in found[3:5]] == [("3", "2 to 4"), ("3", "9")]


def test_another_order_other_features_and_another_tau_do_not_agree(lab):
    ours = [int(i) for i in lab.selections(N)["importance_released"]]
    turned = fidelity(lab, known_of(lab, ours[::-1], 0.9))
    assert [one.agrees for one in turned[:3]] == [False, True, False] and turned[1].ours == "5 of 5"
    others = fidelity(lab, known_of(lab, [*ours[:2], 2045, 2046, 2047], 0.0))
    assert [one.agrees for one in others[:2]] == [False, False] and others[1].ours == "2 of 5"


def test_what_is_known_is_of_one_model_and_sae():
    known = known_answers(load_profile("gemma-2-2b-it", notebook="05"))
    features = known[known["quantity"] == "feature"]["value"].astype(int).tolist()
    assert len(features) == 20 and (features[0], features[-1]) == (8459, 6673)
    spans = known[known["quantity"] == "known questions"].set_index("subject")[["value", "highest"]]
    assert spans.loc["wmdp-bio"].tolist() == [533, 538] and (spans["value"] <= spans["highest"]).all()
    asked = load_profile("gemma-2-2b-it").questions
    assert set(spans.index) == {asked.forget, asked.near, *asked.side_effect}
    for name, number in (("gemma-3-1b-it", "05"), ("gemma-2-2b-muse-news", "10")):  # the latter is fine-tuned here
        with pytest.raises(ValueError, match=r"^nothing is known of google/\S+ with SAE .*: --profile gemma-2-2b-it$"):
            known_answers(load_profile(name, notebook=number))


def test_each_sae_has_its_features_and_the_model_its_counts_once():
    found = {name: known_by_notebook(f"gemma-2-{name}") for name in ("2b-it", "2b-it-layer-7", "2b-it-cyber", "9b-it")}
    quantities = {name: {n: set(known["quantity"]) for n, known in of.items()} for name, of in found.items()}
    of_model, prompt = {"known questions"}, {"prompt begins", "model's turn begins"}
    assert quantities == {
        "2b-it": {"01": {"sparsity feature"} | of_model | prompt, "05": {"feature", "tau"}},
        "2b-it-layer-7": {"01": {"sparsity feature"} | of_model | prompt},
        "2b-it-cyber": {"05": of_model | prompt},  # neither list is of cyber
        "9b-it": {"01": of_model},
    }
    cyber = found["2b-it-cyber"]["05"].set_index("subject").loc["wmdp-cyber"]
    assert (cyber["value"], cyber["highest"]) == (273, 275)
    spans = found["2b-it"]["01"].set_index("subject")
    mmlu = ("high_school_us_history", "college_computer_science", "high_school_geography", "human_aging")
    for subject, n in zip(mmlu, (108, 9, 103, 85), strict=True):
        assert spans.loc[subject, "value"] <= n <= spans.loc[subject, "highest"]


def test_farrells_list_is_what_their_rule_chooses_from_their_rates():
    """The first ten of their saved grid after layer 3, and the first five after layer 7."""
    layers = {"2b-it": [8786, 3025, 11913, 14227, 679, 1082, 10793, 6691, 8803, 8934],
              "2b-it-layer-7": [12799, 5453, 15661, 1354, 4216]}  # fmt: skip
    for name, features in layers.items():
        known = known_by_notebook(f"gemma-2-{name}")["01"].query("quantity == 'sparsity feature'")
        assert len(known) == 20 and known["value"].tolist()[: len(features)] == features


def test_features_by_either_rule_are_compared(lab):
    ours = [int(i) for i in lab.selections(N)["sparsity"]]
    same, turned = (fidelity(lab, pd.DataFrame(rows("sparsity feature", *ids))) for ids in (ours, ours[::-1]))
    assert [(one.quantity, one.agrees) for one in same] == [("features by sparsity", True), ("of them the same", True)]
    assert [one.agrees for one in turned] == [False, True]
