"""The scorer equals a ten-line loop of plain Hugging Face calls, whatever the batch, the padding or the short cut."""

import pytest
import torch

from helpers.data import WORLD_SEED
from helpers.interventions import Clamp, Gate, hot_fraction
from helpers.models import huggingface, load_model
from helpers.organism.world import build_world
from helpers.questions import ORDERS, ORIGINAL_ORDER, prompt_tokens
from helpers.scoring import (
    Sweep,
    answer_probabilities,
    is_right,
    known_questions,
    letter_ids,
    loss_added,
    mean_loss,
    read_letters,
    read_loss,
    read_rows,
)
from tests.toy import LAYER, toy_model, toy_sae

FEATURES = [3, 5, 8, 13]


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def questions():
    world = build_world(WORLD_SEED)
    return [*world.questions("hazard")[:3], *world.questions("history")[:2]]


@pytest.fixture(scope="module")
def model_of_profile(profile):
    return load_model(profile)


def brute_force(model, questions, orders, intervention=None, prompt_format="chat"):
    """One prompt at a time, Hugging Face's own forward, a plain hook, all logits."""
    hf, found = huggingface(model), []
    for row in prompt_tokens(model.tokenizer, questions, orders, prompt_format):
        ids = torch.tensor([row])
        edit = lambda module, args, out, ids=ids: intervention(out, torch.ones_like(ids))  # noqa: E731
        hook = hf.model.layers[LAYER].register_forward_hook(edit) if intervention else None
        with torch.no_grad():
            p = hf(input_ids=ids, use_cache=False).logits[0, -1].softmax(-1)
        if hook:
            hook.remove()
        found.append([max(p[i], p[j]) for i, j in letter_ids(model.tokenizer).T])
    return torch.tensor(found).view(len(questions), len(orders), 4)


@pytest.mark.parametrize("prompt_format", ["plain", "chat"])
@pytest.mark.parametrize("batch_tokens", [1, 150, 100_000])
def test_scorer_equals_brute_force(model, questions, prompt_format, batch_tokens):
    ours = answer_probabilities(model, questions, None, ORDERS[:3], prompt_format, batch_tokens)
    theirs = brute_force(model, questions, ORDERS[:3], None, prompt_format)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("gate", [None, Gate(0.3), Gate(1.0)])
@pytest.mark.parametrize("where", ["own", "any"])
def test_intervened_scorer_and_sweep_equal_brute_force(model, questions, where, gate):
    clamp = Clamp(toy_sae(), FEATURES, -20.0, where, gate)
    theirs = brute_force(model, questions, ORDERS[:2], clamp)
    plain = answer_probabilities(model, questions, clamp, ORDERS[:2])
    rows = prompt_tokens(model.tokenizer, questions, ORDERS[:2], "chat")
    swept = Sweep(model, rows, LAYER, read_letters, 150).edited(clamp).view_as(plain)
    torch.testing.assert_close(plain, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(swept, theirs, atol=1e-5, rtol=0)


def test_the_clamp_matters_here(model, questions):
    before = answer_probabilities(model, questions, None, ORIGINAL_ORDER)
    after = answer_probabilities(model, questions, Clamp(toy_sae(), FEATURES, -20.0), ORIGINAL_ORDER)
    assert ((before - after).abs() > 0.1 * before).any()


def test_no_features_leave_the_answers_bit_equal(model, questions):
    before = answer_probabilities(model, questions, None, ORIGINAL_ORDER)
    assert torch.equal(answer_probabilities(model, questions, Clamp(toy_sae(), [], -20.0), ORIGINAL_ORDER), before)


def test_sweep_runs_only_the_rows_that_change(model, questions, monkeypatch):
    """With a gate between the rows' hot fractions, only those above it are run; the others stay bit-equal."""
    rows = prompt_tokens(model.tokenizer, questions, ORIGINAL_ORDER, "chat")
    sweep = Sweep(model, rows, LAYER, read_letters, 10_000)
    (batch, residual), *_ = sweep._kept
    clamp = Clamp(toy_sae(), FEATURES, -20.0, "any")
    rho = hot_fraction(clamp.hot(residual), batch.mask)[batch.rows.argsort()]
    gate = Gate(float(rho.sort().values[2]))
    ran = []
    monkeypatch.setattr(
        sweep, "_read", lambda model, state, part: ran.extend(part.rows.tolist()) or read_letters(model, state, part)
    )
    edited = sweep.edited(Clamp(toy_sae(), FEATURES, -20.0, "any", gate))
    expected = [i for i, r in enumerate(rho) if r > gate.threshold]
    assert 0 < len(expected) < len(rows)
    assert sorted(ran) == expected
    untouched = [i for i in range(len(rows)) if i not in expected]
    assert torch.equal(edited[untouched], sweep.unedited[untouched])


def test_a_sweep_refuses_another_layer(model, questions):
    sweep = Sweep(model, prompt_tokens(model.tokenizer, questions, ORIGINAL_ORDER, "chat"), 2, read_letters, 1000)
    with pytest.raises(ValueError, match="acts after layer 1, this sweep keeps 2"):
        sweep.edited(Clamp(toy_sae(), FEATURES, -20.0))


def test_right_means_the_letter_under_which_the_right_choice_is_shown(questions):
    """The model that always says the text of choice 2 says letter order.index(2)."""
    probabilities = torch.zeros(1, 24, 4)
    for j, order in enumerate(ORDERS):
        probabilities[0, j, order.index(questions[0].answer)] = 1.0
    assert is_right(probabilities, questions[:1], ORDERS).all()
    assert is_right(probabilities.roll(1, dims=-1), questions[:1], ORDERS).sum() == 0


def test_known_questions_are_right_under_all_24_orders(model_of_profile):
    """On the embedded model, which knows some of these and not others."""
    questions = build_world(WORLD_SEED).questions("hazard")[:24]
    right = is_right(brute_force(model_of_profile, questions, ORDERS), questions, ORDERS)
    expected = [q for q, r in zip(questions, right.all(dim=1), strict=True) if r]
    assert 0 < len(expected) < len(questions)
    assert known_questions(model_of_profile, questions, "chat", 10_000) == expected


def test_row_loss_equals_hugging_face(model):
    rows = [[2, 7, 9, 11, 30], [2, 8, 50], [2, 9, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69]]
    losses = read_rows(model, rows, read_loss, None, 30)
    assert losses[:, 1].tolist() == [4, 2, 11]
    for row, (total, n) in zip(rows, losses.tolist(), strict=True):
        ids = torch.tensor([row])
        theirs = huggingface(model)(input_ids=ids, labels=ids, use_cache=False).loss
        assert total / n == pytest.approx(theirs.item(), abs=1e-5)


def test_mean_loss_weighs_by_tokens():
    assert mean_loss(torch.tensor([[4.0, 2.0], [2.0, 4.0]])) == 1.0


def test_loss_added_is_the_difference_of_two_plain_losses(model):
    rows = [[2, *range(10, 40)], [2, *range(50, 70)]]
    clamp = Clamp(toy_sae(), FEATURES, -20.0)
    plain = [mean_loss(read_rows(model, rows, read_loss, edit, 1000)) for edit in (clamp, None)]
    assert loss_added(model, rows, clamp) == pytest.approx(plain[0] - plain[1], abs=1e-6)
    assert loss_added(model, rows, Clamp(toy_sae(), [], -20.0)) == 0


def test_no_questions_is_an_error(model):
    with pytest.raises(ValueError, match="no questions"):
        answer_probabilities(model, [])
