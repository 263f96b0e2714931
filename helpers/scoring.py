"""What the model answers and how well it predicts text, with and without an intervention."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from helpers.corpora import Batch, Rows, batches
from helpers.interventions import Clamp
from helpers.models import final_state, final_state_from, residual_and_final_state, unembed
from helpers.questions import LETTERS, ORDERS, Order, Question, prompt_tokens, right_letters

# What a final state is read as: (model, final state [batch, seq, d_model], batch) -> one result a row, [batch, ...]
Readout = Callable[..., Tensor]

CHUNK_POSITIONS = 4096


def letter_ids(tokenizer) -> Tensor:
    """Token ids of the four answer letters, [2, 4]: 'A' to 'D' without a space before them and with one.

    Raises:
        ValueError: a letter is not one token.
    """
    ids = [[tokenizer.encode(space + letter, add_special_tokens=False) for letter in LETTERS] for space in ("", " ")]
    if any(len(token) != 1 for row in ids for token in row):
        raise ValueError(f"every answer letter must be one token, got {ids}")
    return torch.tensor(ids)[..., 0]


def read_letters(model, state: Tensor, batch: Batch) -> Tensor:
    """p(A..D) at the last token, [batch, 4]: shares of the whole vocabulary, the larger of 'A' and ' A'."""
    last = state[torch.arange(len(state), device=state.device), batch.last()]
    probabilities = unembed(model, last).softmax(dim=-1)
    return probabilities[:, letter_ids(model.tokenizer).to(state.device)].amax(dim=1)


def read_loss(model, state: Tensor, batch: Batch) -> Tensor:
    """Next-token loss of each row, [batch, 2]: the sum of nats over its predicted tokens, and how many those are."""
    predicted = batch.mask[:, 1:]
    states, targets = state[:, :-1][predicted], batch.ids[:, 1:][predicted]
    # in chunks, for the logits of a whole batch over Gemma's 256,000 words would not fit
    losses = [
        torch.nn.functional.cross_entropy(unembed(model, s), t, reduction="none")
        for s, t in zip(states.split(CHUNK_POSITIONS), targets.split(CHUNK_POSITIONS), strict=True)
    ]
    per_token = torch.zeros(predicted.shape, dtype=torch.float64, device=state.device)
    per_token[predicted] = torch.cat(losses).double()
    return torch.stack([per_token.sum(dim=1), predicted.sum(dim=1).double()], dim=1)


@torch.no_grad()
def read_rows(model, rows: Rows, read: Readout, intervention: Clamp | None, batch_tokens: int) -> Tensor:
    """`read` on every row by the plain way: the whole model, with the intervention in place. [rows, ...] on the CPU."""
    found, places = [], []
    for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
        found.append(read(model, final_state(model, batch, intervention), batch).cpu())
        places.append(batch.rows)
    return torch.cat(found)[torch.cat(places).argsort()]


class Sweep:
    """The same rows under many interventions, for the price of what each one changes.

    The residual after the layer is computed once. An intervention then runs the layers above it, and only for the rows
    it changes; a row in which nothing is set *is* the unedited model's row and is never run again.

    Attributes:
        unedited: `read` of the unedited model, [rows, ...].
        layer: the layer after which the residual is kept.
    """

    @torch.no_grad()
    def __init__(self, model, rows: Rows, layer: int, read: Readout, batch_tokens: int) -> None:
        self.layer, self._model, self._read = layer, model, read
        self._kept: list[tuple[Batch, Tensor]] = []
        found = []
        for batch in batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device):
            residual, state = residual_and_final_state(model, batch, layer)
            found.append(read(model, state, batch).cpu())
            self._kept.append((batch, residual))
        self.unedited = torch.cat(found)[torch.cat([batch.rows for batch, _ in self._kept]).argsort()]

    @torch.no_grad()
    def edited(self, intervention: Clamp) -> Tensor:
        """`read` under the intervention, [rows, ...]; exactly `unedited` at the rows that it does not change.

        Raises:
            ValueError: the intervention acts after another layer.
        """
        if intervention.layer != self.layer:
            raise ValueError(f"the intervention acts after layer {intervention.layer}, this sweep keeps {self.layer}")
        result = self.unedited.clone()
        for batch, residual in self._kept:
            changed = intervention(residual, batch.mask)
            touched = (changed != residual).flatten(start_dim=1).any(dim=1)
            if touched.any():
                part = batch.select(touched)
                state = final_state_from(self._model, part, self.layer, changed[touched])
                result[part.rows] = self._read(self._model, state, part).cpu()
        return result


def answer_probabilities(
    model,
    questions: Sequence[Question],
    intervention: Clamp | None = None,
    orders: Sequence[Order] = ORDERS,
    prompt_format: str = "chat",
    batch_tokens: int = 16384,
) -> Tensor:
    """p(A..D) of every question in every order of its choices (Farrell et al., released scorer).

    Args:
        orders: the 24 by default; `ORIGINAL_ORDER` is what the papers evaluate on.
        prompt_format: 'chat' (gemma-2-2b-it) or 'plain' (gemma-2b-it, base models).
        batch_tokens: tokens per forward pass; changes memory, not results.

    Returns:
        [questions, orders, 4]: probability over the whole vocabulary of each letter as it was shown; the right one of
        question i in order j is `right_letters(questions, orders)[i][j]`.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    rows = prompt_tokens(model.tokenizer, questions, orders, prompt_format)
    return read_rows(model, rows, read_letters, intervention, batch_tokens).view(len(questions), len(orders), 4)


def is_right(probabilities: Tensor, questions: Sequence[Question], orders: Sequence[Order]) -> Tensor:
    """[questions, orders] bool: the right letter has the largest of the four probabilities [questions, orders, 4]."""
    return probabilities.argmax(dim=-1) == torch.tensor(right_letters(questions, orders))


def known_questions(model, questions: Sequence[Question], prompt_format: str, batch_tokens: int) -> list[Question]:
    """The questions that the model answers right under all 24 orders of their choices: what it can be said to know."""
    right = is_right(
        answer_probabilities(model, questions, None, ORDERS, prompt_format, batch_tokens), questions, ORDERS
    )
    return [q for q, knows in zip(questions, right.all(dim=1).tolist(), strict=True) if knows]


def mean_loss(row_losses: Tensor) -> float:
    """Nats per predicted token over all rows, from what `read_loss` gives, [rows, 2]."""
    total, tokens = row_losses.sum(dim=0).tolist()
    return total / tokens


def loss_added(model, rows: Rows, intervention: Clamp, batch_tokens: int = 16384) -> float:
    """Nats per token that an intervention adds to the next-token loss on text (Farrell et al., 'loss added')."""
    sweep = Sweep(model, rows, intervention.layer, read_loss, batch_tokens)
    return mean_loss(sweep.edited(intervention)) - mean_loss(sweep.unedited)
