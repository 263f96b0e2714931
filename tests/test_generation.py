"""Cached generation says what the uncached forward says, token by token, however its gate decides."""

from typing import get_args

import pytest
import torch

from helpers.engine.forward import huggingface, residual_after
from helpers.engine.generation import answers, generate
from helpers.engine.interventions import Add, Clamp, Gate, New, hot_fraction
from tests.test_features import one
from tests.toy import D_SAE, LAYER, toy_model, toy_sae

FEATURES = list(range(0, D_SAE, 4))
PROMPTS = [list(range(2, 2 + n)) for n in (12, 5, 9)]
N_NEW = 10


@pytest.fixture(scope="module", params=[4, 512], ids=["window of 4", "wide window"])
def model(request):
    return toy_model(sliding_window=request.param)


def uncached(model, prompt, clamp, new):
    """Hugging Face's own forward on the whole sequence for every token, prompt and rest edited apart."""
    hf, ids = huggingface(model), list(prompt)

    def edit(module, args, out):
        """The plain clamp on the prompt, and each later token by rho as counted here."""
        n, hot, parts = len(prompt), clamp.hot(out)[0], [clamp(out[:, : len(prompt)], torch.ones(1, len(prompt)))]
        for t in range(n, out.shape[1]):
            judged = {"held": hot[1:n], "each": hot[t : t + 1], "running": hot[1 : t + 1]}.get(new)
            shut = judged is None or (clamp.gate and float(judged.double().mean()) <= clamp.gate.threshold)
            parts.append(clamp.edit(out[:, [t]], torch.tensor([[not shut]])))
        return torch.cat(parts, dim=1)

    hook = hf.model.layers[LAYER].register_forward_hook(edit) if clamp else None
    for _ in range(N_NEW):
        with torch.no_grad():
            ids.append(int(hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    if hook:
        hook.remove()
    new = ids[len(prompt) :]
    eos = model.tokenizer.eos_token_id
    return new[: new.index(eos)] if eos in new else new


def thresholds(model):
    """One that every prompt's gate passes, one that some do, one that none does."""
    clamp = Clamp(toy_sae(), FEATURES, 0.0)
    hot = [clamp.hot(residual_after(model, one(prompt), LAYER)) for prompt in PROMPTS]
    rho = torch.cat([hot_fraction(h, torch.ones_like(h)) for h in hot])
    assert rho.min() > 0 and rho.min() < rho.max()
    return {"all": 0.0, "some": float(rho.min()), "none": 1.0}


@pytest.mark.parametrize("new", get_args(New))
@pytest.mark.parametrize("opens", ["all", "some", "none"])
def test_cached_equals_uncached_under_a_gate(model, opens, new):
    clamp = Clamp(toy_sae(), FEATURES, -9.0, "any", Gate(thresholds(model)[opens]))
    expected = [uncached(model, prompt, clamp, new) for prompt in PROMPTS]
    assert generate(model, PROMPTS, N_NEW, clamp, new) == expected


@pytest.mark.parametrize(
    "clamp",
    [
        None,
        Clamp(toy_sae(), FEATURES, -9.0),
        Clamp(toy_sae(), [1], 30.0, "any", triggers=FEATURES, fires_above=0.05),
        Clamp(toy_sae(), FEATURES, Add(-4.0), "always"),
    ],
    ids=["none", "clamp", "refusal", "add"],
)
def test_cached_equals_uncached(model, clamp):
    assert generate(model, PROMPTS, N_NEW, clamp) == [uncached(model, prompt, clamp, "held") for prompt in PROMPTS]


def test_the_interventions_here_change_what_is_said(model):
    clamp = Clamp(toy_sae(), FEATURES, -9.0)
    said = [generate(model, PROMPTS, N_NEW), *(generate(model, PROMPTS, N_NEW, clamp, n) for n in ("held", "never"))]
    assert said[0] != said[1] != said[2] != said[0]


def test_answers_are_given_under_an_intervention_too(model):
    clamp = Clamp(toy_sae(), FEATURES, -9.0)
    for new in ("held", "never"):
        each = [generate(model, [prompt], 6, clamp, new)[0] for prompt in PROMPTS]
        assert answers(model, PROMPTS, 6, 1000, clamp, new) == each


def test_it_stops_at_eos(model):
    first = generate(model, PROMPTS[:1], 4)[0]
    model.tokenizer.eos_token_id, kept = first[2], model.tokenizer.eos_token_id
    cut = generate(model, PROMPTS[:1], 4)[0]
    model.tokenizer.eos_token_id = kept
    assert cut == first[: first.index(first[2])]


@pytest.mark.parametrize(
    ("prompts", "n", "message"), [([], 1, "got 0 prompts"), ([[2], []], 1, "empty"), ([[2]], 0, "at least 1")]
)
def test_bad_input_is_named(model, prompts, n, message):
    with pytest.raises(ValueError, match=message):
        generate(model, prompts, n)


def test_answers_end_before_the_first_special_token_and_are_those_of_each_prompt_alone(model):
    said = [generate(model, [prompt], 6)[0] for prompt in PROMPTS]
    assert [answers(model, PROMPTS, 6, batch_tokens) for batch_tokens in (1, 1000)] == [said, said]
    tokenizer, mark = model.tokenizer, said[1][2]
    before = tokenizer.unk_token
    tokenizer.unk_token = tokenizer.convert_ids_to_tokens(mark)
    assert mark in tokenizer.all_special_ids
    cut = answers(model, PROMPTS, 6, 1000)
    tokenizer.unk_token = before
    assert cut == [row[: row.index(mark)] if mark in row else row for row in said]
    assert len(cut[1]) < len(said[1])
