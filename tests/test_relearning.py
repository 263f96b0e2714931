"""The attack trains on what it says, and only its copy of the model."""

import pytest
import torch

from helpers.attacks.relearning import check_attack_text, lm_loss, relearn
from helpers.engine.forward import final_state, huggingface
from helpers.engine.interventions import Clamp
from helpers.text.batches import Batch
from helpers.text.corpora import Document
from helpers.text.questions import Question
from tests.toy import toy_model, toy_sae

ROWS = torch.arange(10, 58).view(4, 12)
QUESTION = Question(0, "hazard", "What does it do?", ("a", "b", "c", "d"), 0)


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_fine_tuning_learns_the_text_and_leaves_the_original(model):
    batch = Batch(ROWS, torch.ones_like(ROWS, dtype=torch.bool), torch.arange(4))
    before = {k: v.clone() for k, v in huggingface(model).state_dict().items()}
    losses = [lm_loss(model, batch, None).item()]
    losses += [lm_loss(m, batch, None).item() for m in relearn(model, ROWS, 3, 1e-2, 2, seed=0)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in huggingface(model).state_dict().items())


def test_training_with_the_intervention_in_place_gives_other_weights(model):
    clamp = Clamp(toy_sae(), [3, 5, 8], -5.0)
    learned = [next(relearn(model, ROWS, 1, 1e-2, 2, 0, edit)) for edit in (None, clamp)]
    plain, guarded = (huggingface(m).model.layers[3].mlp.down_proj.weight for m in learned)
    assert not torch.equal(plain, guarded)


def test_lm_loss_is_hugging_faces(model):
    batch = Batch(ROWS, torch.ones_like(ROWS, dtype=torch.bool), torch.arange(4))
    theirs = huggingface(model)(input_ids=ROWS, labels=ROWS, use_cache=False).loss
    assert lm_loss(model, batch, None).item() == pytest.approx(theirs.item(), abs=1e-5)


def test_final_state_has_gradients_through_the_intervention(model):
    batch = Batch(ROWS, torch.ones_like(ROWS, dtype=torch.bool), torch.arange(4))
    final_state(model, batch, Clamp(toy_sae(), [3], -5.0)).sum().backward()
    weight = huggingface(model).model.embed_tokens.weight
    assert weight.grad.abs().sum() > 0
    weight.grad = None


@pytest.mark.parametrize(
    ("attack", "message"),
    [
        ([], "empty"),
        ([Document("history", "text")], "must be forget text \\('hazard'\\), it holds \\['history'\\]"),
        ([Document("hazard", "So: What does it do? This.")], "1 documents of the relearning corpus hold questions"),
    ],
)
def test_an_attack_that_proves_nothing_is_refused(attack, message):
    with pytest.raises(ValueError, match=message):
        check_attack_text(attack, "hazard", [QUESTION])


def test_forget_text_that_holds_no_question_is_accepted():
    check_attack_text([Document("hazard", "It does this.")], "hazard", [QUESTION])
