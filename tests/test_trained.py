"""Losses of unlearning by hand on two layers and short rows, and the one loop that trains them all."""

import itertools
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid

from helpers.engine.features import select_by_difference
from helpers.engine.forward import final_state, huggingface, residual_after, with_weights
from helpers.engine.interventions import after_bos
from helpers.engine.steps import Passes
from helpers.methods import CRISP, METHODS, NPO, RMU, SCRUB, SSD, GradDiff, GradientAscent, SimNPO
from helpers.methods.crisp import awake
from helpers.methods.losses import divergence, mean_nats, sums_and_lengths
from helpers.methods.npo import npo_loss
from helpers.methods.simnpo import simnpo_loss
from helpers.methods.ssd import dampened, dampened_by_text, factors, importances
from helpers.methods.training import Training, train
from helpers.profiles import load_profile
from helpers.records.store import fingerprint
from helpers.text.batches import packed_batch
from tests.toy import LAYER, ToyLab, toy_model, toy_sae

ROWS = torch.tensor([[2, 11, 12], [2, 13, 14]])
OTHERS = torch.tensor([[2, 21, 22], [2, 23, 21]])
HOW = {"steps": 4, "batch_rows": 2, "learning_rate": 1e-3}
TRAINED = {
    "gradient_ascent": GradientAscent(**HOW),
    "grad_diff": GradDiff(1.0, **HOW),
    "npo": NPO(0.1, 1.0, **HOW),
    "simnpo": SimNPO(0.5, 0.0, 1.0, **HOW),
    "scrub": SCRUB(0.3, 2.0, **HOW),
    "rmu": RMU(LAYER, 2.0, 1.0, **HOW),
    "crisp": CRISP(2, 5.0, 0.1, 0.01, 2, **HOW),
}
each = pytest.mark.parametrize("name", TRAINED)


@pytest.fixture(scope="module")
def models():
    return toy_model(layers=2), toy_model(seed=1, layers=2)


def log_p(model, rows):
    """Log-probabilities of the next word by Hugging Face alone, [rows, seq - 1, words]."""
    return huggingface(model)(rows).logits[:, :-1].log_softmax(dim=-1)


def nats(model, rows):
    """Of each row the sum of its two predicted words' nats."""
    return torch.stack([-sum(log_p(model, rows)[r, t, rows[r, t + 1]] for t in (0, 1)) for r in range(len(rows))])


def needs_of(setting):
    return (toy_sae(), (3, 5)) if isinstance(setting, CRISP) else ()


def loss_of(setting, frozen, student):
    """The objective on the two rows of each kind."""
    loss = setting.objective(frozen, ROWS, *needs_of(setting))
    return float(loss(student, packed_batch(ROWS), packed_batch(OTHERS)))


# --- what losses are made of ------------------------------------------------------------------------------------------


def test_nats_of_a_row_are_those_of_its_two_predicted_words(models):
    found, lengths = sums_and_lengths(models[0], packed_batch(ROWS))
    assert found.tolist() == pytest.approx(nats(models[0], ROWS).tolist(), rel=1e-5) and lengths.tolist() == [2, 2]
    assert float(mean_nats(models[0], packed_batch(ROWS))) == pytest.approx(float(found.sum()) / 4)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_divergence_is_from_the_teacher_to_the_student(models, temperature):
    teacher, student = ((huggingface(m)(ROWS).logits[:, :-1] / temperature).softmax(dim=-1) for m in models)
    expected = temperature**2 * (teacher * (teacher.log() - student.log())).sum(dim=-1).mean()
    assert float(divergence(*models, packed_batch(ROWS), temperature)) == pytest.approx(float(expected), rel=1e-4)
    assert float(divergence(models[0], models[0], packed_batch(ROWS), temperature)) == pytest.approx(0, abs=1e-6)


def test_divergence_moves_the_student_only(models):
    teacher, student = toy_model(layers=2), toy_model(seed=1, layers=2)
    divergence(teacher, student, packed_batch(ROWS)).backward()
    assert all(p.grad is None for p in huggingface(teacher).parameters())
    assert any(p.grad is not None and p.grad.any() for p in huggingface(student).parameters())


# --- each method's loss -----------------------------------------------------------------------------------------------


