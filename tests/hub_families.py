"""Small random models of the other families and SAEs for them, under the real names and in the real layouts.

Model configs, weights' names and shards are as the architectures' own classes write them. SAE files are those that the
installed sae-lens reads from the places in its registry: five arrays in params.npz (Gemma Scope), five tensors in lower
case in params.safetensors (Gemma Scope 2), hyperparams.json beside checkpoints/final.safetensors (Llama Scope).
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from helpers.loading.sources import model_source, sae_source
from helpers.profiles import load_profile
from tests.families import GEMMA_3, GLOBAL, LLAMA_ROPE, LOCAL, SHAPE, STRETCHED, tokenizer_of

PROFILES = ("gemma-2-9b-it", "gemma-3-1b-it", "gemma-3-4b-it", "llama-3.1-8b-it")
GATED = frozenset(model_source(load_profile(name)).repo for name in PROFILES)
# sae-lens gives Gemma Scope's SAEs the width of the model they were trained on, whatever is in the file.
D_MODEL = {"gemma-2-9b-it": 3584}
SCALE = 9.266968325791856  # sae-lens' registry: sqrt(d_model) over the mean length of Llama's residual after layer 9


def make_families(root: Path) -> None:
    """Write model and SAE of every profile as root/models/<owner>/<name>/..."""
    for name in PROFILES:
        write_model(root, name)
        write_sae(root, name)


def write_model(root: Path, name: str) -> None:
    """A random model, one layer deeper than the SAE's, and its tokenizer."""
    folder = root / "models" / model_source(load_profile(name)).repo
    random_model(name).save_pretrained(folder, max_shard_size="1MB")
    tokenizer_of("Llama" if name.startswith("llama") else "Gemma").save_pretrained(folder)


def random_model(name: str) -> PreTrainedModel:
    """The architecture at its smallest; of Gemma 3 4b the whole model, with what it has for images."""
    layers = load_profile(name).sae.layer + 2
    of: dict[str, Any] = SHAPE | {"num_hidden_layers": layers, "vocab_size": len(tokenizer_of("Gemma"))}
    of |= {"hidden_size": D_MODEL.get(name, SHAPE["hidden_size"]), "initializer_range": 0.05}
    kinds = [GLOBAL if i % 6 == 5 else LOCAL for i in range(layers)]
    torch.manual_seed(0)
    match name:
        case "gemma-2-9b-it":
            return Gemma2ForCausalLM(Gemma2Config(**of, query_pre_attn_scalar=8))
        case "gemma-3-1b-it":
            return Gemma3ForCausalLM(Gemma3TextConfig(**of | GEMMA_3 | {"layer_types": kinds}))
        case "gemma-3-4b-it":
            own = GEMMA_3 | {"layer_types": kinds, "rope_parameters": STRETCHED}
            vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "image_size": 28, "patch_size": 14}  # fmt: skip
            text = Gemma3TextConfig(**of | own).to_dict()
            return Gemma3ForConditionalGeneration(
                Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
            )
    return LlamaForCausalLM(LlamaConfig(**of, rope_parameters=LLAMA_ROPE, tie_word_embeddings=False))


def weights_of(name: str) -> dict[str, Tensor]:
    """An SAE whose features 0 to 3 read and write one dimension each, and whose others are silent."""
    d_model, width = D_MODEL.get(name, SHAPE["hidden_size"]), load_profile(name).sae.width
    weights = {"W_enc": torch.zeros(d_model, width), "W_dec": torch.zeros(width, d_model), "b_enc": torch.zeros(width),
               "b_dec": torch.zeros(d_model), "threshold": torch.ones(width)}  # fmt: skip
    for feature, sign in enumerate((1.0, 1.0, -1.0, -1.0)):  # so that whatever stands there, one of two fires
        weights["W_enc"][1 + feature % 2, feature] = weights["W_dec"][feature, 1 + feature % 2] = sign
    weights["b_enc"][:4] = 100.0  # always
    return weights


def write_sae(root: Path, name: str) -> None:
    """The files of one SAE where sae-lens' registry has them."""
    source, weights = sae_source(load_profile(name)), weights_of(name)
    folder = root / "models" / source.repo / source.files[0].removesuffix("/*")
    folder.mkdir(parents=True)
    if name.startswith("gemma-2"):
        np.savez_compressed(folder / "params.npz", **{key: value.numpy() for key, value in weights.items()})
    elif name.startswith("gemma-3"):
        save_file({key.lower(): value for key, value in weights.items()}, folder / "params.safetensors")
        layer = load_profile(name).sae.layer
        config = {"architecture": "jump_relu", "model_name": name, "hf_hook_point_in": f"model.layers.{layer}.output"}
        (folder / "config.json").write_text(json.dumps(config))
    else:
        _write_llama_scope(folder, weights, load_profile(name).sae.layer)


def _write_llama_scope(folder: Path, weights: dict[str, Tensor], layer: int) -> None:
    """Encoder and decoder as linear layers in bfloat16; one threshold for all features, in units of scaled input."""
    d_model, width = weights["W_enc"].shape
    (folder / "checkpoints").mkdir()
    names = {"encoder.weight": weights["W_enc"].T, "decoder.weight": weights["W_dec"].T,
             "encoder.bias": weights["b_enc"], "decoder.bias": weights["b_dec"]}  # fmt: skip
    tensors = {key: value.bfloat16().contiguous() for key, value in names.items()}
    save_file(tensors, folder / "checkpoints" / "final.safetensors")
    hook, norm = f"blocks.{layer}.hook_resid_post", d_model**0.5 / SCALE
    settings = {"d_model": d_model, "d_sae": width, "jump_relu_threshold": 0.5, "hook_point_in": hook,
                "hook_point_out": hook, "dataset_average_activation_norm": {"in": norm, "out": norm}}  # fmt: skip
    (folder / "hyperparams.json").write_text(json.dumps(settings))
