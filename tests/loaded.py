"""`python -m tests.loaded PROFILE...`: each profile probed and loaded by the real clients, a line of JSON each.

Run by tests/test_first_contact.py in a process that knows a loopback hub. Beside the doctor's exit code stands what one
clamp does to the residual that the model's own tokenizer and layers give.
"""

import json
import sys

import torch

from helpers.engine.columns import layer_of
from helpers.engine.forward import huggingface, residual_after
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import row_batches
from helpers.loading.models import load_model
from helpers.loading.saes import load_sae
from helpers.profiles import load_profile
from tests.doctored import doctored


@torch.no_grad()
def loaded(name: str) -> dict[str, object]:
    """What came of one profile."""
    code, said = doctored(f"--profile {name} --probe")
    profile = load_profile(name)
    model = load_model(profile)
    sae = load_sae(profile)
    row = model.tokenizer.encode("Answer: (")
    batch = next(row_batches(model, [row], 100))
    residual = residual_after(model, batch, profile.sae.layer).float()
    clamp = Clamp(sae, [1, 2], -3.0)
    moved = (clamp.edit(residual, clamp.touchable(batch.mask)) - residual).norm(dim=-1)[0]
    return {
        "profile": name, "code": code, "probe": said, "family": huggingface(model).config.model_type,
        "layer": layer_of(sae), "width": sae.cfg.d_sae, "bos": row[0] == model.tokenizer.bos_token_id,
        "fires": int((sae.encode(residual[0, 1:])[:, [1, 2]] > 0).sum()), "moved": moved.tolist(),
    }  # fmt: skip


if __name__ == "__main__":
    for named in sys.argv[1:]:
        print(json.dumps(loaded(named)), flush=True)
