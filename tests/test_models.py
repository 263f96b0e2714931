"""The hook reads and writes the residual stream, and the checks at load notice when it does not."""

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, GemmaConfig, GemmaForCausalLM

from helpers.engine.forward import (
    check_hook,
    check_pair,
    clone,
    final_state,
    final_state_from,
    huggingface,
    residual_after,
    unembed,
    with_weights,
    wrap,
)
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import row_batches
from helpers.engine.trees import tree_batches
from helpers.loading.models import device_of, load_model, read_model
from helpers.profiles import FOLDER, load_profile, parse_profile
from helpers.text.batches import Batch
from tests.toy import LAYER, toy_model, toy_sae


@pytest.fixture(scope="module")
def model():
    return toy_model()


@pytest.fixture(scope="module")
def batch():
    ids = torch.arange(2, 26).view(2, 12)
    return Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(2))


@torch.no_grad()
def test_residual_and_suffix_equal_hugging_face(model, batch):
    plain = huggingface(model)(input_ids=batch.ids, output_hidden_states=True, use_cache=False)
    residual = residual_after(model, batch, LAYER)
    assert torch.equal(residual, plain.hidden_states[LAYER + 1])
    assert torch.equal(unembed(model, final_state_from(model, batch, LAYER, residual)), plain.logits)


@torch.no_grad()
@pytest.mark.parametrize("layer", [LAYER, 3])
def test_where_the_state_is_read_it_is_the_models_own(model, batch, layer):
    """Of the last of the four layers the MLP runs at these positions only, unless an edit stands after that layer."""
    at = torch.zeros_like(batch.mask)
    at[[0, 1], [11, 4]] = True
    residual = residual_after(model, batch, layer)
    clamp, seen = Clamp(toy_sae(layer=layer), [3, 5], -20.0), []
    up = huggingface(model).model.layers[-1].mlp.up_proj
    hook = up.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].shape[:-1].numel()))
    pairs = [
        (final_state(model, batch), final_state(model, batch, read_at=at)),
        (final_state(model, batch, clamp), final_state(model, batch, clamp, at)),
        (final_state_from(model, batch, layer, residual), final_state_from(model, batch, layer, residual, at)),
    ]
    hook.remove()
    for whole, part in pairs:
        torch.testing.assert_close(part[at], whole[at], atol=1e-6, rtol=1e-6)
    assert seen == ([24, 2] * 3 if layer == LAYER else [24, 2, 24, 24])


@torch.no_grad()
def test_layers_above_do_not_run_for_the_residual(model, batch):
    ran = []
    blocks = huggingface(model).model.layers
    hooks = [block.register_forward_pre_hook(lambda *_, i=i: ran.append(i)) for i, block in enumerate(blocks)]
    residual_after(model, batch, LAYER)
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1]


def test_check_hook_passes_on_every_layer_and_refuses_a_missing_one(model):
    for layer in range(4):
        check_hook(model, layer)
    with pytest.raises(RuntimeError, match="no layer 4: the model has layers 0 to 3"):
        check_hook(model, 4)


def test_check_hook_notices_a_model_that_ignores_the_layer():
    """A model whose later layers multiply by zero: the residual after layer 1 no longer reaches the logits."""
    model = toy_model()
    with torch.no_grad():
        huggingface(model).model.norm.weight.fill_(-1.0)  # Gemma's norm multiplies by 1 + weight
    with pytest.raises(RuntimeError, match="does not change the logits"):
        check_hook(model, LAYER)


@torch.no_grad()
def explaining(model, batch, share):
    """An SAE that explains this share of the residual's variance: of x - mean it gives back 1 - sqrt(1 - share)."""
    sae, x = toy_sae(), residual_after(model, batch, LAYER)[:, 1:].flatten(0, 1)
    kept, mean = 1 - abs(1 - share) ** 0.5, x.mean(dim=0)
    # two features a dimension, one for each sign, which fire at once
    sae.W_enc.copy_(torch.cat([torch.eye(16), -torch.eye(16)], dim=1))
    sae.b_enc.copy_(torch.cat([-mean, mean])), sae.threshold.zero_()
    sae.W_dec.copy_(kept * sae.W_enc.T), sae.b_dec.copy_(mean)
    return sae


