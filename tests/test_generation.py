"""Cached generation says what the uncached forward says, token by token, and keeps a gate's verdict on the prompt."""

import pytest
import torch

from helpers.engine.forward import huggingface, residual_after
from helpers.engine.generation import answers, generate
from helpers.engine.interventions import Add, Clamp, Gate, Held, hot_fraction
from tests.test_features import one
from tests.toy import D_SAE, LAYER, toy_model, toy_sae

FEATURES = list(range(0, D_SAE, 4))
PROMPTS = [list(range(2, 2 + n)) for n in (12, 5, 9)]
N_NEW = 10


@pytest.fixture(scope="module", params=[4, 512], ids=["window of 4", "wide window"])
def model(request):
    return toy_model(sliding_window=request.param)


def uncached(model, prompt, clamp, generated):
    """Hugging Face's own forward on the whole sequence for every token, prompt and rest edited apart."""
    hf, ids = huggingface(model), list(prompt)

    def edit(module, args, out):
        held = Held(clamp, torch.ones(1, len(prompt)), generated)
        return torch.cat(
            [held(out[:, : len(prompt)]), *(held(x) for x in out[:, len(prompt) :].split(1, dim=1))], dim=1
        )

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


@pytest.mark.parametrize("generated", [True, False])
@pytest.mark.parametrize("opens", ["all", "some", "none"])
def test_cached_equals_uncached_under_a_gate(model, opens, generated):
    clamp = Clamp(toy_sae(), FEATURES, -9.0, "any", Gate(thresholds(model)[opens]))
    expected = [uncached(model, prompt, clamp, generated) for prompt in PROMPTS]
    assert generate(model, PROMPTS, N_NEW, clamp, generated) == expected


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
    assert generate(model, PROMPTS, N_NEW, clamp) == [uncached(model, prompt, clamp, True) for prompt in PROMPTS]


def test_the_interventions_here_change_what_is_said(model):
    clamp = Clamp(toy_sae(), FEATURES, -9.0)
    said = [generate(model, PROMPTS, N_NEW), *(generate(model, PROMPTS, N_NEW, clamp, g) for g in (True, False))]
    assert said[0] != said[1] != said[2] != said[0]


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
