"""A random Gemma-2 and a random SAE, small enough to reason about, and the brute-force ways to compare with."""

import torch
from sae_lens import SAE
from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
from sae_lens.saes.sae import SAEMetadata
from transformers import Gemma2Config, Gemma2ForCausalLM

from helpers.engine.forward import wrap
from helpers.loading.data import WORLD_SEED
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world

D_MODEL, D_SAE, LAYER = 16, 32, 1


def toy_model(seed: int = 0, layers: int = 4, sliding_window: int = 8):
    """A random Gemma-2 whose sliding window is shorter than the prompts, so that masks and positions matter."""
    tokenizer = build_tokenizer(build_world(WORLD_SEED))
    torch.manual_seed(seed)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=D_MODEL, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, intermediate_size=32, sliding_window=sliding_window, initializer_range=0.5,
        max_position_embeddings=256, query_pre_attn_scalar=8, pad_token_id=0, eos_token_id=1, bos_token_id=2,
        attn_implementation="eager",
    )  # fmt: skip
    return wrap(Gemma2ForCausalLM(config), tokenizer)


def toy_sae(seed: int = 0, layer: int = LAYER, hook: str = "resid_post") -> SAE:
    """A random JumpReLU SAE of which about a tenth of the features fire on a token."""
    cfg = JumpReLUSAEConfig(
        d_in=D_MODEL, d_sae=D_SAE, dtype="float32", device="cpu", apply_b_dec_to_input=False,
        normalize_activations="none", metadata=SAEMetadata(hook_name=f"blocks.{layer}.hook_{hook}"),
    )  # fmt: skip
    sae, draw = JumpReLUSAE(cfg), torch.Generator().manual_seed(seed)
    weights = {
        "W_enc": torch.randn(D_MODEL, D_SAE, generator=draw) / D_MODEL**0.5,
        "b_enc": 0.1 * torch.randn(D_SAE, generator=draw),
        "threshold": 1 + torch.rand(D_SAE, generator=draw),
        "W_dec": torch.randn(D_SAE, D_MODEL, generator=draw) / D_MODEL**0.5,
        "b_dec": torch.randn(D_MODEL, generator=draw),
    }
    sae.load_state_dict(weights)
    return sae.eval().requires_grad_(False)


def brute_force_clamp(sae: SAE, residual, mask, features, value, where="own", threshold=None):
    """decode(edited f) + error, token by token, as the papers write it."""
    edited = residual.clone()
    for b, row in enumerate(mask):
        real = row.nonzero().flatten().tolist()[1:]
        fires = {t: [i for i in features if sae.encode(residual[b, t])[i] > 0] for t in real}
        hot = [t for t in real if fires[t]]
        if threshold is not None and not len(hot) / len(real) > threshold:
            continue
        for t in hot:
            f = sae.encode(residual[b, t])
            error = residual[b, t] - sae.decode(f)
            for i in features if where == "any" else fires[t]:
                f[i] = value
            edited[b, t] = sae.decode(f) + error
    return edited
