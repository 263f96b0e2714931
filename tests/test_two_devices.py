"""A model spread over two devices: what is asked of it meets no tensor of the other device.

There is one real device here, so both are invented: tensors that carry shape, type and device but no numbers, and raise
where two of them on different devices meet, as on GPUs. What is computed there is not tested: only where.
"""

import os
import traceback
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from accelerate.hooks import AlignDevicesHook, add_hook_to_module
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from helpers.engine.edited import Edited
from helpers.engine.forward import clone, final_state, final_state_from, huggingface, residual_after, unembed
from helpers.engine.internals import answer_stream, residual_under
from helpers.engine.interventions import Clamp, Gate
from helpers.engine.scoring import read_letter_logits, read_letters
from helpers.text.batches import Batch
from tests.families import family_model
from tests.toy import toy_sae

FIRST, SECOND = "invented:0", "invented:1"
# As accelerate's device_map "auto" has it: the first layers, and what is tied, on the first device.
MAP = {"model.embed_tokens": FIRST, "model.rotary_emb": FIRST, "model.layers.0": FIRST, "model.layers.1": FIRST,
       "model.layers.2": SECOND, "model.layers.3": SECOND, "model.norm": SECOND}  # fmt: skip


def in_a_child(test: Callable[[], None]) -> None:
    """Run in a process of its own, for a device once invented stays for as long as a process lives."""
    child = os.fork()
    if not child:
        try:
            _setup_privateuseone_for_python_backend("invented")
            test()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def spread(name: str):
    """A family's model with its weights moved to the devices of the map, and accelerate's hooks that move inputs."""
    model = family_model(name)
    hf_model = huggingface(model)
    where = MAP | {"lm_head": FIRST if hf_model.config.tie_word_embeddings else SECOND}
    for part, device in where.items():
        for module in hf_model.get_submodule(part).modules():
            for key, weight in module._parameters.items():
                if weight is not None:
                    module._parameters[key] = torch.nn.Parameter(torch.empty(weight.shape).to(device))
            for key, buffer in module._buffers.items():
                module._buffers[key] = torch.empty(buffer.shape, dtype=buffer.dtype).to(device)
        add_hook_to_module(hf_model.get_submodule(part), AlignDevicesHook(execution_device=device))
    add_hook_to_module(hf_model, AlignDevicesHook(io_same_device=True))
    return model


def without_numbers(clamp: Clamp, mode: FakeTensorMode) -> Clamp:
    """The same, of tensors of the first device."""
    found = {field.name: getattr(clamp.columns, field.name) for field in fields(clamp.columns)}
    moved = {key: mode.from_tensor(x).to(FIRST) for key, x in found.items() if isinstance(x, torch.Tensor)}
    clamp.__dict__.update({"columns": replace(clamp.columns, **moved), "value": torch.zeros(()).to(FIRST)})
    return clamp


@pytest.mark.parametrize("name", ["Gemma 2, 2b and 9b", "Llama 3.1"])
def test_every_pass_ends_where_its_batch_is(name):
    made = [Clamp(toy_sae(layer=layer), [1, 2, 3], -2.0, "any", Gate(0.1)) for layer in (1, 2)]
    assert all(clamp.columns for clamp in made)  # read from the SAE while there are numbers

    @torch.no_grad()
    def passes() -> None:
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())
        with mode:
            model, clamps = spread(name), [without_numbers(clamp, mode) for clamp in made]
            ids = torch.zeros(2, 10, dtype=torch.long).to(FIRST)
            batch = Batch(ids, torch.ones_like(ids, dtype=torch.bool), torch.arange(2))
            words, at = torch.arange(3).to(FIRST), torch.zeros_like(batch.mask)
            found = []
            for clamp in clamps:
                residual = residual_after(model, batch, clamp.layer)
                edited = clamp(residual, batch.mask)
                state = final_state_from(model, batch, clamp.layer, edited, at)
                found += [residual, edited, state, final_state(model, batch, clamp)]
                found += [residual_under(Edited(model, clamp), batch, 3)]
            state = final_state(model, batch, None, at)
            found += [state, unembed(model, state), unembed(model, state, words)]
            found += [read(model, state, batch) for read in (read_letters, read_letter_logits)]
            assert {str(tensor.device) for tensor in found} == {FIRST}
            assert answer_stream(model, [batch], clamps[1]).shape == (2, 4, 16)
            with pytest.raises(ValueError, match=f"spread over {FIRST}, {SECOND}: weights are trained .* one device"):
                clone(model)

    in_a_child(passes)


def test_the_invented_devices_do_not_mix():
    def mixed() -> None:
        with FakeTensorMode(), pytest.raises(RuntimeError, match="at least two devices"):
            torch.empty(2).to(FIRST) + torch.empty(2).to(SECOND)

    in_a_child(mixed)
