"""Gradient ascent (GA): the loss on forget text is driven up, and nothing holds the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from helpers.methods.look import Look
from helpers.methods.losses import mean_nats
from helpers.methods.training import Grid, Objective, TrainedMethod
from helpers.profiles import Profile


@dataclass(frozen=True)
class GradientAscent(TrainedMethod):
    """Minimises -nll(forget), in nats per token.

    Paper (Muhamed et al. 2025, Table 8): rates 1e-5 and 5e-5, 400 steps of 8 texts. It has no end: its loss is not
    bounded below, so what it leaves is a matter of when it stops.
    """

    name, look = "GA", Look("#7A5195", "<")
    source = "Jang et al. 2023; Muhamed et al. 2025, Tables 1 and 8"
    table = "gradient_ascent"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every learning rate with every number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of)

    @property
    def words(self) -> str:
        """The setting in a few words: 'rate 0.001, 20 steps'."""
        return f"rate {self.learning_rate:g}, {self.steps} steps"

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """-nll(forget)."""
        return lambda student, forget, retain: -mean_nats(student, forget)
