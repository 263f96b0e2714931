"""CRISP: low-rank adapters that put chosen SAE features to sleep on forget text, and leave all else as it was."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from helpers.engine.columns import in_float32, layer_of
from helpers.engine.forward import final_state, huggingface, residual_after, wrap
from helpers.engine.interventions import after_bos
from helpers.methods.look import Look
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Count, Profile, Strength, settings_table
from helpers.text.batches import Batch

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

Share = Annotated[float, Field(gt=0, lt=1)]
# What is adapted in every layer: all of attention and of the MLP.
ADAPTED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every number of features and boost, with every rate and number of steps."""

    n_features: tuple[Count, ...]
    boosts: tuple[Strength, ...]
    unlearn_share: Share
    coherence: Strength
    rank: Count


@dataclass(frozen=True)
class CRISP(TrainedMethod):
    """Minimises (1-b) U + b R + b g C, where U is the mean activation of the chosen features on forget text.

    R holds the residual at the SAE's layer to the frozen model's on retain text, C the state before the unembedding.
    Where a step is gone through in parts, U is the mean over each part's activations and not over the step's.
    In U what a feature reads is raised by the size of boost times the mean of all features' pre-activations at the
    token where it fires in the frozen model, so that the gradient does not die as soon as the feature does. Paper:
    several SAEs at once and sentences of the forget domain written by hand for C; here the profile's one SAE, and
    retain text.

    Attributes:
        n_features: how many features are put to sleep, by the rule 'crisp' of `methods.selection`.
        boost: alpha in the paper (5 to 50).
        unlearn_share: 1 - b (paper: .01).
        coherence: g (paper: .01).
        rank: of the adapters, whose scale is 2 (paper: rank 8; its code 4).
        off_by_one: read the SAE on the residual before its block instead of after it, as the released code does.
    """

    n_features: Count
    boost: Strength
    unlearn_share: Share
    coherence: Strength
    rank: Count
    off_by_one: bool = field(default=False, kw_only=True)

    name, look = "CRISP", Look("#2CA02C", "H")
    source = "Ashuach et al. 2025 (2508.13650), section 3"
    table, rule = "crisp", "crisp"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of features and boost, with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(
            of,
            n_features=of.n_features,
            boost=of.boosts,
            unlearn_share=[of.unlearn_share],
            coherence=[of.coherence],
            rank=[of.rank],
        )

    @property
    def words(self) -> str:
        """The setting in a few words: '20 features, boost 5, rate 0.001, 20 steps'."""
        return f"{self.n_features} features, boost {self.boost:g}, rate {self.learning_rate:g}, {self.steps} steps"

    def needs(self, lab: Lab) -> tuple[Any, ...]:
        """The SAE and the chosen features."""
        return lab.sae, lab.ranked(self.rule, self.n_features)

    def student(self, model) -> Any:
        """A copy of the model with adapters on every layer, which get gradients and nothing else does.

        Raises:
            ValueError: a rank above the smaller side of a matrix.
        """
        # here, for it takes seconds to import and pictures know the looks of methods
        from peft import LoraConfig, inject_adapter_in_model

        student = super().student(model)
        hf_model = huggingface(student)
        sides = {name: min(p.shape) for name, p in hf_model.named_parameters() if name.split(".")[-2] in ADAPTED}
        smallest = min(sides, key=lambda name: sides[name])
        if self.rank > sides[smallest]:
            raise ValueError(f"rank {self.rank} is above the smaller side of {smallest}, which is {sides[smallest]}")
        torch.manual_seed(self.seed)  # peft draws the adapters from torch's own generator
        config = LoraConfig(r=self.rank, lora_alpha=2 * self.rank, target_modules=list(ADAPTED))
        inject_adapter_in_model(config, hf_model)
        return wrap(hf_model, student.tokenizer)

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """The three terms; every batch is read by the frozen model as well."""
        sae, features = needs
        layer, ids = layer_of(sae) - self.off_by_one, list(features)

        def loss(student, forget: Batch, retain: Batch) -> Tensor:
            with torch.no_grad():
                read = residual_after(model, forget, layer).float()
                with in_float32(read.device):
                    fires = sae.encode(read)[..., ids] > 0
                kept, said = residual_after(model, retain, layer), final_state(model, retain)
            asleep = awake(sae, ids, residual_after(student, forget, layer), fires, self.boost, after_bos(forget.mask))
            held = mse_loss(residual_after(student, retain, layer), kept)
            coherent = mse_loss(final_state(student, retain), said)
            return self.unlearn_share * asleep + (1 - self.unlearn_share) * (held + self.coherence * coherent)

        return loss

    def weights(self, student: Any) -> dict[str, Tensor]:
        """The adapted matrices, each with its adapter merged in, by the names that the original has for them."""
        return {
            f"{name}.weight": (module.base_layer.weight + module.get_delta_weight("default")).detach()
            for name, module in huggingface(student).named_modules()
            if hasattr(module, "base_layer")
        }


def awake(sae, features: list[int], residual: Tensor, fires: Tensor, boost: float, counted: Tensor) -> Tensor:
    """U: the mean of the positive activations of chosen features, raised where the frozen model has them firing.

    Args:
        sae: a JumpReLU or ReLU SAE.
        residual: [batch, seq, d_model] of the trained model.
        fires: [batch, seq, features] bool, where each feature fires in the frozen model.
        counted: [batch, seq] bool, the tokens that count.

    Raises:
        ValueError: the SAE is gated, so that a feature has two numbers before it fires.
    """
    if sae.cfg.architecture() == "gated":
        raise ValueError(
            "CRISP raises what a feature is before it fires, of which a gated SAE has two: use another SAE"
        )
    x = residual.float() - sae.b_dec if sae.cfg.apply_b_dec_to_input else residual.float()
    with in_float32(x.device):
        all_read = x @ sae.W_enc + sae.b_enc
    read = all_read[..., features] + torch.where(fires, (boost * all_read.mean(dim=-1, keepdim=True)).abs(), 0.0)
    threshold = sae.threshold[features] if hasattr(sae, "threshold") else torch.zeros_like(read[0, 0])
    activations = (read.relu() * (read > threshold))[counted]
    return activations.sum() / (activations > 0).sum().clamp(min=1)
