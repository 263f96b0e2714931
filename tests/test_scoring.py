"""The scorer equals a ten-line loop of plain Hugging Face calls, whatever the batch, the padding or the short cut."""

import pytest
import torch

from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Add, Clamp, Gate, hot_fraction
from helpers.engine.scoring import (
    NOTHING_KEPT,
    Sweep,
    answer_probabilities,
    at_the_end,
    is_right,
    known_questions,
    loss_added,
    mean_loss,
    question_batches,
    read_batches,
    read_letter_logits,
    read_letters,
    read_loss,
    read_rows,
    row_batches,
)
from helpers.engine.trees import Trees
from helpers.loading.data import WORLD_SEED
from helpers.loading.models import load_model
from helpers.organism.world import build_world
from helpers.profiles import CacheSettings
from helpers.text.questions import ORDERS, ORIGINAL_ORDER, prompt_tokens
from helpers.text.tokens import letter_ids
from tests.toy import D_SAE, LAYER, toy_model, toy_sae

FEATURES = [3, 5, 8, 13]
KEPT = CacheSettings(memory_mb=16, disk_mb=0)


@pytest.fixture(scope="module", params=[8, 512], ids=["window of 8", "wide window"])
def model(request):
    """Prompts of 40 to 60 tokens are longer than the first window, and shorter than the second."""
    return toy_model(sliding_window=request.param)


@pytest.fixture(scope="module")
def questions():
    world = build_world(WORLD_SEED)
    return [*world.questions("toxins")[:3], *world.questions("history")[:2]]


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


def sweep_over(model, questions, orders, batch_tokens=1000, layer=LAYER, kept=KEPT):
    """(The batches, a sweep over them.) Two orders and more are trees, but where prompts are longer than the window."""
    batched = list(question_batches(model, questions, orders, "chat", batch_tokens))
    return batched, Sweep(model, batched, layer, read_letters, kept)


