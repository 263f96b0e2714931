"""RMU, representation misdirection for unlearning (Li et al. 2024): the baseline of all three papers.

Down-projections near one layer are trained so that on forget text the residual after that layer becomes a fixed random
vector, and on retain text stays what it was in the frozen model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from helpers.engine.architecture import architecture, layer_name
from helpers.engine.forward import huggingface, residual_after
from helpers.methods.look import Look
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Positive, Profile, settings_table
from helpers.text.batches import packed_batch

Layer = Annotated[int, Field(ge=0)]


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every layer, steering and alpha, with every rate and number of steps."""

    layers: tuple[Layer, ...]
    steering: tuple[Positive, ...]
    alphas: tuple[Positive, ...]


@dataclass(frozen=True)
class RMU(TrainedMethod):
    """On forget text the residual is steered to a fixed random vector, on retain text it is held to the frozen model's.

    Attributes:
        layer: the residual after it is steered; the down-projections of it and of the two layers below are trained.
        steering: length of the target vector in units of the mean residual norm on forget text (the papers give it in
            absolute numbers: 400 is about 4 times the norm after Gemma-2's layer 3).
        alpha: weight of the retain term.
    """

    layer: Layer
    steering: Positive
    alpha: Positive

    name, look = "RMU", Look("#000000", "D")
    source = "Li et al. 2024; grid as Farrell, Lau, Conmy 2024, Fig. 5"
    table = "rmu"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every layer, length of the target and weight of the retain term, with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of, layer=of.layers, steering=of.steering, alpha=of.alphas)

    @property
    def words(self) -> str:
        """The setting in a few words: 'layer 2, steering 3, alpha 30, 100 steps'."""
        return f"layer {self.layer:g}, steering {self.steering:g}, alpha {self.alpha:g}, {self.steps} steps"

    def student(self, model) -> Any:
        """A copy of the model of which the down-projections near the layer are trained."""
        student = super().student(model)
        huggingface(student).requires_grad_(False)
        for weight in trained_weights(student, self.layer).values():
            weight.requires_grad_(True)
        return student

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """The loss at the layer; those above it do not run."""
        with torch.no_grad():
            first = packed_batch(forget_rows[:32], model.device)
            norm = float(residual_after(model, first, self.layer).norm(dim=-1).mean())
        target = steering_target(architecture(huggingface(model)).d_model, self.steering * norm, self.seed)

        def loss(student, forget, retain) -> Tensor:
            with torch.no_grad():
                frozen = residual_after(model, retain, self.layer)
            steered, kept = (residual_after(student, batch, self.layer) for batch in (forget, retain))
            return rmu_loss(steered, kept, frozen, target.to(steered), self.alpha)

        return loss


def rmu_loss(forget: Tensor, retain: Tensor, frozen_retain: Tensor, target: Tensor, alpha: float) -> Tensor:
    """The reference loss: MSE(forget, target) + alpha * MSE(retain, frozen_retain), means over all dimensions.

    Farrell's code sums over the model's dimensions instead, so its coefficients are not comparable.

    Args:
        forget: residual of the trained model on forget text, [..., d_model].
        retain: the same on retain text.
        frozen_retain: residual of the frozen model on that retain text.
        target: the fixed vector [d_model] that forget text is steered to.
    """
    misdirect = nn.functional.mse_loss(forget, target.expand_as(forget))
    return misdirect + alpha * nn.functional.mse_loss(retain, frozen_retain)


def steering_target(d_model: int, length: float, seed: int) -> Tensor:
    """A fixed vector of that length with uniform positive entries, as the reference code draws it, [d_model]."""
    direction = torch.rand(d_model, generator=torch.Generator().manual_seed(seed))
    return length * direction / direction.norm()


def trained_weights(model, layer: int) -> dict[str, nn.Parameter]:
    """The down-projections of `layer` and the two below it, by name."""
    names = [f"{layer_name(i)}.mlp.down_proj.weight" for i in range(max(0, layer - 2), layer + 1)]
    return {name: huggingface(model).get_parameter(name) for name in names}
