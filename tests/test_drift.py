"""The drift of the residual, against a loop over tokens, and at what can be said without one."""

import pytest
import torch

from helpers.engine.forward import clone, huggingface
from helpers.measures.drift import residual_drift
from tests.toy import toy_model

ROWS = torch.arange(10, 46).view(3, 12)


def test_drift_is_the_mean_over_tokens_without_bos():
    before, after = toy_model(0), toy_model(1)
    table = residual_drift(before, after, ROWS, 24).set_index(["measure", "layer"])
    streams = [huggingface(m)(input_ids=ROWS, output_hidden_states=True).hidden_states for m in (before, after)]
    for layer in range(3):  # what Hugging Face gives after the last layer is normed
        first, last = (stream[layer + 1] for stream in streams)
        pairs = [[(first[r, t], last[r, t]) for t in range(1, 12)] for r in range(3)]
        cosines = [sum(float(a @ b / a.norm() / b.norm()) for a, b in row) / 11 for row in pairs]
        ratios = [sum(float(b.norm() / a.norm()) for a, b in row) / 11 for row in pairs]
        for measure, values in (("cosine", cosines), ("norm ratio", ratios)):
            found, mean = table.loc[(measure, layer)], sum(values) / 3
            error = (sum((x - mean) ** 2 for x in values) / 2 / 3) ** 0.5
            assert found["value"] == pytest.approx(mean, abs=1e-5) and found["n"] == 3
            assert found["high"] - mean == pytest.approx(1.959964 * error, rel=1e-3, abs=1e-5)


def test_a_model_that_did_not_change_has_not_moved():
    model = toy_model()
    table = residual_drift(model, clone(model), ROWS, 1000)
    assert table["value"].tolist() == pytest.approx([1.0] * 8, abs=1e-6)
    assert table["layer"].tolist() == [0, 1, 2, 3] * 2
