"""Every family that the engine serves gives what Hugging Face's own forward pass gives, and no other is taken."""

import shutil
from itertools import chain
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    Gemma3TextModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from helpers.engine.architecture import architecture
from helpers.engine.finetuning import lm_loss
from helpers.engine.forward import (
    check_hook,
    clone,
    final_state,
    final_state_from,
    huggingface,
    residual_after,
    unembed,
    wrap,
)
from helpers.engine.generation import generate
from helpers.engine.interventions import Clamp, DuringGeneration, Gate
from helpers.engine.scoring import (
    NOTHING_KEPT,
    Sweep,
    question_batches,
    read_batches,
    read_letter_logits,
    read_loss,
    read_rows,
    row_batches,
)
from helpers.engine.trees import Trees
from helpers.loading.data import WORLD_SEED
from helpers.loading.models import read_model
from helpers.methods.rmu import trained_weights
from helpers.organism.world import build_world
from helpers.profiles import available_profiles, load_profile
from helpers.text.questions import ORDERS, ORIGINAL_ORDER, prompt_tokens
from helpers.text.tokens import check_tokenizer, letter_ids, special_ids
from tests.families import FAMILIES, SHAPE, family_model, tokenizer_of
from tests.toy import D_SAE, LAYER, brute_force_clamp, toy_sae

FEATURES = [3, 5, 8, 13]
CLAMP = Clamp(toy_sae(), FEATURES, -20.0, "any", Gate(0.2))
CAPLESS = [name for name in FAMILIES if not name.startswith("Gemma 2")]
WITH_WINDOW = [name for name in FAMILIES if name.startswith(("Gemma 2", "Gemma 3"))]


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    """With a window that no prompt fills."""
    return family_model(request.param)


@pytest.fixture(scope="module", params=WITH_WINDOW)
def narrow(request):
    """With a window that every prompt of a question is longer than."""
    return family_model(request.param, window=8)


@pytest.fixture(scope="module")
def questions():
    world = build_world(WORLD_SEED)
    return [*world.questions("toxins")[:2], *world.questions("history")[:1]]


@torch.no_grad()
def hooked(model, row, clamp=None):
    """Logits of one prompt alone by Hugging Face's own forward, with decode(edited f) + error put in by a hook."""
    ids = torch.tensor([row])

    def edit(module, args, out):
        mask = torch.ones_like(ids)
        return brute_force_clamp(clamp.sae, out, mask, clamp.features, clamp.value, clamp.where, clamp.gate.threshold)

    hook = huggingface(model).model.layers[LAYER].register_forward_hook(edit) if clamp else None
    logits = huggingface(model)(input_ids=ids, use_cache=False).logits[0]
    if hook:
        hook.remove()
    return logits


def letters(model, row, clamp=None):
    """Logits of A to D after one prompt alone."""
    logits = hooked(model, row, clamp)[-1]
    return torch.stack([torch.maximum(logits[i], logits[j]) for i, j in letter_ids(model.tokenizer).T])


def test_the_hook_is_right_after_every_layer(model):
    for layer in range(SHAPE["num_hidden_layers"]):
        check_hook(model, layer)
    twin = clone(model)
    batch = next(row_batches(model, [[2, *range(10, 20)]], 100))
    assert torch.equal(final_state(twin, batch), final_state(model, batch))
    assert list(trained_weights(model, LAYER)) == [f"model.layers.{i}.mlp.down_proj.weight" for i in range(LAYER + 1)]


@pytest.mark.parametrize("orders", [ORIGINAL_ORDER, ORDERS[:6]], ids=["rows", "trees"])
def test_delta_form_sweep_and_trees_equal_the_hooked_model(model, questions, orders):
    rows = prompt_tokens(model.tokenizer, questions, orders, "chat")
    batched = list(question_batches(model, questions, orders, "chat", 400))
    assert isinstance(batched[0], Trees) == (len(orders) > 1)
    sweep = Sweep(model, batched, LAYER, read_letter_logits, NOTHING_KEPT)
    edited = torch.stack([letters(model, row, CLAMP) for row in rows])
    assert not torch.allclose(edited, torch.stack([letters(model, row) for row in rows]), atol=0.1)
    for found in (sweep.edited(CLAMP), read_batches(model, batched, read_letter_logits, CLAMP)):
        torch.testing.assert_close(found, edited, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sweep.unedited, torch.stack([letters(model, row) for row in rows]), atol=1e-4, rtol=1e-4)


def test_prompts_longer_than_the_window_are_rows_and_equal_the_hooked_model(narrow, questions):
    batched = list(question_batches(narrow, questions, ORDERS[:3], "chat", 400))
    assert not any(isinstance(batch, Trees) for batch in batched)
    rows = prompt_tokens(narrow.tokenizer, questions, ORDERS[:3], "chat")
    found = Sweep(narrow, batched, LAYER, read_letter_logits, NOTHING_KEPT).edited(CLAMP)
    torch.testing.assert_close(found, torch.stack([letters(narrow, row, CLAMP) for row in rows]), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_padding_changes_nothing_and_losses_are_those_of_each_row_alone(model):
    rows = [[2, *range(10, 13 + 7 * n)] for n in range(4)]
    found = read_rows(model, rows, read_loss, CLAMP, 200)
    for row, (total, n) in zip(rows, found, strict=True):
        logits = hooked(model, row, CLAMP)[:-1]
        assert n == len(row) - 1
        assert float(total) == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="sum")), rel=1e-4
        )