@pytest.mark.parametrize(
    "clamp",
    [
        Clamp(toy_sae(), FEATURES, -20.0),
        Clamp(toy_sae(), FEATURES, -20.0, "any"),
        Clamp(toy_sae(), FEATURES, -20.0, "any", Gate(0.3)),
        Clamp(toy_sae(), FEATURES, -20.0, "any", Gate(1.0)),
        Clamp(toy_sae(), range(D_SAE), 0.0),
        Clamp(toy_sae(), [1], 30.0, "any", triggers=FEATURES, fires_above=1.5),
        Clamp(toy_sae(), FEATURES, Add(-3.0), "always"),
        Clamp(toy_sae(), FEATURES, Add(-3.0), "always", bos=True),
        Clamp(toy_sae(), [1], 30.0, "any", triggers=FEATURES, keep_error=False),
    ],
    ids=["own", "any", "gate", "shut", "all features", "refusal", "add", "add at BOS too", "no error term"],
)
@pytest.mark.parametrize("orders", [ORIGINAL_ORDER, ORDERS[:6]], ids=["rows", "trees"])
def test_scorer_and_sweep_equal_brute_force(model, questions, orders, clamp):
    theirs = brute_force(model, questions, orders, clamp)
    plain = answer_probabilities(model, questions, clamp, orders)
    batched, sweep = sweep_over(model, questions, orders, 150)
    swept = sweep.edited(clamp).view_as(plain)
    torch.testing.assert_close(plain, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(swept, theirs, atol=1e-5, rtol=0)
    assert isinstance(batched[0], Trees) == (len(orders) > 1 and huggingface(model).config.sliding_window > 60)


def rho_of_prompts(model, questions, orders, clamp):
    """Hot fraction of every prompt, each run alone."""
    rows = prompt_tokens(model.tokenizer, questions, orders, "chat")
    hot = [clamp.hot(residual_after(model, next(row_batches(model, [row], 1)), LAYER)) for row in rows]
    return torch.cat([hot_fraction(h, torch.ones_like(h)) for h in hot])


def test_a_gate_that_opens_for_some_orders_of_a_question_only(model, questions):
    """The orders of one question have different hot fractions: the gate is at one of them, and at an edge."""
    ungated = Clamp(toy_sae(), FEATURES, -20.0, "any")
    rho = rho_of_prompts(model, questions, ORDERS, ungated).view(len(questions), -1)
    torn = int((rho.max(dim=1).values - rho.min(dim=1).values).argmax())
    edge = float(rho[torn].min())
    assert edge < rho[torn].max()
    clamp = Clamp(toy_sae(), FEATURES, -20.0, "any", Gate(edge))
    _, sweep = sweep_over(model, questions, ORDERS)
    edited, opened = sweep.edited(clamp), (rho > edge).flatten()
    torch.testing.assert_close(edited.view(len(questions), 24, 4), brute_force(model, questions, ORDERS, clamp))
    assert torch.equal(edited[~opened], sweep.unedited[~opened])
    assert not torch.equal(edited[opened], sweep.unedited[opened])


@pytest.mark.parametrize("kept", [KEPT, NOTHING_KEPT, CacheSettings(memory_mb=0, disk_mb=1)])
def test_many_interventions_at_once_equal_each_alone_wherever_residuals_are_kept(model, questions, kept):
    clamps = [Clamp(toy_sae(), FEATURES[:k], -20.0) for k in (0, 1, 4)]
    _, sweep = sweep_over(model, questions, ORDERS[:2], 150, kept=kept)
    together = sweep.edited_by_each(clamps)
    for clamp, found in zip(clamps, together, strict=True):
        assert torch.equal(sweep_over(model, questions, ORDERS[:2], 150)[1].edited(clamp), found)
    assert torch.equal(together[0], sweep.unedited)
    assert torch.equal(sweep.edited_by_each(clamps), together)


def test_letter_logits_say_what_letter_probabilities_say(model, questions):
    """Both from all logits by hand: the larger of 'A' and ' A', before and after the softmax."""
    rows = prompt_tokens(model.tokenizer, questions, ORDERS[:4], "chat")
    batched = list(question_batches(model, questions, ORDERS[:4], "chat", 300))
    logits, probabilities = (read_batches(model, batched, read) for read in (read_letter_logits, read_letters))
    with torch.no_grad():
        theirs = [huggingface(model)(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1] for row in rows]
    ids = letter_ids(model.tokenizer)
    torch.testing.assert_close(logits, torch.stack([z[ids].amax(dim=0) for z in theirs]))
    torch.testing.assert_close(probabilities, torch.stack([z.softmax(-1)[ids].amax(dim=0) for z in theirs]))
    assert torch.equal(logits.argmax(dim=-1), probabilities.argmax(dim=-1))


def test_the_clamp_matters_here(model, questions):
    before = answer_probabilities(model, questions, None, ORIGINAL_ORDER)
    after = answer_probabilities(model, questions, Clamp(toy_sae(), FEATURES, -20.0), ORIGINAL_ORDER)
    assert ((before - after).abs() > 0.1 * before).any()


def test_no_features_leave_the_answers_bit_equal(model, questions):
    before = answer_probabilities(model, questions, None, ORIGINAL_ORDER)
    assert torch.equal(answer_probabilities(model, questions, Clamp(toy_sae(), [], -20.0), ORIGINAL_ORDER), before)


def test_sweep_runs_only_the_rows_that_change(model, questions, monkeypatch):
    """With a gate between the rows' hot fractions, only those above it are run; the others stay bit-equal."""
    _, sweep = sweep_over(model, questions, ORIGINAL_ORDER, 10_000)
    rho = rho_of_prompts(model, questions, ORIGINAL_ORDER, Clamp(toy_sae(), FEATURES, -20.0, "any"))
    gate = Gate(float(rho.sort().values[2]))
    ran = []
    noting = at_the_end(lambda model, state, part: ran.extend(part.rows.tolist()) or read_letters(model, state, part))
    monkeypatch.setattr(sweep, "read", noting)
    before = sweep.unedited
    ran.clear()
    edited = sweep.edited(Clamp(toy_sae(), FEATURES, -20.0, "any", gate))
    expected = [i for i, r in enumerate(rho) if r > gate.threshold]
    assert 0 < len(expected) < len(questions)
    assert sorted(ran) == expected
    untouched = [i for i in range(len(questions)) if i not in expected]
    assert torch.equal(edited[untouched], before[untouched])


def test_a_sweep_refuses_another_layer_and_an_empty_list(model, questions):
    _, sweep = sweep_over(model, questions, ORIGINAL_ORDER, layer=2)
    with pytest.raises(ValueError, match="no interventions"):
        sweep.edited_by_each([])
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
    questions = build_world(WORLD_SEED).questions("toxins")[12:36]
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


def test_row_loss_does_not_depend_on_the_chunk(model, monkeypatch):
    rows = [[2, *range(10, 40)], [2, *range(50, 70)]]
    whole = read_rows(model, rows, read_loss, None, 1000)
    monkeypatch.setattr("helpers.engine.scoring.CHUNK_LOGITS", 3 * huggingface(model).config.vocab_size)
    torch.testing.assert_close(read_rows(model, rows, read_loss, None, 1000), whole, atol=1e-5, rtol=0)


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
