"""A random small model of every family that the engine serves, with what is particular to it made to matter."""

from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from helpers.engine.forward import wrap
from helpers.loading.data import WORLD_SEED
from helpers.organism.tokenizer import build_tokenizer
from helpers.organism.world import build_world
from helpers.text.tokens import check_tokenizer
from tests.toy import D_MODEL

SHAPE: dict[str, Any] = {
    "hidden_size": D_MODEL, "num_hidden_layers": 4, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8,
    "intermediate_size": 32, "initializer_range": 0.5, "max_position_embeddings": 256, "pad_token_id": 0,
    "eos_token_id": 1, "bos_token_id": 2, "attn_implementation": "eager",
}  # fmt: skip
LOCAL, GLOBAL = "sliding_attention", "full_attention"
# As in the real configs: Gemma 3 looks far in every sixth layer, with rotary frequencies of its own there, which 4b
# stretches eightfold; Llama 3.1's are stretched by wavelength, and its head is not tied to the embedding.
GEMMA_3 = {"query_pre_attn_scalar": 8, "layer_types": [LOCAL, LOCAL, GLOBAL, LOCAL]}
STRETCHED = {
    GLOBAL: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e4},
    LOCAL: {"rope_type": "default", "rope_theta": 1e2},
}
LLAMA_ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 32, "rope_theta": 1e2}  # fmt: skip
FAMILIES: dict[str, tuple[type[PreTrainedModel], type, dict[str, Any]]] = {
    "Gemma 1": (GemmaForCausalLM, GemmaConfig, {}),
    "Gemma 2, 2b and 9b": (Gemma2ForCausalLM, Gemma2Config, {"query_pre_attn_scalar": 8}),
    "Gemma 3, 1b": (Gemma3ForCausalLM, Gemma3TextConfig, GEMMA_3),
    "Gemma 3, 4b, text": (Gemma3ForCausalLM, Gemma3TextConfig, GEMMA_3 | {"rope_parameters": STRETCHED}),
    "Llama 3.1": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA_ROPE, "tie_word_embeddings": False}),
}  # fmt: skip


def tokenizer_of(name: str):
    """The organism's tokenizer; for Llama one that, like its own, names no padding token."""
    tokenizer = build_tokenizer(build_world(WORLD_SEED))
    if name.startswith("Llama"):
        tokenizer.pad_token = None
    check_tokenizer(tokenizer, "chat")
    return tokenizer


def family_model(name: str, window: int = 512, attention: str = "eager"):
    """A random model of a family, with a sliding window where it has one, and its attention computed in a way."""
    kind, config, own = FAMILIES[name]
    tokenizer = tokenizer_of(name)
    sliding = {"sliding_window": window} if name.startswith(("Gemma 2", "Gemma 3")) else {}
    torch.manual_seed(0)
    return wrap(
        kind(config(vocab_size=len(tokenizer), **SHAPE | {"attn_implementation": attention}, **own, **sliding)),
        tokenizer,
    )
