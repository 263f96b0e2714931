"""Gradient difference (GradDiff): the loss on forget text is driven up, the loss on retain text down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from helpers.methods.look import Look
from helpers.methods.losses import mean_nats
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Positive, Profile, settings_table


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every weight of the retain term with every rate and number of steps."""

    retain_weights: tuple[Positive, ...]


@dataclass(frozen=True)
class GradDiff(TrainedMethod):
    """Minimises -nll(forget) + w nll(retain), both in nats per token.

    Attributes:
        retain_weight: w (Maini et al.: 1).
    """

    retain_weight: Positive

    name, look = "GradDiff", Look("#A50026", ">")
    source = "Liu et al. 2022; Maini et al. 2024; Muhamed et al. 2025, Table 2"
    table = "grad_diff"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every weight with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of, retain_weight=of.retain_weights)

    @property
    def words(self) -> str:
        """The setting in a few words: 'retain x1, rate 0.001, 20 steps'."""
        return f"retain x{self.retain_weight:g}, rate {self.learning_rate:g}, {self.steps} steps"

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """-nll(forget) + w nll(retain)."""
        return lambda student, forget, retain: (
            self.retain_weight * mean_nats(student, retain) - mean_nats(student, forget)
        )
