"""The profile's language model as an nnsight model, on its device."""

from pathlib import Path
from typing import Any

import nnsight
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from helpers.engine.architecture import check_attention
from helpers.engine.forward import check_hook, huggingface, wrap
from helpers.engine.steps import check_optimizer
from helpers.loading.finetuned import again, finetuned
from helpers.loading.hub import Hub
from helpers.loading.sources import model_source
from helpers.organism import MODEL_DIR, RETRAINED_DIR
from helpers.profiles import ModelSettings, Profile
from helpers.text.tokens import check_tokenizer

# What weights of the language model are called in a model of text and images, and what alone.
TEXT_PART = {r"^(model\.)?language_model\.(model\.)?": "model."}


def load_model(profile: Profile, hub: Hub | None = None) -> nnsight.TransformersModel:
    """The profile's model in eval mode on its device, with the hook after the SAE's layer checked (`check_hook`).

    Args:
        hub: keeps the record of what is fetched.

    Raises:
        ValueError: the source is unknown, there is no such device, the engine does not serve such a model, its
            optimiser or attention cannot be had, the devices have no room for all of it, or prompts cannot be made
            with its tokenizer.
        FileNotFoundError: the organism's weights are missing, or the fine-tuned ones.
        HubError: the model cannot be fetched.
        RuntimeError: the hook does not do what it should.
    """
    device = device_of(profile.model)
    check_optimizer(profile.model.optimizer, device)
    disable_progress_bar()  # a notebook would keep every step of it
    hub, texts = hub or Hub(), profile.model.finetuned
    folder = _organism() if profile.model.source == "organism" else hub.fetch(model_source(profile))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    check_tokenizer(tokenizer, profile.model.prompt_format)
    spread = {"device_map": "auto"} if profile.model.device_map == "auto" else {}
    hf_model = read_model(folder, getattr(torch, profile.model.dtype), profile.model.attention, **spread)
    if left := sum(weight.is_meta for weight in hf_model.parameters()):
        raise ValueError(
            f"model.device_map 'auto': {left} weights found no room on the devices and lie in main memory or on disk, "
            "where nothing here asks them; take more or larger devices, or set model.dtype to 'bfloat16'"
        )
    if not spread:
        hf_model.to(device)  # type: ignore[arg-type]  # transformers' wrapper hides what torch's `to` takes
    if texts:
        hf_model.load_state_dict(finetuned_weights(profile, texts, hf_model), strict=False)
        hub.commits[f"fine-tuned on {texts}"] = finetuned(profile, texts).sha256
    hf_model.requires_grad_(False)  # what is trained is a copy, and no pass is to keep what only training needs
    model = wrap(hf_model, tokenizer)
    check_hook(model, profile.sae.layer)
    return model


def finetuned_weights(profile: Profile, texts: str, model: PreTrainedModel) -> dict[str, Tensor]:
    """All weights of the model that `helpers.finetune` has trained for the profile on texts, by the model's names.

    Raises:
        FileNotFoundError: they are missing (`finetuned`).
        ValueError: they were made with other settings, have changed since, or are not of the model's shapes.
    """
    made = finetuned(profile, texts)
    if not made.is_whole():
        raise ValueError(f"what was fine-tuned on {texts} has changed since it was written: {again(profile, texts)}")
    return all_weights(made.file, model, f"what was fine-tuned on {texts}", again(profile, texts))


def read_model(folder: Path, dtype: torch.dtype, attention: str = "eager", **how: Any) -> PreTrainedModel:
    """The language model in a folder; of one for text and images (Gemma 3 from 4b on) the text part alone.

    Args:
        attention: how it is computed (`check_attention`).

    Raises:
        ValueError: weights are missing, and would be random, or attention so computed would not be the model's.
    """
    config = AutoConfig.from_pretrained(folder)
    check_attention(config.get_text_config(), attention)
    how |= {"config": config.get_text_config(), "dtype": dtype, "output_loading_info": True}
    if config.get_text_config() is not config:
        how["key_mapping"] = TEXT_PART
    read: Any = AutoModelForCausalLM.from_pretrained  # with loading info it gives a pair, which its type does not say
    model, found = read(folder, attn_implementation=attention, **how)
    if missing := sorted([*found["missing_keys"], *found["mismatched_keys"]], key=str):
        raise ValueError(f"{len(missing)} weights are not in the files as the config says ({missing[0]} for one)")
    return model


def _organism() -> Path:
    return _weights_in(MODEL_DIR, "the organism's model").parent


def _weights_in(folder: Path, what: str) -> Path:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise FileNotFoundError(f"{what} is missing at {folder.name}/: rebuild it with `make organism`")
    return file


def retrained_file() -> Path:
    """The file of the weights of the organism that was trained anew without the forget text.

    Raises:
        FileNotFoundError: it is missing.
    """
    return _weights_in(RETRAINED_DIR, "the organism's retrained model")


def retrained_weights(model: nnsight.TransformersModel) -> dict[str, Tensor]:
    """All weights of the retrained organism, as they are stored, by the names that `model` has for its own.

    Args:
        model: whose place they are to take. What it has tied is one weight here, by its first name.

    Raises:
        FileNotFoundError: they are missing.
        ValueError: they are not all weights of a model of these shapes, and would be mixed with the model's own.
    """
    return all_weights(retrained_file(), huggingface(model), "the retrained model", "rebuild both with `make organism`")


def all_weights(file: Path, model: PreTrainedModel, what: str, step: str) -> dict[str, Tensor]:
    """Weights from a safetensors file that are to take the place of all of a model's.

    Args:
        what: the file holds, in the words of an error, and the next step there.

    Raises:
        ValueError: a weight is missing, is one too many, or has another shape.
    """
    weights = load_file(file)
    wanted = {name: weight.shape for name, weight in model.named_parameters()}
    found = {name: weight.shape for name, weight in weights.items()}
    different = sorted(name for name in wanted | found if wanted.get(name) != found.get(name))
    if different:
        raise ValueError(
            f"{what} is not of the model's shapes, {len(different)} weights differ ({different[0]} for one): {step}"
        )
    return weights


def device_of(settings: ModelSettings) -> torch.device:
    """The device that the profile names; 'auto' is the GPU where CUDA has one, else the CPU.

    Raises:
        ValueError: torch knows no such device, or this machine has none.
    """
    if settings.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.empty(0, device=settings.device).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {settings.device!r} cannot be used: {reason}; 'auto' takes what is there") from None
