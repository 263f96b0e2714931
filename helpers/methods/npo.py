"""Negative preference optimisation (NPO): forget rows become unlikely beside what the frozen model makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from helpers.methods.look import Look
from helpers.methods.losses import mean_nats, sums_and_lengths
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Positive, Profile, settings_table


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every beta with every rate and number of steps."""

    betas: tuple[Positive, ...]
    retain_weight: Positive


@dataclass(frozen=True)
class NPO(TrainedMethod):
    """Minimises -2/beta mean_x log sigmoid(beta (S(x) - S_frozen(x))) + w nll(retain).

    S(x) is the nats of a **whole row**, so beta is tied to the row length: of 128 tokens at beta .1 the sigmoid is
    nearly saturated once a row has lost .3 nats a token. As beta goes to 0 this becomes GA with a retain term.

    Attributes:
        beta: the inverse temperature (Zhang et al.: .1).
        retain_weight: w, of the next-token loss on retain rows in nats per token.
    """

    beta: Positive
    retain_weight: Positive

    name, look = "NPO", Look("#D45087", "p")
    source = "Zhang et al. 2024, equation 3; Muhamed et al. 2025, Tables 1, 2 and 9"
    table = "npo"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every beta with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of, beta=of.betas, retain_weight=[of.retain_weight])

    @property
    def words(self) -> str:
        """The setting in a few words: 'beta 0.1, rate 0.001, 20 steps'."""
        return f"beta {self.beta:g}, rate {self.learning_rate:g}, {self.steps} steps"

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """The loss beside the frozen model, which reads every batch as well."""

        def loss(student, forget, retain) -> Tensor:
            with torch.no_grad():
                before, _ = sums_and_lengths(model, forget)
            now, _ = sums_and_lengths(student, forget)
            return npo_loss(now, before, self.beta) + self.retain_weight * mean_nats(student, retain)

        return loss


def npo_loss(nats: Tensor, frozen_nats: Tensor, beta: float) -> Tensor:
    """-2/beta mean log sigmoid(beta (S - S_frozen)), of whole rows' nats [rows] under student and frozen model."""
    return -2 / beta * logsigmoid(beta * (nats - frozen_nats)).mean()
