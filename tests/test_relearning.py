"""The attack trains on what it says, and only its copy of the model."""

from dataclasses import replace
from itertools import islice

import pandas as pd
import pytest
import torch

from helpers.attacks.relearning import Relearning, check_attack_text, fine_tuned, relearned
from helpers.engine.edited import Edited
from helpers.engine.finetuning import lm_loss
from helpers.engine.forward import clone, final_state, huggingface, with_weights
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import answer_probabilities
from helpers.engine.steps import Passes
from helpers.measures.drift import residual_drift
from helpers.measures.metrics import wilson_interval
from helpers.text.batches import Batch
from helpers.text.corpora import Document
from helpers.text.questions import ORIGINAL_ORDER, Question
from tests.test_knowledge import WEIGHTS, trained
from tests.toy import ROLES, toy_knowledge, toy_model, toy_sae

ROWS, PASSES = torch.arange(10, 58).view(4, 12), Passes(1000)
QUESTION = Question(0, "toxins", "What does it do?", ("a", "b", "c", "d"), 0)


@pytest.fixture(scope="module")
def model():
    return toy_model()


def test_fine_tuning_learns_the_text_and_leaves_the_original(model):
    batch = Batch(ROWS, torch.ones_like(ROWS, dtype=torch.bool), torch.arange(4))
    before = {k: v.clone() for k, v in huggingface(model).state_dict().items()}
    losses = [lm_loss(model, batch, None).item()]
    steps = list(islice((lm_loss(m, batch, None).item() for m, _ in fine_tuned(model, ROWS, 1e-2, 2, 0, PASSES)), 6))
    losses += steps[1::2]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]
    assert all(torch.equal(v, before[k]) for k, v in huggingface(model).state_dict().items())


def test_training_with_the_intervention_in_place_gives_other_weights(model):
    clamp = Clamp(toy_sae(), [3, 5, 8], -5.0)
    learned = [
        [m for m, _ in islice(fine_tuned(model, ROWS, 1e-2, 2, 0, PASSES, edit), 2)][-1] for edit in (None, clamp)
    ]
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
        ([Document("history", "text")], "must be forget text \\('toxins'\\), it holds \\['history'\\]"),
        ([Document("toxins", "So: What does it do? This.")], "1 documents of the relearning corpus hold questions"),
    ],
)
def test_an_attack_that_proves_nothing_is_refused(attack, message):
    with pytest.raises(ValueError, match=message):
        check_attack_text(attack, "toxins", [QUESTION])


def test_forget_text_that_holds_no_question_is_accepted():
    check_attack_text([Document("toxins", "It does this.")], "toxins", [QUESTION])


# --- the attack on an edit --------------------------------------------------------------------------------------------

ATTACK = Relearning(ROWS, epochs=2, learning_rate=3e-3, batch_rows=2, seed=1, passes=PASSES)
HOOK = Clamp(toy_sae(), (3, 5, 8, 13), -8.0, "any", Gate(0.1))


def brute_force(knowledge, model, hook_on_answers, hook_in_training):
    """Right answers by role before and after every epoch, in plain PyTorch with a hook: [(epoch, role, right, n)]."""
    student, found = clone(model), []
    network, block = huggingface(student), huggingface(student).model.layers[1]
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    draw = torch.Generator().manual_seed(1)
    for epoch in range(3):
        if epoch:
            for chosen in torch.randperm(4, generator=draw).split(2):
                ids = ROWS[chosen]
                edit = lambda module, args, out, ids=ids: HOOK(out, torch.ones_like(ids))  # noqa: E731
                hook = block.register_forward_hook(edit) if hook_in_training else None
                network(input_ids=ids, labels=ids, use_cache=False).loss.backward()
                if hook:
                    hook.remove()
                optimiser.step()
                optimiser.zero_grad()
        said = answer_probabilities(student, knowledge.asked, HOOK if hook_on_answers else None, ORIGINAL_ORDER)
        letters = said[:, 0].argmax(dim=1).tolist()
        for role in ("forget", "near", "side"):
            right = [i == q.answer for i, q in zip(letters, knowledge.asked, strict=True) if ROLES[q.subject] == role]
            found.append((epoch, role, sum(right), len(right)))
    return found


def rows_of(table, arm):
    of = table[table["arm"] == arm].sort_values("epoch", kind="stable")
    return [tuple(row) for row in of[["epoch", "role", "right", "n"]].itertuples(index=False)]


@pytest.fixture(scope="module")
def knowledge(model):
    return toy_knowledge(toxins=24, biology=12, history=12, aging=6, model=model)


def test_other_weights_have_one_arm_which_starts_from_them(knowledge):
    edit = Edited(knowledge.model, weights=trained(WEIGHTS))
    table = relearned(knowledge, edit, "RMU", ATTACK, in_training=False).accuracies
    assert table["arm"].unique().tolist() == ["RMU"] and table["seed"].unique().tolist() == [1]
    expected = brute_force(knowledge, with_weights(knowledge.model, WEIGHTS), False, False)
    assert rows_of(table, "RMU") == expected
    assert len({right for epoch, role, right, _ in expected if role == "forget"}) > 1  # the attack does something
    assert rows_of(table, "RMU")[:3] != brute_force(knowledge, knowledge.model, False, False)[:3]


