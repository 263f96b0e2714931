"""The direction that tells hazard from benign prompts taken out of the residual: if a guard acts along it, it is gone.

Source: Lucki et al. 2024 (2409.18025; code: ethz-spylab/unlearning-vs-safety), whose direction is the mean difference
between the unlearned and the original model, taken out of all block outputs. Here, as the attacker needs no original:
between hazard and benign prompts of the guarded model itself, after one layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import final_state_from
from helpers.engine.internals import residual_under
from helpers.engine.interventions import after_bos
from helpers.engine.scoring import read_letter_logits
from helpers.text.batches import Batch


@dataclass(frozen=True)
class Orthogonalisation:
    """After one layer the residual loses, at every token after BOS, its component along a direction.

    Attributes:
        layer: at or above the hooked one, so that an intervention acts first.
    """

    layer: int

    @property
    def words(self) -> str:
        """The setting in a few words: 'after layer 3'."""
        return f"after layer {self.layer}"

    @torch.no_grad()
    def direction(self, edited: Edited, hazard: Sequence[Batch], benign: Sequence[Batch]) -> Tensor:
        """Mean residual on hazard prompts minus that on benign ones, over tokens after BOS, [d_model]."""
        means = []
        for batched in (hazard, benign):
            kept = [residual_under(edited, batch, self.layer)[after_bos(batch.mask)].float() for batch in batched]
            means.append(torch.cat(kept).mean(dim=0))
        return means[0] - means[1]

    @torch.no_grad()
    def letters(self, edited: Edited, batched: Sequence[Batch], direction: Tensor) -> Tensor:
        """Logits of A..D without the direction, [prompts, 4], in the order of the batches' rows, on the CPU."""
        found = []
        for batch in batched:
            residual = residual_under(edited, batch, self.layer)
            residual = torch.where(after_bos(batch.mask)[..., None], without(residual, direction), residual)
            at = read_letter_logits.positions(batch)
            state = final_state_from(edited.model, batch, self.layer, residual, at)
            found.append(read_letter_logits(edited.model, state, batch).cpu())
        return torch.cat(found)[torch.cat([batch.rows for batch in batched]).argsort()]


def without(residual: Tensor, direction: Tensor) -> Tensor:
    """The residual [..., d_model] without its component along a direction [d_model], if it has a length."""
    unit = torch.nn.functional.normalize(direction.to(residual), dim=0)
    return residual - (residual @ unit)[..., None] * unit
