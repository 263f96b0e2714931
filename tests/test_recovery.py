"""Notebook 12: vectors, rounding and probes by hand, and what is read off a model by the plain way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from helpers.attacks.orthogonalisation import Orthogonalisation, without
from helpers.attacks.pruning import Pruning
from helpers.attacks.quantisation import Quantisation
from helpers.attacks.residual_vector import ResidualVector
from helpers.engine.edited import Edited
from helpers.engine.forward import final_state, final_state_from, huggingface, residual_after, with_weights
from helpers.engine.internals import answer_stream, embedded, layer_matrices, residual_under
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import read_batches, read_letter_logits, row_batches
from helpers.experiments import recovery
from helpers.measures.logit_lens import lens
from helpers.measures.probes import read_off
from helpers.methods import DSG, RMU
from helpers.profiles import load_profile
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens
from tests.test_features import one
from tests.toy import LAYER, ToyLab, toy_knowledge, toy_model, toy_sae

MODEL, SAE = toy_model(), toy_sae()
GUARDED = Edited(MODEL, Clamp(SAE, [3, 5, 8], -4.0))
FRAME = recovery.Frame("chat", 200, LAYER)
ROWS = prompt_tokens(MODEL.tokenizer, toy_knowledge(model=MODEL).asked, ORIGINAL_ORDER, "chat")
BATCHES = list(row_batches(MODEL, ROWS, 200))
SMALL = {"recovery.bounds": [0.5], "recovery.steps": 2, "recovery.each_steps": 2, "recovery.bits": [3],
         "recovery.groups": [8], "recovery.pruned_shares": [0.5], "recovery.side_questions": 2}  # fmt: skip


def vector(place="residual", each=False, bound=0.5, steps=6):
    return ResidualVector(place, each, bound, steps, 0.1)


# --- the attacks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["residual", "embeddings"])
def test_no_vector_leaves_the_guarded_answers_and_one_is_added_after_the_guard_or_before_it(place):
    d, attack = MODEL.config.hidden_size, vector(place)
    prompts = attack.prompts(GUARDED, LAYER, BATCHES)
    plain = read_batches(MODEL, BATCHES, read_letter_logits, GUARDED.intervention)
    torch.testing.assert_close(attack.letters(prompts, torch.zeros(d)), plain)
    added = torch.randn(d, generator=torch.Generator().manual_seed(0))

    def push(_, arguments, output=None):
        x = (arguments[0] if output is None else output).clone()
        if output is not None:
            x = GUARDED.intervention(x, torch.ones(x.shape[:2], dtype=torch.bool))
        if (place == "embeddings") == (output is None):
            x[:, 1:] += added
        return (x, *arguments[1:]) if output is None else x

    layers, found = huggingface(MODEL).model.layers, []
    hooks = [layers[0].register_forward_pre_hook(push), layers[LAYER].register_forward_hook(push)]
    for row in ROWS:
        found.append(huggingface(MODEL)(torch.tensor([row])).logits[0, -1])
    for hook in hooks:
        hook.remove()
    words = torch.tensor([[MODEL.tokenizer.encode(space + x, add_special_tokens=False)[0] for x in "ABCD"]
                          for space in ("", " ")])  # fmt: skip
    by_hand = torch.stack(found)[:, words].amax(dim=1)
    torch.testing.assert_close(attack.letters(prompts, added), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("place", "each"), [("residual", False), ("residual", True), ("embeddings", False)])
def test_a_vector_stays_within_its_bound_and_makes_the_target_likelier(place, each):
    targets, attack = torch.zeros(len(ROWS), dtype=torch.long), vector(place, each)
    prompts = attack.prompts(GUARDED, LAYER, BATCHES)
    found = attack.fit(prompts, targets, 1000)
    # gone back through prompt by prompt, with as many in a step, it is the same vector
    torch.testing.assert_close(attack.fit(prompts, targets, 1), found, rtol=1e-3, atol=1e-4)
    assert found.shape == ((len(ROWS), 16) if each else (16,))
    tokens = torch.cat([x[i, 1 : batch.mask[i].sum()] for x, batch in zip(prompts.given, BATCHES, strict=True)
                        for i in range(len(x))])  # fmt: skip
    assert found.norm(dim=-1).max() <= 0.5 * tokens.norm(dim=-1).mean() * (1 + 1e-5)
    losses = [torch.nn.functional.cross_entropy(attack.letters(prompts, v), targets)
              for v in (torch.zeros_like(found), found)]  # fmt: skip
    assert losses[1] < losses[0] - 0.01


def test_a_vector_of_each_question_goes_to_its_last_token():
    attack, d = vector(each=True), MODEL.config.hidden_size
    of_each = torch.randn(len(ROWS), d, generator=torch.Generator().manual_seed(1))
    together = attack.letters(attack.prompts(GUARDED, LAYER, BATCHES), of_each)
    for i, row in enumerate(ROWS):
        residual = residual_under(GUARDED, one(row), LAYER).clone()
        residual[0, -1] += of_each[i]
        state = final_state_from(MODEL, one(row), LAYER, residual)
        alone = read_letter_logits(MODEL, state, one(row))[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-4, atol=1e-5)


def test_rounding_by_hand():
    weight = torch.tensor([[3.0, -0.9, 0.2, 0.0, 1.0], [0.0, 0.0, -6.0, 2.1, -0.3]])
    attack = Quantisation(3, 2)  # codes from -3 to 3; a scale for two inputs, and for the last one alone
    assert attack.codes(weight).tolist() == [[3, -1, 3, 0, 3], [0, 0, -3, 1, -3]]
    expected = torch.tensor([[3.0, -1.0, 0.2, 0.0, 1.0], [0.0, 0.0, -6.0, 2.0, -0.3]])
    torch.testing.assert_close(attack.rounded(weight), expected)


def test_buckets_are_counted_over_edited_matrices_only():
    name, attack = "model.layers.1.mlp.down_proj.weight", Quantisation(4, 8)
    weight = layer_matrices(MODEL)[name].clone()
    for factor, moved in ((1.0, np.nan), (-1.0, None)):
        changed = weight.clone()
        changed[0] *= factor  # of a row turned round every weight moves that is not in the bucket of 0
        other = with_weights(MODEL, {name: changed})
        share = (attack.codes(weight)[0] != 0).sum().item() / weight.numel() if moved is None else moved
        assert attack.moved_buckets(other, MODEL) == pytest.approx(share, nan_ok=True)


def test_matrices_are_those_of_layers_and_no_embedding():
    names = set(layer_matrices(MODEL))
    assert len(names) == 4 * 7 and not any("embed" in name or "norm" in name for name in names)


def test_pruning_takes_the_smallest_by_magnitude():
    weight = torch.tensor([[3.0, -0.1, 0.2], [-5.0, 0.0, 1.0]])
    assert Pruning(0.5).pruned(weight).tolist() == [[3.0, 0.0, 0.0], [-5.0, 0.0, 1.0]]
    # 0.4 of six weights are 2.4, of which 2 go
    assert (Pruning(0.4).pruned(weight) == 0).tolist() == [[False, True, False], [False, True, False]]


def test_a_direction_is_the_difference_of_means_and_nothing_is_left_along_it():
    hazard, benign, attack = BATCHES[:1], BATCHES[1:], Orthogonalisation(LAYER)
    means = []
    for batched in (hazard, benign):
        tokens = [GUARDED.intervention(residual_after(MODEL, batch, LAYER), batch.mask) for batch in batched]
        kept = [x[i, 1 : batch.mask[i].sum()] for x, batch in zip(tokens, batched, strict=True) for i in range(len(x))]
        means.append(torch.cat(kept).mean(dim=0))
    direction = attack.direction(GUARDED, hazard, benign)
    torch.testing.assert_close(direction, means[0] - means[1])
    x = torch.randn(2, 3, 16)
    left = without(x, direction)
    torch.testing.assert_close(left @ direction, torch.zeros(2, 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(without(left + 2 * direction, direction), left, atol=1e-4, rtol=0)
    plain = read_batches(MODEL, BATCHES, read_letter_logits, GUARDED.intervention)
    torch.testing.assert_close(attack.letters(GUARDED, BATCHES, torch.zeros(16)), plain)
    assert not torch.allclose(attack.letters(GUARDED, BATCHES, direction), plain)


# --- what is read -----------------------------------------------------------------------------------------------------


def test_the_stream_is_the_residual_of_every_layer_after_the_guard():
    stream = answer_stream(MODEL, BATCHES, GUARDED.intervention)
    assert stream.shape == (len(ROWS), 4, 16)
    for i, row in enumerate(ROWS[:3]):
        batch = one(row)
        for layer in range(4):
            torch.testing.assert_close(
                stream[i, layer], residual_under(GUARDED, batch, layer)[0, -1], rtol=1e-4, atol=1e-4
            )
        guarded = GUARDED.intervention(residual_after(MODEL, batch, LAYER), batch.mask)
        torch.testing.assert_close(stream[i, LAYER], guarded[0, -1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(stream[i, 0], residual_after(MODEL, batch, 0)[0, -1], rtol=1e-4, atol=1e-4)
        state = huggingface(MODEL).model.norm(residual_under(GUARDED, batch, 3))
        torch.testing.assert_close(state, final_state(MODEL, batch, GUARDED.intervention), rtol=1e-4, atol=1e-4)


def test_the_lens_of_the_last_layer_is_the_answer():
    answers = read_batches(MODEL, BATCHES, read_letter_logits, GUARDED.intervention)
    stream = answer_stream(MODEL, BATCHES, GUARDED.intervention)
    torch.testing.assert_close(lens(MODEL, stream)[:, -1], answers, rtol=1e-4, atol=1e-4)


def test_what_enters_the_first_layer_is_the_scaled_embedding():
    batch = one(ROWS[0])
    table = huggingface(MODEL).get_input_embeddings().weight
    torch.testing.assert_close(embedded(MODEL, batch)[0], table[batch.ids[0]] * 16**0.5)


def test_a_probe_reads_what_is_there_and_only_from_the_other_group():
    draw = np.random.default_rng(0)
    labels, group = draw.integers(0, 4, 400), np.repeat([0, 1], 200)
    x = draw.normal(size=(400, 8))
    assert 0.1 < read_off(x, labels, group).mean() < 0.4  # nothing is there: a quarter
    x[np.arange(400), labels] += 6
    assert read_off(x, labels, group).mean() > 0.95
    x[group == 1] = -x[group == 1]  # what each group shows is misleading for the other
    assert read_off(x, labels, group).mean() < 0.1
    with pytest.raises(ValueError, match="group 0 has 0 examples of 0 labels"):
        read_off(x, labels, np.ones(400))


# --- the experiment ---------------------------------------------------------------------------------------------------


class RecoveryLab(ToyLab):
    """With the halves of questions, none of which is unknown."""

    def __init__(self):
        super().__init__(SMALL)
        self.known = self.questions = self.knowledge.questions
        self.said: list[str] = []
        self.warn = self.said.append

    def knowledge_on(self, half):
        return self.knowledge.only(half)


@pytest.fixture(scope="module")
def lab():
    return RecoveryLab()


SETTINGS = [DSG(2, 5.0, threshold=0.1), RMU(LAYER, 2.0, 1.0, steps=2, batch_rows=4, learning_rate=1e-2)]


def test_rotations_show_every_choice_once_under_every_letter():
    assert len(recovery.ROTATIONS) == 4 and recovery.ROTATIONS[0] == (0, 1, 2, 3)
    assert {order.index(2) for order in recovery.ROTATIONS} == {0, 1, 2, 3}


def test_parts_are_about_different_things_and_drawn_one_by_one_where_nobody_says(lab):
    questions = lab.known["toxins"]
    about = {str(q.id): q.about for q in questions}
    found = recovery.parts(lab)
    assert sorted([*found[0], *found[1]]) == sorted(about)
    if len(set(about.values())) > 1:
        assert not {about[i] for i in found[0]} & {about[i] for i in found[1]}
    silent = RecoveryLab()
    silent.known = {"toxins": [replace(q, about="") for q in questions]}
    assert sorted(map(len, recovery.parts(silent))) == [2, 3] and "one by one" in silent.said[0]


def test_every_attack_on_every_method_and_the_worst_of_each(lab):
    found = recovery.Found(recovery.vectors(lab, SETTINGS), recovery.by_layer(lab, [None, *SETTINGS]),
                           recovery.orthogonalised(lab, SETTINGS),
                           recovery.other_weights(lab, [None, *SETTINGS]))  # fmt: skip
    judged = found.vectors[found.vectors["asked"] == "judged"]
    assert set(judged["bound"]) == {0.0, 0.5} and set(judged["n"]) == {2}
    plain = read_batches(MODEL, recovery.asked(MODEL, lab.known["toxins"], FRAME).batched, read_letter_logits)
    assert plain.shape == (5, 4)
    layers = found.layers.groupby(["method", "measure"]).size()
    assert set(layers) == {8}  # four layers, two halves
    table = recovery.worst_case(found)
    assert table.groupby("method")["attack"].nunique().to_dict() == {"DSG": 8, "RMU": 8}
    assert set(table["n"]) == {2} and not table["access"].isna().any() and table["above"].isna().all()
    assert table.groupby("method")["worst"].sum().to_dict() == {"DSG": 1, "RMU": 1}
    assert set(table.loc[table["side_n"].notna(), "attack"]) == {
        "asked plainly",
        "orthogonalisation",
        "quantisation",
        "pruning",
    }


def test_an_attack_is_chosen_on_half_0_and_reported_on_half_1_by_hand():
    tried = ("probe", 0, (9, 2)), ("probe", 1, (5, 8)), ("logit lens", 0, (1, 3)), ("logit lens", 1, (1, 7))
    read = pd.DataFrame([("A", m, layer, half, 10, right)
                         for m, layer, rights in tried for half, right in enumerate(rights)],
                        columns=["method", "measure", "layer", "half", "n", "right"])  # fmt: skip
    none = pd.DataFrame(columns=["method", "attack", "setting", "role", "half", "n", "right", "layer"])
    pushed = pd.DataFrame([("A", "residual", False, bound, "right letter", asked, 10, right)
                           for bound, rights in ((0.0, (1, 1)), (0.5, (4, 6)), (1.0, (7, 5)))
                           for asked, right in zip(("fitted", "judged"), rights, strict=True)],
                          columns=["method", "place", "each", "bound", "target", "asked", "n", "right"])  # fmt: skip
    table = recovery.worst_case(recovery.Found(pushed, read, none, none)).set_index("attack")
    assert table["right"].to_dict() == {"vector in the residual": 5, "logit lens": 3, "probe": 2}
    assert table["setting"].to_dict() == {"vector in the residual": "length 1", "logit lens": "after layer 0",
                                          "probe": "after layer 0"}  # fmt: skip
    assert table.index[table["worst"]].tolist() == ["probe"]  # 9 of 10 on half 0, and the fewest on half 1


def test_a_layer_is_chosen_on_half_0_by_hand():
    tried = enumerate(((0.2, 0.9), (0.8, 0.3), (0.5, 0.5)))
    rows = [("A", "probe", "forget", layer, half, share) for layer, of in tried for half, share in enumerate(of)]
    table = pd.DataFrame(rows, columns=["method", "measure", "role", "layer", "half", "accuracy"])
    side = table.assign(role="side", accuracy=1.0)
    for found in (recovery.best_layers(table), recovery.best_directions(pd.concat([side, table]))):
        assert found[["layer", "half", "accuracy"]].values.tolist() == [[1, 1, 0.3]]


@pytest.mark.parametrize(("key", "value"), [("bits", [1]), ("groups", [0]), ("pruned_shares", [1.5]), ("bounds", [])])
def test_settings_that_mean_nothing_are_refused_by_name(key, value):
    with pytest.raises(ValueError, match=f"recovery.{key}"):
        load_profile("tiny", {f"recovery.{key}": value})


def test_wrong_letters_are_never_the_right_ones(lab):
    halves = recovery.forget_halves(lab)
    table = recovery.vector_answers(GUARDED, halves, [vector(steps=1)], FRAME, 1000, 0)
    none = table[table["bound"] == 0].pivot(index="asked", columns="target", values="right")
    assert (none.sum(axis=1) <= table.groupby("asked")["n"].first()).all()  # nobody says two letters at once
    assert set(table["asked"]) == {"fitted", "judged"}


def test_questions_never_answered_are_the_unknown_ones_that_are_answered_wrong(lab):
    forget = lab.known["toxins"]
    answers = (
        read_batches(MODEL, recovery.asked(MODEL, forget, FRAME).batched, read_letter_logits).argmax(dim=1).tolist()
    )
    unknown = RecoveryLab()
    wrong = replace(forget[0], id="wrong", answer=(answers[0] + 1) % 4)
    right = replace(forget[1], id="right", answer=answers[1])
    unknown.questions = {**unknown.questions, "toxins": [*forget, wrong, right]}
    assert [q.id for q in recovery.forget_halves(unknown)["never answered"]] == ["wrong"]


def test_without_benign_questions_no_direction_can_be_found():
    halves = {"fitted": toy_knowledge(model=MODEL).asked[:2], "judged": toy_knowledge(model=MODEL).asked[2:4]}
    with pytest.raises(ValueError, match="needs known side-effect questions, and half 0 has none"):
        recovery.without_direction(GUARDED, halves, {"fitted": [], "judged": []}, FRAME)