def test_a_hook_that_is_off_in_training_is_asked_with_and_without(knowledge):
    table = relearned(knowledge, Edited(knowledge.model, HOOK), "DSG", ATTACK, in_training=False).accuracies
    assert table["arm"].unique().tolist() == ["DSG at test time", "DSG, hook removed"]
    for arm, asked_with in (("DSG at test time", True), ("DSG, hook removed", False)):
        assert rows_of(table, arm) == brute_force(knowledge, knowledge.model, asked_with, False)
    assert rows_of(table, "DSG at test time") != rows_of(table, "DSG, hook removed")


def test_a_hook_that_is_on_in_training_is_on_when_asked(knowledge):
    table = relearned(knowledge, Edited(knowledge.model, HOOK), "DSG", ATTACK, in_training=True).accuracies
    assert table["arm"].unique().tolist() == ["DSG also in training"]
    expected = brute_force(knowledge, knowledge.model, True, True)
    assert rows_of(table, "DSG also in training") == expected
    off = brute_force(knowledge, knowledge.model, True, False)
    assert expected[:3] == off[:3] and expected != off  # before the attack the two are one


def test_an_edit_that_does_nothing_is_fine_tuned_as_the_one_whose_hook_is_removed(knowledge):
    plain = relearned(knowledge, Edited(knowledge.model), "none", ATTACK, in_training=False).accuracies
    hooked = relearned(knowledge, Edited(knowledge.model, HOOK), "DSG", ATTACK, in_training=False).accuracies
    removed = hooked[hooked["arm"] == "DSG, hook removed"].reset_index(drop=True)
    pd.testing.assert_frame_equal(plain.drop(columns="arm"), removed.drop(columns="arm"))


def test_an_arms_accuracies_have_intervals_and_pool_subjects_by_role(knowledge):
    table = relearned(knowledge, Edited(knowledge.model), "none", ATTACK, in_training=False).accuracies
    assert table.columns.tolist() == [
        "arm",
        "seed",
        "learning_rate",
        "epoch",
        "role",
        "n",
        "right",
        "accuracy",
        "low",
        "high",
    ]
    assert table["n"].tolist() == [24, 12, 18] * 3 and table["epoch"].tolist() == [0] * 3 + [1] * 3 + [2] * 3
    for row in table.itertuples():
        assert (row.accuracy, (row.low, row.high)) == (row.right / row.n, wilson_interval(row.right, row.n))


def test_questions_are_asked_after_the_epochs_that_are_named_and_after_the_last(knowledge):
    edit = Edited(knowledge.model)
    every = relearned(knowledge, edit, "none", replace(ATTACK, epochs=4), False).accuracies
    some = relearned(knowledge, edit, "none", replace(ATTACK, epochs=4, asked_after=(2,)), False).accuracies
    assert every["epoch"].unique().tolist() == [0, 1, 2, 3, 4] and some["epoch"].unique().tolist() == [0, 2, 4]
    pd.testing.assert_frame_equal(some, every[every["epoch"].isin([0, 2, 4])].reset_index(drop=True))


def test_losses_and_drift_are_those_of_the_training_itself(knowledge):
    texts = {"forget text": ROWS[:3], "retain text": ROWS[3:] + 60}
    found = relearned(knowledge, Edited(knowledge.model, HOOK), "DSG", ATTACK, True, texts)
    models, losses = zip(*[(m, loss) for m, loss in ATTACK.steps(knowledge.model, HOOK)], strict=True)
    assert found.losses["step"].tolist() == [1, 2, 3, 4] and found.losses["loss"].tolist() == list(losses)
    assert found.losses["arm"].unique().tolist() == ["DSG also in training"]
    for text, rows in texts.items():
        of = found.drift[found.drift["text"] == text].drop(columns=["text", "arm", "seed", "learning_rate"])
        expected = residual_drift(knowledge.model, models[-1], rows, 1000)
        pd.testing.assert_frame_equal(of.reset_index(drop=True), expected)


def test_rows_of_several_lengths_are_padded_and_padding_is_not_learned(model):
    rows = [ROWS[0].tolist(), ROWS[1, :5].tolist()]
    (_, loss), *_ = islice(fine_tuned(model, rows, 1e-2, 2, 0, PASSES), 1)
    each = [huggingface(model)(input_ids=torch.tensor([r]), labels=torch.tensor([r])).loss.item() for r in rows]
    assert loss == pytest.approx((11 * each[0] + 4 * each[1]) / 15, abs=1e-5)


def test_a_training_that_diverges_says_at_which_step(model):
    broken = clone(model)
    with torch.no_grad():
        huggingface(broken).model.norm.weight.fill_(float("nan"))
    with pytest.raises(
        FloatingPointError, match=r"^fine-tuning, rate 0\.01: the loss is nan at step 1; lower learning_rate$"
    ):
        next(fine_tuned(broken, ROWS, 1e-2, 2, 0, PASSES))
    steps = []
    with pytest.raises(FloatingPointError, match="at step 2;"):
        for student, _ in fine_tuned(model, ROWS, 1e-2, 2, 0, PASSES):
            steps.append(student)
            with torch.no_grad():
                huggingface(student).model.norm.weight.fill_(float("nan"))
    assert len(steps) == 1
