"""A vector added to the stream with the guard on, to make the model say the right letter after all.

Source: 2606.18322 (code: Mingyuee88/sae-post-intervention-recovery), which optimises one vector a question, at the
last token, towards the *known* right letter, and calls what is then said recovered. A vector can make a model say any
letter; so here one vector is fitted on half of the questions and judged on the other half, and a vector a question
stands beside it only with wrong letters as targets and with a model that never knew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import final_state_from, residual_after
from helpers.engine.internals import embedded, final_state_of_embeddings
from helpers.engine.interventions import after_bos
from helpers.engine.scoring import read_letter_logits
from helpers.text.batches import Batch

Place = Literal["residual", "embeddings"]
# Prompts a step of Adam, where all have one vector.
BATCH_PROMPTS = 16


@dataclass(frozen=True)
class ResidualVector:
    """Adam on the summed cross-entropy, over the four letters, of a target letter, within a bound on the length.

    Attributes:
        place: 'residual': added after the hooked layer, after the intervention's edit; 'embeddings': to what enters the
            first layer, before the intervention sees it.
        each: every question has a vector of its own, at its last token, as in the public demonstration; if not, all
            have one, at every token after BOS.
        bound: of the vector's length, in multiples of the mean length of the stream it is added to, over tokens after
            BOS.
        steps: of Adam, a few prompts each, in turn; where every question has its own vector, all prompts each.
        learning_rate: length of Adam's first step, in multiples as above.
    """

    place: Place
    each: bool
    bound: float
    steps: int
    learning_rate: float

    def fit(self, edited: Edited, layer: int, batched: Sequence[Batch], targets: Tensor) -> Tensor:
        """The vector [d_model] that was found on some prompts, or with `each` one a prompt, [prompts, d_model].

        Args:
            layer: the hooked layer.
            targets: index of the letter to be said, [prompts], in the order of the batches' rows.
        """
        given = [self.stream(edited, layer, batch) for batch in batched]
        norm = mean_norm(given, batched)
        if not self.each:
            batched, given = _parted(batched, given)
        count = sum(len(batch.last()) for batch in batched) if self.each else 1
        vectors = torch.zeros(count, given[0].shape[-1], device=given[0].device, requires_grad=True)
        rate = self.learning_rate * norm / vectors.shape[1] ** 0.5
        optimiser = torch.optim.Adam([vectors], lr=rate)
        for step in range(self.steps):
            for i in range(len(batched)) if self.each else [step % len(batched)]:
                rows = batched[i].rows
                logits = self.logits(edited, layer, batched[i], given[i], vectors[rows] if self.each else vectors)
                loss = torch.nn.functional.cross_entropy(logits, targets[rows].to(logits.device), reduction="sum")
                vectors.grad = _plus(vectors.grad, torch.autograd.grad(loss, vectors)[0])
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():
                vectors *= (self.bound * norm / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        return vectors.detach() if self.each else vectors.detach()[0]

    @torch.no_grad()
    def letters(self, edited: Edited, layer: int, batched: Sequence[Batch], vector: Tensor) -> Tensor:
        """Logits of A..D with the vector in place, [prompts, 4], in the order of the batches' rows, on the CPU."""
        found = []
        for batch in batched:
            added = vector[batch.rows] if self.each else vector[None]
            found.append(self.logits(edited, layer, batch, self.stream(edited, layer, batch), added).cpu())
        return torch.cat(found)[torch.cat([batch.rows for batch in batched]).argsort()]

    @torch.no_grad()
    def stream(self, edited: Edited, layer: int, batch: Batch) -> Tensor:
        """What the vector is added to, [batch, seq, d_model]."""
        if self.place == "embeddings":
            return embedded(edited.model, batch)
        residual = residual_after(edited.model, batch, layer)
        return residual if edited.intervention is None else edited.intervention(residual, batch.mask)

    def logits(self, edited: Edited, layer: int, batch: Batch, given: Tensor, added: Tensor) -> Tensor:
        """Logits of A..D, [prompts, 4], with a vector [1 or batch, d_model] added to the stream."""
        end = read_letter_logits.positions(batch)
        at = end if self.each else after_bos(batch.mask)
        pushed = given + torch.where(at[..., None], added[:, None], 0.0).to(given.dtype)
        if self.place == "embeddings":
            state = final_state_of_embeddings(edited.model, batch, pushed, edited.intervention)
        else:
            state = final_state_from(edited.model, batch, layer, pushed, end)
        return read_letter_logits(edited.model, state, batch)


def mean_norm(given: Sequence[Tensor], batched: Sequence[Batch]) -> float:
    """Mean length of the stream over the tokens after BOS."""
    norms = [x[after_bos(batch.mask)].float().norm(dim=-1) for x, batch in zip(given, batched, strict=True)]
    return float(torch.cat(norms).mean())


def _parted(batched: Sequence[Batch], given: Sequence[Tensor]) -> tuple[list[Batch], list[Tensor]]:
    """The same prompts a few at a time."""
    chosen = [(i, part) for i, batch in enumerate(batched)
              for part in torch.arange(len(batch.ids), device=batch.ids.device).split(BATCH_PROMPTS)]  # fmt: skip
    return [batched[i].select(part) for i, part in chosen], [given[i][part] for i, part in chosen]


def _plus(one: Tensor | None, other: Tensor) -> Tensor:
    return other if one is None else one + other