@pytest.mark.parametrize("share", [0.99, 0.5, 0.01])
def test_check_pair_measures_how_much_is_explained(model, batch, share):
    assert check_pair(model, explaining(model, batch, share), batch) == pytest.approx(share, abs=1e-4)


def test_check_pair_refuses_what_explains_no_more_than_the_mean(model, batch):
    with pytest.raises(RuntimeError, match=r"explains -\d+\.\d{3} of the residual's variance after layer 1, less than"):
        check_pair(model, toy_sae(), batch)  # a random one
    mean_only = explaining(model, batch, 0.0)
    with torch.no_grad():
        mean_only.b_dec += 0.01
    with pytest.raises(RuntimeError, match="trained on another model or layer"):
        check_pair(model, mean_only, batch)


def test_check_pair_leaves_bos_and_padding_out(model, batch):
    sae = explaining(model, batch, 0.5)
    padded = Batch(
        torch.cat([torch.zeros(2, 3, dtype=torch.long), batch.ids], dim=1).roll(-3, dims=1),
        torch.cat([torch.zeros(2, 3, dtype=torch.bool), batch.mask], dim=1).roll(-3, dims=1),
        batch.rows,
    )
    assert check_pair(model, sae, padded) == pytest.approx(0.5, abs=1e-4)


def test_check_pair_notices_a_clamp_that_does_not_reach_the_logits(batch):
    model = toy_model()
    sae = explaining(model, batch, 0.5)
    with torch.no_grad():
        huggingface(model).model.norm.weight.fill_(-1.0)  # Gemma's norm multiplies by 1 + weight
    with pytest.raises(RuntimeError, match=r"clamping feature \d+ after layer 1 does not reach the logits"):
        check_pair(model, sae, batch)


def test_weights_are_replaced_in_a_copy_by_their_names(model):
    name = "model.layers.2.mlp.down_proj.weight"
    before = {k: v.clone() for k, v in huggingface(model).state_dict().items()}
    changed = with_weights(model, {name: torch.full((16, 32), 2.0)})
    for key, weight in huggingface(changed).state_dict().items():
        assert torch.equal(weight, torch.full((16, 32), 2.0) if key == name else before[key]), key
    assert all(torch.equal(weight, before[k]) for k, weight in huggingface(model).state_dict().items())


def test_weights_of_another_model_are_refused(model):
    with pytest.raises(ValueError, match="no weights named"):
        with_weights(model, {"model.layers.99.mlp.down_proj.weight": torch.zeros(1)})


def test_a_clone_is_equal_and_independent(model, batch):
    twin = clone(model)
    with torch.no_grad():
        before = residual_after(model, batch, LAYER)
        assert torch.equal(residual_after(twin, batch, LAYER), before)
        huggingface(twin).model.layers[0].mlp.down_proj.weight.add_(1.0)
        assert not torch.equal(residual_after(twin, batch, LAYER), before)
        assert torch.equal(residual_after(model, batch, LAYER), before)
    names = [[name for name, _ in huggingface(one).named_parameters()] for one in (model, twin)]
    assert names[0] == names[1]  # tied weights, which are one parameter, stay tied


def test_a_source_that_cannot_be_loaded_is_refused_and_nothing_stands_in_for_it():
    from helpers.loading.models import load_model
    from helpers.loading.saes import load_sae

    text = (FOLDER / "tiny.toml").read_text(encoding="utf-8")
    for load, place in ((load_model, "[model]"), (load_sae, "[sae]")):
        other = text.replace(f'{place}\nsource = "organism"', f'{place}\nsource = "google/gemma-7b"', 1)
        with pytest.raises(ValueError, match="'google/gemma-7b' is unknown, allowed are: 'organism', '.*'"):
            load(parse_profile(other, "tiny"))


def test_missing_weights_say_how_to_rebuild_them(monkeypatch, tmp_path):
    monkeypatch.setattr("helpers.loading.models.MODEL_DIR", tmp_path / "model")
    from helpers.loading.models import load_model

    with pytest.raises(FileNotFoundError, match="make organism"):
        load_model(load_profile("tiny"))


