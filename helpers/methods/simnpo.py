"""SimNPO: NPO without the frozen model, on nats per token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Self

from pydantic import Field
from torch import Tensor
from torch.nn.functional import logsigmoid

from helpers.methods.look import Look
from helpers.methods.losses import mean_nats, sums_and_lengths
from helpers.methods.training import Grid as TrainingGrid
from helpers.methods.training import Objective, TrainedMethod
from helpers.profiles import Positive, Profile, settings_table

Margin = Annotated[float, Field(ge=0)]


@settings_table
class Grid(TrainingGrid):
    """The method's table in a profile: every beta with every rate and number of steps."""

    betas: tuple[Positive, ...]
    margin: Margin
    retain_weight: Positive


@dataclass(frozen=True)
class SimNPO(TrainedMethod):
    """Minimises -2/beta mean_x log sigmoid(beta (S(x)/n(x) - margin)) + w nll(retain).

    S(x) is the nats of a row's n(x) predicted tokens (the public code of others counts one token more).

    Attributes:
        beta: the inverse temperature, of nats per token.
        margin: nats per token up to which a forget row counts as likely (Fan et al.: 0 for WMDP, 3 for MUSE-News).
        retain_weight: w, of the next-token loss on retain rows in nats per token.
    """

    beta: Positive
    margin: Margin
    retain_weight: Positive

    name, look = "SimNPO", Look("#FF7C43", "h")
    source = "Fan et al. 2024, equation 4; Muhamed et al. 2025, Table 2"
    table = "simnpo"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every beta with every rate and number of steps."""
        of = profile.grid_of(cls.table, Grid)
        return cls.over(of, beta=of.betas, margin=[of.margin], retain_weight=[of.retain_weight])

    @property
    def words(self) -> str:
        """The setting in a few words: 'beta 0.1, rate 0.001, 20 steps'."""
        return f"beta {self.beta:g}, rate {self.learning_rate:g}, {self.steps} steps"

    def objective(self, model, forget_rows: Tensor, *needs: Any) -> Objective:
        """The loss, which needs no frozen model."""

        def loss(student, forget, retain) -> Tensor:
            unlearned = simnpo_loss(*sums_and_lengths(student, forget), self.beta, self.margin)
            return unlearned + self.retain_weight * mean_nats(student, retain)

        return loss


def simnpo_loss(nats: Tensor, lengths: Tensor, beta: float, margin: float) -> Tensor:
    """-2/beta mean log sigmoid(beta (S/n - margin)), of the nats S and the predicted tokens n of each row, [rows]."""
    return -2 / beta * logsigmoid(beta * (nats / lengths - margin)).mean()
