"""A step gone through in parts, or with less kept, is the same step; weights are float32 under bfloat16 products."""

import sys
from functools import partial
from itertools import islice
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from helpers.attacks.relearning import fine_tuned
from helpers.engine.finetuning import FineTuning, lm_loss
from helpers.engine.forward import final_state, huggingface
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import read_loss, row_batches
from helpers.engine.steps import Passes, Steps, as_used, check_optimizer, keep_only_what_goes_in, master_copy
from helpers.experiments.costs import MOMENT_BYTES
from helpers.loading.models import load_model
from helpers.methods.rmu import RMU
from helpers.methods.training import train
from helpers.profiles import load_profile
from helpers.text.batches import packed_batch
from tests.toy import LAYER, toy_model, toy_sae

ROWS = torch.arange(10, 106).view(8, 12)
DOCUMENTS = [[2, *range(10, 10 + n)] for n in (3, 11, 5, 7)]
HOOK = Clamp(toy_sae(), (3, 5, 8, 13), -8.0, "any", Gate(0.1))


def gradients(model, loss) -> dict[str, torch.Tensor]:
    huggingface(model).zero_grad()
    loss(model).backward()
    return {name: p.grad.clone() for name, p in huggingface(model).named_parameters() if p.grad is not None}


def test_documents_in_parts_weigh_by_their_tokens():
    """The mean over all predicted tokens, not the mean of the parts' means."""
    model = toy_model()
    (whole,) = row_batches(model, DOCUMENTS, 1000)
    expected = gradients(model, lambda m: lm_loss(m, whole, None))
    predicted = 3 + 11 + 5 + 7
    parts = [gradients(model, partial(lm_loss, batch=batch, intervention=None, predicted=predicted))
             for batch in row_batches(model, DOCUMENTS, 12)]  # fmt: skip
    assert len(parts) > 2
    for name, gradient in expected.items():
        assert torch.allclose(sum(part[name] for part in parts), gradient, rtol=1e-3, atol=1e-5), name
    of_means = [gradients(model, partial(lm_loss, batch=batch, intervention=None))
                for batch in row_batches(model, DOCUMENTS, 12)]  # fmt: skip
    name = "model.layers.0.mlp.down_proj.weight"
    wrong = sum(part[name] for part in of_means) / len(of_means)
    assert not torch.allclose(wrong, expected[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rows", [ROWS, DOCUMENTS])
def test_an_attack_in_parts_is_the_same_attack(rows):
    model, found = toy_model(), []
    for tokens in (1000, 12):
        steps = list(islice(fine_tuned(model, rows, 1e-3, 4, 0, Passes(tokens), HOOK), 3))
        found.append(([loss for _, loss in steps], dict(huggingface(steps[-1][0]).named_parameters())))
    (losses, weights), (in_parts, others) = found
    assert in_parts == pytest.approx(losses, rel=1e-4)
    # AdamW's step has the size of the rate where a gradient is hardly more than its rounding
    assert all(torch.allclose(w, others[name], atol=3e-4) for name, w in weights.items())


@pytest.mark.parametrize("hook", [None, HOOK])
def test_what_layers_compute_again_gives_the_same_gradients(hook):
    batch, plain, kept = packed_batch(ROWS), toy_model(), toy_model()
    keep_only_what_goes_in(kept)
    layers, again = huggingface(kept).model.layers, []
    for layer in layers:
        run = layer._gradient_checkpointing_func
        layer._gradient_checkpointing_func = lambda *a, run=run, **k: again.append(1) or run(*a, **k)
    expected, found = (gradients(m, lambda m: lm_loss(m, batch, hook)) for m in (plain, kept))
    assert len(again) == len(layers)
    assert expected.keys() == found.keys() and all(torch.equal(g, found[name]) for name, g in expected.items())
    if hook is not None:
        without = gradients(plain, lambda m: lm_loss(m, batch, None))
        assert any(not torch.equal(g, without[name]) for name, g in expected.items())


def test_a_pass_keeps_far_less_where_layers_run_again():
    def kept(model) -> int:
        sizes = {}
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t: sizes.setdefault((t.untyped_storage().data_ptr(), t.numel()), t.nbytes) and t, lambda t: t
        ):
            state = final_state(model, packed_batch(ROWS))
        assert state.requires_grad
        return sum(sizes.values())

    plain, less = toy_model(layers=8), toy_model(layers=8)
    keep_only_what_goes_in(less)
    assert kept(less) < kept(plain) / 4


def test_logits_in_several_chunks_are_computed_again_with_the_same_gradients(monkeypatch):
    model, batch = toy_model(), packed_batch(ROWS)
    expected = gradients(model, lambda m: lm_loss(m, batch, None))
    words = huggingface(model).config.vocab_size
    monkeypatch.setattr("helpers.engine.scoring.CHUNK_LOGITS", 20 * words)  # 88 positions in chunks of 20
    found = gradients(model, lambda m: lm_loss(m, batch, None))
    assert all(torch.allclose(g, found[name], rtol=1e-4, atol=1e-6) for name, g in expected.items())
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        read_loss(model, final_state(model, batch), batch).sum()
    assert not [shape for shape in kept if shape[-1:] == (words,)], "no logits are kept"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_products_in_low_precision_move_float32_weights(dtype):
    """Because the model is of that dtype, and is asked so afterwards, or because training alone is told to be."""
    model, how = toy_model(), Passes(1000, dtype="same" if dtype == torch.bfloat16 else "bfloat16")
    huggingface(model).to(torch.bfloat16).to(dtype)  # weights that bfloat16 has in either case
    student = master_copy(model)
    before = huggingface(student).model.layers[0].mlp.down_proj.weight.clone()
    seen = []
    steps = Steps(student, dtype, 1e-5, how, "a test")
    product = huggingface(student).model.layers[0].mlp.down_proj
    hook = product.register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    loss = steps.step(lambda _: [lambda: lm_loss(student, packed_batch(ROWS), None)])
    hook.remove()
    assert seen == [torch.bfloat16] and loss > 0 and steps.done == 1
    moved = huggingface(student).model.layers[0].mlp.down_proj.weight
    assert moved.dtype == torch.float32 and not torch.equal(moved, before)
    # bfloat16 weights of more than .01 would have stayed where they were
    same = moved.bfloat16() == before.bfloat16()
    assert (moved - before).abs().max() < 2e-5 and same[before.abs() > 0.01].all()
    assert huggingface(as_used(student, dtype)).dtype == dtype and as_used(student, torch.float32) is student


def test_a_long_gradient_is_shortened_where_that_is_asked():
    moved = []
    for longest in (None, 1e-9):
        student = master_copy(toy_model())
        steps = Steps(student, torch.float32, 1e-3, Passes(1000), "a test", longest)
        before = [p.detach().clone() for p in steps.trained.values()]
        steps.step(lambda _, s=student: [lambda: lm_loss(s, packed_batch(ROWS), None)])
        moved.append(
            max(float((a - b.detach()).abs().max()) for a, b in zip(before, steps.trained.values(), strict=True))
        )
    assert moved[1] < moved[0] / 2  # of gradients below AdamW's eps little is left


def test_a_part_that_is_no_number_ends_the_training_before_its_step():
    student = master_copy(toy_model())
    steps = Steps(student, torch.float32, 1e-3, Passes(1000), "a test")
    before = [p.clone() for p in steps.trained.values()]
    loss = partial(lm_loss, student, packed_batch(ROWS), None)
    with pytest.raises(FloatingPointError, match=r"^a test: the loss is nan at step 1; lower learning_rate$"):
        steps.step(lambda _: [loss, lambda: loss() * float("nan")])
    assert all(torch.equal(a, b) for a, b in zip(before, steps.trained.values(), strict=True)) and steps.done == 0


def test_a_pass_takes_one_row_at_least():
    assert [Passes(2048).rows(length) for length in (128, 1024, 4096)] == [16, 2, 1]


# --- where there is no memory for a step ------------------------------------------------------------------------------


def short_of_memory(monkeypatch, rows: int) -> list[int]:
    """Let losses of more rows than so many run out of memory going back, half-way; the rows of every try."""
    tried = []

    def loss_of(model, batch, *args, **more):
        loss = lm_loss(model, batch, *args, **more)
        tried.append(len(batch.ids))
        if len(batch.ids) > rows:
            loss.backward()  # gradients that are not to be counted twice
            raise torch.OutOfMemoryError("tried to allocate more than there is")
        return loss

    monkeypatch.setattr("helpers.engine.finetuning.lm_loss", loss_of)
    return tried


def test_a_step_that_does_not_fit_is_gone_through_in_smaller_parts(monkeypatch):
    expected = FineTuning(toy_model(), ROWS, 1e-3, 8, 0, Passes(24))
    losses = [expected.step() for _ in range(2)]
    tried, training = short_of_memory(monkeypatch, 2), FineTuning(toy_model(), ROWS, 1e-3, 8, 0, Passes(1000))
    # 1000, 500, 250 and 125 tokens are all 8 rows of 12; 62 are five of them, 31 are two
    with pytest.warns(
        UserWarning, match=r"fine-tuning, .* goes on with (62|31) tokens at once: see model\.training_to"
    ):
        found = [training.step() for _ in range(2)]
    assert tried == [8, 5, *[2] * 4, *[2] * 4]
    assert found == losses
    weights = expected.steps.trained
    assert all(torch.equal(weight, weights[name]) for name, weight in training.steps.trained.items())


@pytest.mark.filterwarnings("ignore:.*a step does not fit")
def test_a_single_row_that_does_not_fit_is_an_error(monkeypatch):
    short_of_memory(monkeypatch, 0)
    with pytest.raises(torch.OutOfMemoryError):
        FineTuning(toy_model(), ROWS, 1e-3, 8, 0, Passes(1000)).step()


# --- AdamW in 8 bits --------------------------------------------------------------------------------------------------


def test_eight_bits_need_their_package_and_a_device_of_its_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)  # not importable
    step = r"install it \(pip install '\.\[adam-8bit\]'\), or set model\.optimizer to 'adamw'$"
    with pytest.raises(ValueError, match=f"^optimizer 'adamw 8-bit' needs the package bitsandbytes, not here: {step}"):
        load_model(load_profile("tiny", {"model.optimizer": "adamw 8-bit"}))
    with pytest.raises(ValueError, match="runs on cuda and cpu, and the device is 'mps': set model.optimizer to 'adam"):
        check_optimizer("adamw 8-bit", torch.device("mps"))
    check_optimizer("adamw", torch.device("mps"))


