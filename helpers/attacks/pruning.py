"""Magnitude pruning: the smallest weights become 0, and small edits with them. No paper's grid."""

from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.engine.internals import layer_matrices


@dataclass(frozen=True)
class Pruning:
    """In every matrix of every layer a share of the weights, those of the smallest magnitude, is set to 0.

    Attributes:
        share: of each matrix's weights, from 0 to 1, rounded down to whole weights.
    """

    share: float

    @property
    def words(self) -> str:
        """The setting in a few words: '30% of each matrix'."""
        return f"{self.share:.0%} of each matrix"

    def weights(self, model) -> dict[str, Tensor]:
        """The pruned matrices, by the names that the model has for them."""
        return {name: self.pruned(weight) for name, weight in layer_matrices(model).items()}

    def pruned(self, weight: Tensor) -> Tensor:
        """A matrix with its smallest weights at 0; of equal ones those that come first."""
        gone = weight.abs().flatten().argsort(stable=True)[: int(self.share * weight.numel())]
        kept = torch.ones(weight.numel(), dtype=torch.bool, device=weight.device)
        kept[gone] = False
        return torch.where(kept.view_as(weight), weight, 0.0)
