"""RMU, representation misdirection for unlearning (Li et al. 2024): the baseline of all three papers.

Down-projections near one layer are trained so that on forget text the residual after that layer becomes a fixed random
vector, and on retain text stays what it was in the frozen model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Annotated, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from helpers.engine.edited import Edited
from helpers.engine.forward import clone, huggingface, residual_after
from helpers.methods.look import Look
from helpers.methods.method import Method
from helpers.profiles import Count, Positive, Profile, settings_table
from helpers.text.batches import Batch

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

Layer = Annotated[int, Field(ge=0)]


@settings_table
class Grid:
    """The method's table in a profile: every layer with every steering and alpha; the rest is the same in all."""

    layers: tuple[Layer, ...]
    steering: tuple[Positive, ...]
    alphas: tuple[Positive, ...]
    steps: Count
    batch_rows: Count
    learning_rate: Positive


@dataclass(frozen=True)
class RMU(Method):
    """On forget text the residual is steered to a fixed random vector, on retain text it is held to the frozen model's.

    Attributes:
        layer: the residual after it is steered; the down-projections of it and of the two layers below are trained.
        steering: length of the target vector in units of the mean residual norm on forget text (the papers give it in
            absolute numbers: 400 is about 4 times the norm after Gemma-2's layer 3).
        alpha: weight of the retain term.
        steps: batches of forget and retain rows.
        batch_rows: rows of each kind a step.
        learning_rate: of AdamW.
        seed: draws the target's direction and the order of the rows.
    """

    layer: Layer
    steering: Positive
    alpha: Positive
    steps: Count
    batch_rows: Count
    learning_rate: Positive
    seed: int = field(default=0, kw_only=True)

    name, look = "RMU", Look("#000000", "D")
    source = "Li et al. 2024; grid as Farrell, Lau, Conmy 2024, Fig. 5"
    trains = True
    table = "rmu"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every layer with every length of the target and every weight of the retain term."""
        sizes = profile.grid_of(cls.table, Grid)
        rest = (sizes.steps, sizes.batch_rows, sizes.learning_rate)
        return [cls(*setting, *rest) for setting in product(sizes.layers, sizes.steering, sizes.alphas)]

    @property
    def words(self) -> str:
        """The setting in a few words: 'layer 2, steering 3, alpha 30'."""
        return f"layer {self.layer:g}, steering {self.steering:g}, alpha {self.alpha:g}"

    def apply(self, lab: Lab) -> Edited:
        """The unedited model with trained down-projections."""
        return Edited(lab.model, weights=lab.trained(train_rmu, lab.model, lab.forget_rows, lab.retain_rows, self))


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
    names = [f"model.layers.{i}.mlp.down_proj.weight" for i in range(max(0, layer - 2), layer + 1)]
    return {name: huggingface(model).get_parameter(name) for name in names}


def _packed(rows: Tensor, device: torch.device) -> Batch:
    return Batch(rows.to(device), torch.ones_like(rows, dtype=torch.bool).to(device), torch.arange(len(rows)))


def train_rmu(model, forget_rows: Tensor, retain_rows: Tensor, setting: RMU) -> dict[str, Tensor]:
    """Train RMU on packed rows; the model given is left as it is.

    Args:
        forget_rows: token ids [rows, row_length].
        retain_rows: the same of retain text.

    Returns:
        the trained weights by name, for `with_weights`.

    Raises:
        ValueError: forget and retain rows are the same.
    """
    if forget_rows.shape == retain_rows.shape and torch.equal(forget_rows, retain_rows):
        raise ValueError("forget and retain rows are the same text: RMU would be told to change and to keep it")
    student = clone(model)
    huggingface(student).requires_grad_(False)
    weights = trained_weights(student, setting.layer)
    for weight in weights.values():
        weight.requires_grad_(True)
    optimiser = torch.optim.AdamW(weights.values(), lr=setting.learning_rate)
    with torch.no_grad():
        norm = float(residual_after(model, _packed(forget_rows[:32], model.device), setting.layer).norm(dim=-1).mean())
    target = steering_target(student.config.hidden_size, setting.steering * norm, setting.seed).to(student.device)
    draw = torch.Generator().manual_seed(setting.seed)
    for _ in range(setting.steps):
        forget, retain = (
            _packed(rows[torch.randint(len(rows), (setting.batch_rows,), generator=draw)], student.device)
            for rows in (forget_rows, retain_rows)
        )
        with torch.no_grad():
            frozen = residual_after(model, retain, setting.layer)
        steered, kept = (residual_after(student, batch, setting.layer) for batch in (forget, retain))
        rmu_loss(steered, kept, frozen, target.to(steered.dtype), setting.alpha).backward()
        optimiser.step()
        optimiser.zero_grad()
    return {name: weight.detach().cpu().clone() for name, weight in weights.items()}
