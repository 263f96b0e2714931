"""What the engine asks of a language model, in one place, and which models it refuses because it could not be exact.

Every family served here is a stack `model.model.layers` of decoder layers that hand on the residual stream, a last norm
`model.model.norm` and an unembedding `model.lm_head`. `tests/test_families.py` holds each of them to Hugging Face's own
forward pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

# By the `model_type` of their config.
FAMILIES = {"gemma": "Gemma 1", "gemma2": "Gemma 2", "gemma3_text": "Gemma 3 (text)", "llama": "Llama"}
# Rotary embeddings whose frequencies do not depend on how long a batch is, so that rows do not know each other.
FIXED_ROPE = ("default", "linear", "llama3")


@dataclass(frozen=True)
class Architecture:
    """What of a model's config the engine uses.

    Attributes:
        family: a key of `FAMILIES`.
        layers, d_model, heads, head_dim, vocab: sizes.
        logit_softcap: logits are capped at +-this by a tanh; None where they are not.
        window: how many tokens back a layer of sliding attention sees at least; None where every layer sees all.
    """

    family: str
    layers: int
    d_model: int
    heads: int
    head_dim: int
    vocab: int
    logit_softcap: float | None
    window: int | None


def architecture(model: PreTrainedModel) -> Architecture:
    """What the engine uses of a Hugging Face model.

    Raises:
        ValueError: it is of no family served here, or does what the engine would not do exactly.
    """
    check_attention(model.config, model.config._attn_implementation)
    return architecture_of(model.config)


def architecture_of(config: PretrainedConfig) -> Architecture:
    """The same from a config alone, before any weights are there. Raises ValueError as `architecture`."""
    if refusal := _refusal(config):
        raise ValueError(f"{config.model_type!r} model: {refusal}")
    return Architecture(
        family=config.model_type,
        layers=config.num_hidden_layers,
        d_model=config.hidden_size,
        heads=config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        vocab=config.vocab_size,
        logit_softcap=getattr(config, "final_logit_softcapping", None),
        window=config.sliding_window if "sliding_attention" in (getattr(config, "layer_types", None) or ()) else None,
    )


def check_attention(config: PretrainedConfig, attention: str) -> None:
    """Make sure that a way of computing attention gives what a model of this config is.

    Args:
        attention: 'eager', or a fused kernel of transformers, as 'sdpa'.

    Raises:
        ValueError: the model caps attention logits, which no fused kernel does.
    """
    if attention != "eager" and getattr(config, "attn_logit_softcapping", None):
        step = "set model.attention to 'eager'"
        raise ValueError(f"{config.model_type!r} model: attention {attention!r} leaves out its soft-cap, {step}")


def decoder(model: Any) -> Any:
    """Where a model's `layers` and its last `norm` are: of a Hugging Face model, or of nnsight's wrapping of one."""
    return model.model


def layer_name(layer: int) -> str:
    """What names of weights of a decoder layer begin with."""
    return f"model.layers.{layer}"


def _refusal(config: PretrainedConfig) -> str:
    """Why the engine does not take a model of this config, in a few words; '' where it does."""
    if config.model_type not in FAMILIES:
        text = config.get_text_config()
        part = f"load its text part, of type {text.model_type!r}; " if text is not config else ""
        return f"{part}the engine knows {', '.join(FAMILIES)}"
    if getattr(config, "use_bidirectional_attention", False):
        return "its tokens see later ones, so a prompt merged into a tree would not be the prompt alone"
    rope = config.rope_parameters or {}
    kinds = {one["rope_type"] for one in ([rope] if "rope_type" in rope else rope.values()) if one}
    if moving := sorted(kinds - set(FIXED_ROPE)):
        return f"rotary embeddings of type {moving[0]!r} may depend on a batch's length, allowed are {FIXED_ROPE}"
    return ""
