"""SCRUB: a student that leaves its teacher on forget text and stays with it on retain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from torch import Tensor

from helpers.methods.look import Look
from helpers.methods.losses import divergence, mean_nats
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Positive, Profile, settings_table


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every weight of the forget term with every rate and number of steps."""

    forget_weights: tuple[Positive, ...]
    temperature: Positive


@dataclass(frozen=True)
class SCRUB(TrainedMethod):
    """Minimises KL(retain) + nll(retain) - b KL(forget), each KL of the frozen teacher from the student.

    Kurmanji et al. take the maximising steps in rounds of their own, before the minimising ones and only in the first
    part of training; here every step takes both, so that all methods see the same rows.

    Attributes:
        forget_weight: b (Muhamed et al., Table 5: 1e-4 to 10).
        temperature: of both distributions (Kurmanji et al.: 2).
    """

    forget_weight: Positive
    temperature: Positive

    name, look = "SCRUB", Look("#8C564B", "8")
    source = "Kurmanji et al. 2023; Muhamed et al. 2025, Tables 1 and 5"
    table = "scrub"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every weight with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of, forget_weight=of.forget_weights, temperature=[of.temperature])

    @property
    def words(self) -> str:
        """The setting in a few words: 'forget x1, rate 0.001, 20 steps'."""
        return f"forget x{self.forget_weight:g}, rate {self.learning_rate:g}, {self.steps} steps"

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """The loss beside the frozen model, which reads every batch as well."""

        def loss(student, forget, retain) -> Tensor:
            kept = divergence(model, student, retain, self.temperature) + mean_nats(student, retain)
            return kept - self.forget_weight * divergence(model, student, forget, self.temperature)

        return loss