def test_gradient_ascent_is_the_loss_with_its_sign_turned(models):
    assert loss_of(TRAINED["gradient_ascent"], *models) == pytest.approx(-float(nats(models[1], ROWS).sum()) / 4)


def test_grad_diff_holds_the_retain_text(models):
    expected = 3 * float(nats(models[1], OTHERS).sum()) / 4 - float(nats(models[1], ROWS).sum()) / 4
    assert loss_of(GradDiff(3.0, **HOW), *models) == pytest.approx(expected, rel=1e-5)


def test_npo_sums_over_the_row_and_compares_with_the_frozen_model(models):
    beta, (frozen, student) = 0.1, models
    gain = [float(a - b) for a, b in zip(nats(student, ROWS), nats(frozen, ROWS), strict=True)]
    expected = sum(-2 / beta * math.log(1 / (1 + math.exp(-beta * x))) for x in gain) / 2
    expected += 3 * float(nats(student, OTHERS).sum()) / 4
    assert loss_of(NPO(beta, 3.0, **HOW), *models) == pytest.approx(expected, rel=1e-4)
    # at the frozen model itself: -2/beta log(1/2), whatever the text
    assert float(npo_loss(torch.tensor([7.0]), torch.tensor([7.0]), 0.5)) == pytest.approx(4 * math.log(2))


def test_simnpo_is_of_nats_a_token_less_the_margin():
    # rows of 6 nats in 2 tokens and 4 in 4: 3 and 1 a token, less the margin 1: 2 and 0
    expected = -2 / 0.5 * (logsigmoid(torch.tensor(1.0)) + math.log(0.5)) / 2
    found = simnpo_loss(torch.tensor([6.0, 4.0]), torch.tensor([2.0, 4.0]), beta=0.5, margin=1.0)
    assert float(found) == pytest.approx(float(expected))


def test_simnpo_needs_no_frozen_model(models):
    setting, student = SimNPO(0.5, 0.7, 3.0, **HOW), models[1]
    expected = simnpo_loss(nats(student, ROWS), torch.tensor([2, 2]), 0.5, 0.7) + 3 * nats(student, OTHERS).sum() / 4
    assert loss_of(setting, *models) == pytest.approx(float(expected), rel=1e-5)
    assert loss_of(setting, student, student) == pytest.approx(float(expected), rel=1e-5)


def test_scrub_leaves_its_teacher_on_forget_text_and_stays_on_retain_text(models):
    far, near = (float(divergence(*models, packed_batch(rows), 2.0)) for rows in (ROWS, OTHERS))
    expected = near + float(nats(models[1], OTHERS).sum()) / 4 - 0.3 * far
    assert loss_of(TRAINED["scrub"], *models) == pytest.approx(expected, rel=1e-4)


# --- SSD --------------------------------------------------------------------------------------------------------------


def test_a_weight_shrinks_where_forget_text_needs_it_more():
    forget, retain = torch.tensor([8.0, 4.0, 1.0, 0.0]), torch.tensor([1.0, 2.0, 1.0, 0.0])
    # above 2 times the retain importance: the first only, by 1 * 1/8; with dampening 16 nothing would grow
    assert factors(forget, retain, threshold=2.0, dampening=1.0).tolist() == [0.125, 1, 1, 1]
    assert factors(forget, retain, threshold=2.0, dampening=16.0).tolist() == [1, 1, 1, 1]
    assert factors(forget, retain, threshold=0.5, dampening=0.5).tolist() == [0.0625, 0.25, 0.5, 1]


def test_importance_is_the_mean_of_squared_gradients_row_by_row():
    model = toy_model(layers=2)
    name = "model.layers.0.mlp.down_proj.weight"
    weight, squares = huggingface(model).get_parameter(name), []
    for row in ROWS:
        (gradient,) = torch.autograd.grad(nats(model, row[None]).sum() / 2, weight)
        squares.append(gradient.square())
    found = importances(model, ROWS)
    assert torch.allclose(found[name], (squares[0] + squares[1]) / 2, rtol=1e-3)
    assert found.keys() == dict(huggingface(model).named_parameters()).keys()


