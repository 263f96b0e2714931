"""A vector added to the stream with the guard on, to make the model say the right letter after all.

Source: 2606.18322 (code: Mingyuee88/sae-post-intervention-recovery), which optimises one vector a question, at the
last token, towards the *known* right letter, and calls what is then said recovered. A vector can make a model say any
letter; so here one vector is fitted on half of the questions and judged on the other half, and a vector a question
stands beside it only with wrong letters as targets and with a model that never knew.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import final_state_from
from helpers.engine.internals import embedded, final_state_of_embeddings, residual_under
from helpers.engine.interventions import after_bos
from helpers.engine.scoring import read_letter_logits
from helpers.text.batches import Batch

Place = Literal["residual", "embeddings"]
BATCH_PROMPTS = 16  # of a step of Adam, where all have one vector


class Prompts(NamedTuple):
    """Prompts as an edit is asked them.

    Attributes:
        layer: the hooked one.
        batched: as token ids.
        given: what a vector is added to, [batch, seq, d_model] of each batch.
    """

    edited: Edited
    layer: int
    batched: list[Batch]
    given: list[Tensor]


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

    def prompts(self, edited: Edited, layer: int, batched: Sequence[Batch]) -> Prompts:
        """Prompts with the stream that the vector is added to, which does not depend on the vector.

        Args:
            layer: the hooked layer.
        """
        return Prompts(edited, layer, list(batched), [self._stream(edited, layer, batch) for batch in batched])

    @torch.no_grad()
    def _stream(self, edited: Edited, layer: int, batch: Batch) -> Tensor:
        if self.place == "embeddings":
            return embedded(edited.model, batch)
        return residual_under(edited, batch, layer)

    def fit(self, prompts: Prompts, targets: Tensor, tokens: int) -> Tensor:
        """The vector [d_model] that was found on some prompts, or with `each` one a prompt, [prompts, d_model].

        Args:
            targets: index of the letter to be said, [prompts], in the order of the batches' rows.
            tokens: that are gone back through at once (a prompt at least); changes the result's last digits.
        """
        norm, (parts, groups) = mean_norm(prompts), _parted(prompts, tokens)
        count, first = len(targets) if self.each else 1, parts.given[0]
        vectors = torch.zeros(count, first.shape[-1], device=first.device, requires_grad=True)
        rate = self.learning_rate * norm / vectors.shape[1] ** 0.5
        optimiser = torch.optim.Adam([vectors], lr=rate)
        for step in range(self.steps):
            # ever shorter steps, or the last batches alone would decide
            optimiser.param_groups[0]["lr"] = rate * (1 - step / self.steps)
            for i in range(len(parts.batched)) if self.each else groups[step % len(groups)]:
                rows = parts.batched[i].rows
                logits = self.logits(parts, i, vectors[rows] if self.each else vectors)
                loss = torch.nn.functional.cross_entropy(logits, targets[rows].to(logits.device), reduction="sum")
                loss.backward(inputs=[vectors])
            optimiser.step()
            optimiser.zero_grad()
            with torch.no_grad():
                vectors *= (self.bound * norm / vectors.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1)
        return vectors.detach() if self.each else vectors.detach()[0]

    @torch.no_grad()
    def letters(self, prompts: Prompts, vector: Tensor) -> Tensor:
        """Logits of A..D with the vector in place, [prompts, 4], in the order of the batches' rows, on the CPU."""
        found, rows = [], [batch.rows for batch in prompts.batched]
        for i, of in enumerate(rows):
            found.append(self.logits(prompts, i, vector[of] if self.each else vector[None]).cpu())
        return torch.cat(found)[torch.cat(rows).argsort()]

    def logits(self, prompts: Prompts, i: int, added: Tensor) -> Tensor:
        """Logits of A..D, [prompts, 4], of batch i with a vector [1 or batch, d_model] added to the stream."""
        batch, given, edited = prompts.batched[i], prompts.given[i], prompts.edited
        at = after_bos(batch.mask)
        if self.each:
            at = torch.zeros_like(at)
            at[batch.owner(), batch.last()] = True
        pushed = given + torch.where(at[..., None], added[:, None], 0.0).to(given.dtype)
        if self.place == "embeddings":
            state = final_state_of_embeddings(edited.model, batch, pushed, edited.intervention)
        else:
            end = read_letter_logits.positions(batch)
            state = final_state_from(edited.model, batch, prompts.layer, pushed, end)
        return read_letter_logits(edited.model, state, batch)


def mean_norm(prompts: Prompts) -> float:
    """Mean length of the stream over the tokens after BOS."""
    of = zip(prompts.given, prompts.batched, strict=True)
    return float(torch.cat([x[after_bos(batch.mask)].float().norm(dim=-1) for x, batch in of]).mean())


def _parted(prompts: Prompts, tokens: int) -> tuple[Prompts, list[range]]:
    """The same prompts a few at a time, and which of these parts are a step: `BATCH_PROMPTS` together."""
    chosen: list[tuple[int, Tensor]] = []
    groups = []
    for i, batch in enumerate(prompts.batched):
        for step in torch.arange(len(batch.ids), device=batch.ids.device).split(BATCH_PROMPTS):
            parts = step.split(max(1, tokens // batch.ids.shape[1]))
            groups.append(range(len(chosen), len(chosen) + len(parts)))
            chosen += [(i, part) for part in parts]
    batched = [prompts.batched[i].select(part) for i, part in chosen]
    return prompts._replace(batched=batched, given=[prompts.given[i][part] for i, part in chosen]), groups