class SmallDevice:
    """A layer whose device has memory for so many rows; `asked` keeps how many rows came each time."""

    def __init__(self, model, rows):
        self.rows, self.asked = rows, []
        huggingface(model).model.layers[LAYER + 1].register_forward_pre_hook(self)

    def __call__(self, block, args):
        self.asked.append(len(args[0]))
        if len(args[0]) > self.rows:
            raise torch.OutOfMemoryError("tried to allocate more than there is")


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:a batch does not fit")
def test_what_does_not_fit_in_memory_is_halved_and_gives_the_same(model):
    rows = [[2, *range(10, 13 + n)] for n in range(7)]
    whole, group = next(row_batches(model, rows, 1000)), [[2, 10, 11], [2, 10, 12, 13], [2, 14]]
    trees = next(tree_batches([group] * 5, lambda nodes: nodes, 1000, 0))
    clamp, small = Clamp(toy_sae(), [1, 2, 3], -2.0, "any"), toy_model()
    device = SmallDevice(small, rows=2)
    for batch in (whole, trees):
        residual = residual_after(model, batch, LAYER)
        torch.testing.assert_close(final_state(small, batch, clamp), final_state(model, batch, clamp))
        torch.testing.assert_close(
            final_state_from(small, batch, LAYER, residual), final_state_from(model, batch, LAYER, residual)
        )
        torch.testing.assert_close(residual_after(small, batch, LAYER + 1), residual_after(model, batch, LAYER + 1))
    # 7 do not fit, nor do 3 and 4 of them; 1 and 2, 2 and 2 do
    assert device.asked[:7] == [7, 3, 1, 2, 4, 2, 2]


@torch.no_grad()
def test_a_single_row_that_does_not_fit_is_an_error(model):
    small = toy_model()
    SmallDevice(small, rows=0)
    with pytest.warns(UserWarning, match=r"is halved: see model\.batch_tokens"), pytest.raises(torch.OutOfMemoryError):
        final_state(small, next(row_batches(small, [[2, 10], [2, 11]], 1000)))


def test_a_clone_in_bfloat16_gives_the_very_same_answers(model, batch, tmp_path):
    huggingface(model).save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16, attn_implementation="eager")
    original = wrap(loaded, model.tokenizer)
    assert torch.equal(final_state(clone(original), batch), final_state(original, batch))


@pytest.fixture(scope="module")
def gemma_1(model):
    """A random Gemma 1: no soft-caps, no norms after the blocks, no sliding window."""
    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=len(model.tokenizer), hidden_size=16, num_hidden_layers=4, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, intermediate_size=32, initializer_range=0.5, pad_token_id=0, eos_token_id=1,
        bos_token_id=2, attn_implementation="eager",
    )  # fmt: skip
    return wrap(GemmaForCausalLM(config), model.tokenizer)


@torch.no_grad()
def test_gemma_1_is_read_and_written_as_gemma_2_is(gemma_1, batch):
    for layer in range(4):
        check_hook(gemma_1, layer)
    plain = huggingface(gemma_1)(input_ids=batch.ids, output_hidden_states=True, use_cache=False)
    assert torch.equal(residual_after(gemma_1, batch, LAYER), plain.hidden_states[LAYER + 1])
    assert torch.equal(unembed(gemma_1, final_state(gemma_1, batch)), plain.logits)
    words = torch.tensor([7, 3])
    torch.testing.assert_close(unembed(gemma_1, plain.hidden_states[-1], words), plain.logits[..., words])


def test_a_model_is_spread_over_what_devices_there_are_or_refused(profile, monkeypatch):
    auto = replace(profile, model=replace(profile.model, device_map="auto"))
    one, same = load_model(profile), load_model(auto)
    weights = huggingface(one).state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in huggingface(same).state_dict().items())

    def partly(*args, **how):
        found = read_model(*args, **how)
        found.model.layers[3].mlp.to("meta")  # as accelerate leaves what it will fetch from elsewhere
        return found

    monkeypatch.setattr("helpers.loading.models.read_model", partly)
    with pytest.raises(ValueError, match="^model.device_map 'auto': 3 weights found no room on the devices and lie in"):
        load_model(auto)


def test_a_device_is_found_or_refused_in_one_line(profile, model):
    assert device_of(replace(profile.model, device="cpu")).type == "cpu"
    assert device_of(replace(profile.model, device="auto")).type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(ValueError, match=rf"device '{name}' cannot be used: [^\n]*; 'auto' takes what is there"):
            device_of(replace(profile.model, device=name))