def test_the_embedding_is_dampened_only_where_that_is_said():
    model, embedding = toy_model(layers=2), "model.embed_tokens.weight"
    of_text = importances(model, ROWS), importances(model, OTHERS)
    kept, dampened_too = (dampened(model, *of_text, SSD(1.0, 0.1, e, 2)) for e in (False, True))
    assert embedding not in kept and embedding in dampened_too and len(kept) > 5
    # a word of forget text that retain text never sees is wiped out as an input, and damps as an output
    assert dampened_too[embedding][13].abs().sum() < huggingface(model).get_parameter(embedding)[13].abs().sum()


def test_ssd_dampens_what_its_rows_of_forget_text_need_and_retain_text_does_not():
    lab, setting = ToyLab(), SSD(1.0, 0.1, True, 2)
    expected = dampened(
        lab.model, importances(lab.model, lab.forget_rows[:2]), importances(lab.model, lab.retain_rows[:2]), setting
    )
    for edit in (setting.apply(lab), lab.edited(setting)):
        found = edit.weights.make()
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    by_text = dampened_by_text(lab.model, lab.forget_rows[:2], lab.retain_rows[:2], setting)
    assert all(torch.equal(by_text[name], expected[name]) for name in expected)


def bigram_model():
    """A model whose blocks add nothing, so that a word's logits follow from the word before by hand."""
    model = toy_model(layers=2)
    for name, weight in huggingface(model).named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            torch.nn.init.zeros_(weight)
    return model


def known_gradient(model, row, word):
    """Of the row's mean loss by the embedding of a word that is no input: only the unembedding's part, in numpy.

    With E the embedding, h = E_x sqrt(d) / rms and logits 30 tanh(E h / 30): the sum over predicting tokens x, with y
    the word said next, of (p(word) - [word = y]) (1 - tanh^2) h, over their number.
    """
    embedding = huggingface(model).get_input_embeddings().weight.detach().double().numpy()
    total = np.zeros(embedding.shape[1])
    for x, y in itertools.pairwise(row.tolist()):
        state = embedding[x] * embedding.shape[1] ** 0.5
        h = state / np.sqrt((state**2).mean() + 1e-6)
        squashed = np.tanh(embedding @ h / 30)
        p = np.exp(30 * squashed) / np.exp(30 * squashed).sum()
        total += (p[word] - (word == y)) * (1 - squashed[word] ** 2) * h
    return total / (len(row) - 1)


@pytest.mark.parametrize("word", [12, 14, 22, 50])  # said by forget rows, by a retain row, by none
def test_the_embedding_is_dampened_by_the_squares_of_known_gradients(word):
    model, threshold, dampening = bigram_model(), 0.8, 0.3
    forget, retain = (
        np.mean([known_gradient(model, row, word) ** 2 for row in rows], axis=0) for rows in (ROWS, OTHERS)
    )
    name = "model.embed_tokens.weight"
    of_text = importances(model, ROWS), importances(model, OTHERS)
    for found, expected in zip(of_text, (forget, retain), strict=True):
        assert found[name][word].numpy() == pytest.approx(expected, rel=1e-3, abs=1e-12)
    by = np.where(forget > threshold * retain, np.minimum(1, dampening * retain / forget), 1)
    assert word == 22 or (by < 1).any()
    weight = huggingface(model).get_parameter(name)[word].detach().numpy()
    found = dampened(model, *of_text, SSD(threshold, dampening, True, 2))[name][word].numpy()
    assert found == pytest.approx(weight * by, rel=1e-3, abs=1e-9)


# --- CRISP ------------------------------------------------------------------------------------------------------------


def test_crisp_chooses_by_the_difference_of_rates_among_the_specific():
    rates = np.array([0.5, 0.4, 0.9, 0.2]), np.array([0.1, 0.1, 0.6, 0.0])
    means = np.array([3.0, 9.0, 2.9, 1.0]), np.array([1.0, 1.0, 1.0, 0.0])
    # differences .4 .3 .3 .2; the third is less than 3 times as active
    assert select_by_difference(*rates, *means, 4).tolist() == [0, 1, 3]
    assert select_by_difference(*rates, *means, 1).tolist() == [0]