@torch.no_grad()
def test_bos_is_there_once_and_never_touched(model, questions):
    rows = prompt_tokens(model.tokenizer, questions, ORIGINAL_ORDER, "chat")
    assert all(row[0] == model.tokenizer.bos_token_id and row.count(row[0]) == 1 for row in rows)
    batch = next(row_batches(model, rows, 1000))
    everywhere = Clamp(toy_sae(), list(range(D_SAE)), -5.0, "always")
    residual = residual_after(model, batch, LAYER)
    edited = everywhere(residual, batch.mask)
    assert torch.equal(edited[:, 0], residual[:, 0]) and torch.equal(edited[~batch.mask], residual[~batch.mask])
    assert not torch.equal(edited[:, 1], residual[:, 1])
    state = final_state_from(model, batch, LAYER, edited)
    torch.testing.assert_close(
        state[batch.mask], final_state(model, batch, everywhere)[batch.mask], atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("window", [4, 512])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_cached_generation_equals_the_uncached_one(name, window):
    model, n_new = family_model(name, window), 6
    prompts = [list(range(2, 2 + n)) for n in (12, 5, 9)]
    clamp, hf = Clamp(toy_sae(), list(range(0, D_SAE, 4)), -9.0, "any", Gate(0.0)), huggingface(model)

    def uncached(prompt):
        def edit(module, args, out):
            held = DuringGeneration(clamp, torch.ones(1, len(prompt)), "held")
            return torch.cat([held(x) for x in (out[:, : len(prompt)], *out[:, len(prompt) :].split(1, dim=1))], dim=1)

        hook, ids = hf.model.layers[LAYER].register_forward_hook(edit), list(prompt)
        for _ in range(n_new):
            ids.append(int(hf(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
        hook.remove()
        new = ids[len(prompt) :]
        return new[: new.index(1)] if 1 in new else new

    assert generate(model, prompts, n_new, clamp) == [uncached(prompt) for prompt in prompts]


@torch.no_grad()
def test_logits_of_some_words_are_the_models_own(model):
    batch = next(row_batches(model, [[2, *range(10, 20)]], 100))
    words, logits = torch.tensor([7, 3]), huggingface(model)(input_ids=batch.ids, use_cache=False).logits
    state = final_state(model, batch)
    assert torch.equal(unembed(model, state), logits)
    torch.testing.assert_close(unembed(model, state, words), logits[..., words])


# --- what is asked of a model -----------------------------------------------------------------------------------------


def test_what_the_engine_asks_is_in_one_place():
    found = {name: architecture(huggingface(family_model(name, window=32))) for name in FAMILIES}
    assert {name for name, of in found.items() if of.window == 32} == set(WITH_WINDOW)
    assert {of.window for of in found.values()} == {32, None}
    assert {name: of.logit_softcap for name, of in found.items() if of.logit_softcap} == {"Gemma 2, 2b and 9b": 30.0}
    assert {(of.layers, of.d_model, of.heads, of.head_dim) for of in found.values()} == {(4, 16, 2, 8)}
    everywhere = huggingface(family_model("Gemma 3, 1b"))
    everywhere.config.layer_types = ["full_attention"] * 4
    assert architecture(everywhere).window is None


@pytest.mark.parametrize(
    ("kind", "config", "changes", "message"),
    [
        (Qwen2ForCausalLM, Qwen2Config, {}, "'qwen2' model: the engine knows gemma, gemma2, gemma3_text, llama"),
        (LlamaForCausalLM, LlamaConfig, {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}},
         "'llama' model: rotary embeddings of type 'dynamic' may depend on a batch's length"),
        (Gemma3TextModel, Gemma3TextConfig, {"use_bidirectional_attention": True},
         "'gemma3_text' model: its tokens see later ones"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_is_refused_in_one_line(kind, config, changes, message):
    shape = {key: value for key, value in SHAPE.items() if not (kind is Qwen2ForCausalLM and key == "head_dim")}
    with pytest.raises(ValueError, match=message):
        wrap(kind(config(vocab_size=32, **shape, **changes)), None)


def test_attention_that_leaves_out_a_soft_cap_is_refused(tmp_path):
    """Before transformers does, which does not say what to set, and before any weights are read."""
    hf_model = huggingface(family_model("Gemma 2, 2b and 9b"))
    hf_model.config.save_pretrained(tmp_path)
    hf_model.config._attn_implementation = "sdpa"
    fault = "^'gemma2' model: attention 'sdpa' leaves out its soft-cap, set model.attention to 'eager'$"
    for refused in (lambda: architecture(hf_model), lambda: read_model(tmp_path, torch.float32, "sdpa")):
        with pytest.raises(ValueError, match=fault):
            refused()
    capless = [name for name in available_profiles() if load_profile(name).model.attention == "sdpa"]
    assert capless == ["gemma-2b-it", "gemma-3-1b-it", "gemma-3-4b-it", "llama-3.1-8b-it"]


# --- attention by torch's fused kernels -------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [8, 512])
@pytest.mark.parametrize("name", CAPLESS)
@torch.no_grad()
def test_fused_attention_gives_what_the_formula_gives(name, window, questions):
    """Trees, or rows longer than the window, padded; the layers above alone; a copy; text with a cache."""
    eager, fused = (family_model(name, window, attention) for attention in ("eager", "sdpa"))
    assert huggingface(clone(fused)).config._attn_implementation == "sdpa"
    check_hook(fused, LAYER)
    found = []
    for model in (eager, fused, clone(fused)):
        batched = list(question_batches(model, questions, ORDERS[:4], "chat", 400))
        sweep = Sweep(model, batched, LAYER, read_letter_logits, NOTHING_KEPT)
        rows = [[2, *range(10, 13 + 7 * n)] for n in range(4)]
        found.append([sweep.unedited, sweep.edited(CLAMP), read_rows(model, rows, read_loss, CLAMP, 200)])
        prompts = [list(range(2, 2 + n)) for n in (12, 5, 9)]
        found[-1].append(torch.tensor([*chain(*generate(model, prompts, 6, CLAMP))]))
    for one, other, copy in zip(*found, strict=True):
        torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
        assert torch.equal(copy, other)


@pytest.mark.parametrize("name", CAPLESS)
def test_gradients_through_fused_attention_are_the_formulas(name):
    found = []
    for attention in ("eager", "sdpa"):
        model = family_model(name, 8, attention)
        batch = next(row_batches(model, [[2, *range(10, 40)], [2, *range(10, 20)]], 100))
        lm_loss(model, batch, CLAMP).backward()
        found.append({name: weight.grad for name, weight in huggingface(model).named_parameters()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-3)


# --- a model of text and images ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_images(tmp_path_factory) -> tuple[Gemma3ForConditionalGeneration, Path]:
    """A random Gemma 3 for text and images, and its folder."""
    text = huggingface(family_model("Gemma 3, 4b, text", window=8)).config.to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
              "image_size": 28, "patch_size": 14}  # fmt: skip
    torch.manual_seed(1)
    whole = Gemma3ForConditionalGeneration(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    folder = tmp_path_factory.mktemp("gemma3")
    whole.eval().save_pretrained(folder)
    return whole, folder


@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
@torch.no_grad()
def test_of_a_model_for_text_and_images_the_text_part_is_read(with_images, tmp_path, prefix):
    """Under the names of either layout in which such weights are kept."""
    whole, folder = with_images
    shutil.copy(folder / "config.json", tmp_path)
    weights = {
        name.replace("language_model.model.", prefix): w for name, w in load_file(folder / "model.safetensors").items()
    }
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    part, ids = read_model(tmp_path, torch.float32), torch.arange(2, 22)[None]
    torch.testing.assert_close(part(input_ids=ids).logits, whole(input_ids=ids).logits, atol=1e-5, rtol=1e-5)
    assert architecture(part).family == "gemma3_text"
    with pytest.raises(ValueError, match="'gemma3' model: load its text part, of type 'gemma3_text'; the engine knows"):
        architecture(whole)


def test_weights_that_are_not_there_are_no_random_ones(with_images, tmp_path):
    _, folder = with_images
    shutil.copy(folder / "config.json", tmp_path)
    weights = load_file(folder / "model.safetensors")
    gone = next(name for name in weights if name.endswith("layers.1.mlp.down_proj.weight"))
    save_file(
        {n: w for n, w in weights.items() if n != gone}, tmp_path / "model.safetensors", metadata={"format": "pt"}
    )
    with pytest.raises(ValueError, match=r"1 weights are not in the files .*model\.layers\.1\.mlp\.down_proj\.weight"):
        read_model(tmp_path, torch.float32)


# --- what is asked of a tokenizer -------------------------------------------------------------------------------------


def test_a_tokenizer_without_padding_pads_with_eos_and_chat_marks_are_special():
    tokenizer = tokenizer_of("Llama 3.1")
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 1
    marks = [tokenizer.convert_tokens_to_ids(mark) for mark in ("<start_of_turn>", "<end_of_turn>")]
    assert set(marks) <= set(special_ids(tokenizer))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bos_token": None}, "the tokenizer has no bos_token"),
        ({"eos_token": None}, "the tokenizer has no eos_token"),
        ({"chat_template": None}, "no chat template: set model.prompt_format to 'plain'"),
        ({"chat_template": "{{ strftime_now('%d') }}"}, "the chat template writes today's date"),
    ],
)
def test_a_tokenizer_that_makes_no_prompts_is_refused_in_one_line(changes, message):
    tokenizer = tokenizer_of("Gemma 1")
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    with pytest.raises(ValueError, match=message):
        check_tokenizer(tokenizer, "chat")
    if "chat_template" in changes:
        check_tokenizer(tokenizer, "plain")