def test_the_profiles_optimiser_is_built_where_every_training_takes_its_steps(monkeypatch):
    """Of form alone: a module of that name which records how it is asked; the next test takes the real one."""
    asked = []

    class AdamW8bit(torch.optim.AdamW):
        def __init__(self, weights, lr):
            asked.append(lr)
            super().__init__(weights, lr=lr)

    monkeypatch.setitem(sys.modules, "bitsandbytes", ModuleType("bitsandbytes"))
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", SimpleNamespace(AdamW8bit=AdamW8bit))
    settings = load_profile("tiny", {"model.optimizer": "adamw 8-bit"}).model
    FineTuning(toy_model(), ROWS, 1e-3, 4, 0, Passes.of(settings)).step()
    setting = RMU(LAYER, 2.0, 1.0, steps=1, batch_rows=4, learning_rate=1e-2)
    train(toy_model(), ROWS, ROWS + 100, setting, Passes.of(settings))
    assert asked == [1e-3, 1e-2]


def test_moments_in_eight_bits_take_a_byte_each_and_a_training_goes_on_from_them(tmp_path):
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: pip install '.[adam-8bit]'")
    how = (1e-3, 4, 3, Passes(1000, optimizer="adamw 8-bit"))
    whole, first, then = (FineTuning(toy_model(), ROWS, *how) for _ in range(3))
    losses = [whole.step() for _ in range(4)]
    before = [first.step() for _ in range(2)]
    save_file(first.steps.state(), tmp_path / "state.safetensors")
    then.resume(load_file(tmp_path / "state.safetensors"), 2)
    assert before + [then.step() for _ in range(2)] == losses
    assert all(torch.equal(weight, then.steps.trained[name]) for name, weight in whole.steps.trained.items())
    weight = whole.steps.trained["model.embed_tokens.weight"]
    kept, of_each = whole.steps.optimiser.state[weight], ("state1", "state2", "absmax1", "absmax2")
    blocks = 2 * 4 * -(-weight.numel() // 256)
    assert sum(kept[what].nbytes for what in of_each) == 2 * weight.numel() + blocks
    assert MOMENT_BYTES["adamw 8-bit"] == pytest.approx((2 * weight.numel() + blocks) / weight.numel(), rel=1e-3)
    assert losses[-1] < losses[0]
    plain = FineTuning(toy_model(), ROWS, 1e-3, 4, 3, Passes(1000))
    assert [plain.step() for _ in range(4)] == pytest.approx(losses, rel=0.02)