def test_what_is_awake_is_the_mean_of_positive_activations_raised_where_they_fired():
    sae, model = toy_sae(), toy_model()
    batch, features, boost = packed_batch(torch.tensor([[2, 11, 12, 13, 14, 15, 16, 17]])), [3, 5, 8], 2.0
    residual = residual_after(model, batch, LAYER).detach()
    fires = sae.encode(residual)[..., features] > 0
    read = residual @ sae.W_enc + sae.b_enc
    total, n = 0.0, 0
    for t in range(1, 8):
        for j, i in enumerate(features):
            value = float(read[0, t, i]) + (boost * abs(float(read[0, t].mean())) if fires[0, t, j] else 0.0)
            if value > max(0.0, float(sae.threshold[i])):
                total, n = total + value, n + 1
    assert n > 0
    found = awake(sae, features, residual, fires, boost, after_bos(batch.mask))
    assert float(found) == pytest.approx(total / n, rel=1e-5)


def test_crisp_off_by_one_reads_the_block_before():
    model, other = toy_model(), toy_model(seed=1)
    setting = TRAINED["crisp"]
    found = [loss_of(s, model, other) for s in (setting, replace(setting, off_by_one=True))]
    assert found == pytest.approx([crisp_by_hand(setting, model, other, layer) for layer in (LAYER, LAYER - 1)])


@pytest.mark.parametrize(("share", "coherence"), [(0.3, 0.5), (1.0, 0.5), (0.0, 2.0)])
def test_crisp_weighs_sleep_against_the_residual_and_the_last_state(share, coherence):
    model, other = toy_model(), toy_model(seed=1)
    setting = replace(TRAINED["crisp"], unlearn_share=share, coherence=coherence)
    assert loss_of(setting, model, other) == pytest.approx(crisp_by_hand(setting, model, other, LAYER))


def crisp_by_hand(setting, frozen, student, layer):
    """s U + (1 - s) (R + g C), from residuals after a layer and the states before the unembedding."""
    sae, ids = needs_of(setting)
    forget, retain = packed_batch(ROWS), packed_batch(OTHERS)
    with torch.no_grad():
        fires = sae.encode(residual_after(frozen, forget, layer))[..., list(ids)] > 0
        asleep = awake(sae, list(ids), residual_after(student, forget, layer), fires, setting.boost,
                       after_bos(forget.mask))  # fmt: skip
        held = (residual_after(student, retain, layer) - residual_after(frozen, retain, layer)).square().mean()
        coherent = (final_state(student, retain) - final_state(frozen, retain)).square().mean()
    share = setting.unlearn_share
    return float(share * asleep + (1 - share) * (held + setting.coherence * coherent))


def test_crisps_adapters_start_at_nothing_and_come_back_merged():
    model, setting = toy_model(), TRAINED["crisp"]
    start = Training(model, ROWS, OTHERS, setting, *needs_of(setting), Passes(1000)).until(0)
    own = dict(huggingface(model).named_parameters())
    assert len(start) == 7 * 4 and all(torch.equal(w, own[name]) for name, w in start.items())
    trained = train(model, ROWS, OTHERS, setting, *needs_of(setting), Passes(1000))
    with_weights(model, trained)  # they fit by name and shape
    changed = {name for name, w in trained.items() if not torch.equal(w, own[name])}
    assert any("down_proj" in name for name in changed)
    for name in changed:
        assert torch.linalg.matrix_rank((trained[name] - own[name]).double(), rtol=1e-3) <= setting.rank


def test_a_rank_above_the_matrix_is_refused():
    with pytest.raises(ValueError, match=r"rank 9 is above the smaller side of .*proj\.weight, which is 8"):
        replace(TRAINED["crisp"], rank=9).student(toy_model())


# --- the loop ---------------------------------------------------------------------------------------------------------


@each
def test_a_training_gone_on_with_ends_as_one_from_the_start(name):
    model, setting = toy_model(), TRAINED[name]
    texts = (model, torch.arange(10, 106).view(8, 12), torch.arange(120, 216).view(8, 12))
    training = Training(*texts, setting, *needs_of(setting), Passes(1000))
    early = training.until(2)
    late, again = training.until(4), training.until(2)
    fresh = train(*texts, setting, *needs_of(setting), Passes(1000))
    assert all(torch.equal(late[k], fresh[k]) and torch.equal(early[k], again[k]) for k in fresh)
    assert any(not torch.equal(early[k], late[k]) for k in fresh)
    assert setting.course == replace(setting, steps=9).course != replace(setting, learning_rate=5e-3).course


@pytest.mark.parametrize("name", [name for name in TRAINED if name != "crisp"])  # its mean is not one over rows
def test_a_batch_in_parts_has_the_gradients_of_the_whole(name):
    model, setting = toy_model(), replace(TRAINED[name], steps=1)
    texts = (model, torch.arange(10, 106).view(8, 12), torch.arange(120, 216).view(8, 12))
    found = []
    for at_once in (1000, 12):
        training = Training(*texts, setting, Passes(at_once))
        steps, gradients = training._steps, []
        steps.optimiser.step = lambda: None
        steps.optimiser.zero_grad = lambda s=steps, g=gradients: g.extend(p.grad.clone() for p in s.trained.values())
        training.until(1)
        found.append(gradients)
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(*found, strict=True))


def test_a_loss_that_is_no_number_names_the_step_and_what_to_do():
    losses = iter([0.0, 0.0, math.nan])
    plain = GradientAscent.objective
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(GradientAscent, "objective", lambda *given: lambda *seen: plain(*given)(*seen) + next(losses))
        expected = r"^GA, rate 0\.001: the loss is nan at step 3; lower learning_rate$"
        with pytest.raises(FloatingPointError, match=expected):
            train(toy_model(), ROWS, OTHERS, TRAINED["gradient_ascent"], Passes(1000))


@each
def test_the_model_itself_is_not_touched_and_the_weights_fit_it(name):
    lab, setting = ToyLab(), TRAINED[name]
    before = {k: v.clone() for k, v in huggingface(lab.model).state_dict().items()}
    edit = setting.apply(lab)
    assert edit.intervention is None and edit.weights.key == setting.apply(lab).weights.key
    found = huggingface(edit.model).state_dict()
    assert any(not torch.equal(found[k], before[k]) for k in before)
    assert all(torch.equal(v, before[k]) for k, v in huggingface(lab.model).state_dict().items())


def test_settings_that_differ_in_steps_share_a_training():
    lab, made = ToyLab(), []
    first, second, other = (replace(TRAINED["npo"], **change) for change in ({"steps": 1}, {"steps": 3}, {"beta": 0.2}))
    latest = lab.latest
    lab.latest = lambda key, make: latest(key, lambda: made.append(key) or make())
    for setting in (first, second, other):
        setting.apply(lab).weights.make()
    assert len(made) == 2


@pytest.mark.parametrize("profile", ["tiny", "gemma-2-2b-it"])
def test_methods_have_equally_many_settings_side_by_side_and_a_name_each(profile):
    profile = load_profile(profile, notebook="07")
    for name in (*TRAINED, "ssd", "dsg", "static_clamp"):
        grid, halves = METHODS[name].grid(profile), name == "ssd" and profile.name == "gemma-2-2b-it"
        assert len(grid) == (8 if halves else 9) == len(set(grid)) == len({setting.words for setting in grid}), name
        assert not halves or sum(setting.embeddings for setting in grid) == 4
        assert METHODS[name].trains == (name not in ("dsg", "static_clamp"))


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("megabytes", "times"), [(1, 1), (0, 2)])
def test_small_weights_are_made_once(megabytes, times):
    lab, kept, made = ToyLab({"compute.weights_mb": megabytes}), {}, []
    lab.store = SimpleNamespace(
        read=lambda name, key: kept.get((name, key["all"])),
        write=lambda name, found, key, seconds: kept.update({(name, key["all"]): SimpleNamespace(result=found)}),
    )
    args = ("a model", "some text", "other text", "a setting")
    weights = lab.trained(train, *args, make=lambda: made.append(1) or {"weight": torch.ones(1 << 18)})
    for _ in range(2):
        assert weights.make()["weight"].sum() == 1 << 18  # exactly a megabyte
    entry = ("weights", fingerprint([train, *args]))  # where `edited` looks for it too
    assert len(made) == times and set(kept) == ({entry} if megabytes else set())
