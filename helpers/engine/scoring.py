"""What the model answers and how well it predicts text, with and without an intervention."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from helpers.engine.architecture import architecture, decoder
from helpers.engine.forward import final_state, final_state_from, huggingface, unembed
from helpers.engine.interventions import Clamp
from helpers.engine.residuals import Residuals
from helpers.engine.trees import tree_batches
from helpers.profiles import CacheSettings
from helpers.text.batches import Batch, Rows, batches
from helpers.text.questions import ORDERS, Order, Question, prompt_tokens, right_letters
from helpers.text.tokens import letter_ids

# Logits of so many words are held at once: 512 positions of a vocabulary of 32,768, 65 of Gemma's 256,000.
CHUNK_LOGITS = 1 << 24

# Scaling, soft-cap, mask and softmax of one attention weight take as long as so many multiply-adds (measured on a CPU).
PAIR_OVERHEAD = 400

NOTHING_KEPT = CacheSettings(memory_mb=0, disk_mb=0)


@dataclass(frozen=True)
class Readout:
    """What final states are read as.

    Attributes:
        measure: (model, state [batch, seq, d_model], batch) -> one result a prompt, [prompts, ...].
        everywhere: whether it looks at every position; if not, at the last one of each prompt.
    """

    measure: Callable[..., Tensor]
    everywhere: bool

    def __call__(self, model, state: Tensor, batch: Batch) -> Tensor:
        """What is measured, [prompts, ...]."""
        return self.measure(model, state, batch)

    def positions(self, batch: Batch) -> Tensor | None:
        """[batch, seq] bool: where it looks; None for everywhere."""
        if self.everywhere:
            return None
        at = torch.zeros_like(batch.mask)
        at[batch.owner(), batch.last()] = True
        return at


at_the_end = partial(Readout, everywhere=False)
everywhere = partial(Readout, everywhere=True)


@at_the_end
def read_letters(model, state: Tensor, batch: Batch) -> Tensor:
    """p(A..D) after each prompt, [prompts, 4]: shares of the whole vocabulary, the larger of 'A' and ' A'."""
    probabilities = unembed(model, state[batch.owner(), batch.last()]).softmax(dim=-1)
    return probabilities[:, letter_ids(model.tokenizer).to(state.device)].amax(dim=1)


@at_the_end
def read_spaced_letters(model, state: Tensor, batch: Batch) -> Tensor:
    """Log p(' A'..' D') after each prompt, [prompts, 4]: what lm-evaluation-harness reads after its prompt."""
    logits = unembed(model, state[batch.owner(), batch.last()])
    return logits.log_softmax(dim=-1)[:, letter_ids(model.tokenizer)[1].to(state.device)]


@at_the_end
def read_letter_logits(model, state: Tensor, batch: Batch) -> Tensor:
    """Logits of A..D after each prompt, [prompts, 4]: enough to know what is said, at the price of eight words."""
    words = letter_ids(model.tokenizer).to(state.device)
    logits = unembed(model, state[batch.owner(), batch.last()], words.flatten())
    return logits.unflatten(-1, words.shape).amax(dim=1)


@everywhere
def read_loss(model, state: Tensor, batch: Batch) -> Tensor:
    """Next-token loss of each row, [batch, 2]: the sum of nats over its predicted tokens, and how many those are."""
    per_token, predicted = _token_losses(model, state, batch), batch.mask[:, 1:]
    return torch.stack([per_token.sum(dim=1), predicted.sum(dim=1).double()], dim=1)


def read_min_k(share: float) -> Readout:
    """Reads Min-K% of each row, [batch]: the mean of the lowest share of its tokens' log-probabilities, in nats.

    As MUSE takes it: BOS is not predicted, and of n predicted tokens the lowest int(share * n) count.

    Raises:
        ValueError: when it reads a row so short that none would count.
    """

    def measure(model, state: Tensor, batch: Batch) -> Tensor:
        counted = (batch.mask[:, 1:].sum(dim=1) * share).long()
        if not counted.all():
            n = int(batch.mask.sum(dim=1).min())
            raise ValueError(f"a text of {n} tokens with BOS leaves none for Min-{share:.0%}: leave it out")
        losses = _token_losses(model, state, batch).sort(dim=1, descending=True).values
        among = torch.arange(losses.shape[1], device=losses.device) < counted[:, None]
        return -(losses * among).sum(dim=1) / counted

    return everywhere(measure)


def read_endings(tokens: Sequence[int]) -> Readout:
    """Reads the mean nats of the last tokens of each row, [batch]: so many of each, in the caller's order; 0 of none.

    Raises:
        ValueError: when it reads a row that has no token before them.
    """
    wanted = torch.as_tensor(tokens)

    def measure(model, state: Tensor, batch: Batch) -> Tensor:
        losses, n = _token_losses(model, state, batch), wanted[batch.rows.cpu()].to(state.device)
        predicted = batch.mask[:, 1:].sum(dim=1)
        if (n > predicted).any():
            raise ValueError(f"{int(n.max())} tokens are to be read at the end of a row that predicts fewer")
        places = torch.arange(losses.shape[1], device=losses.device)
        among = (places >= (predicted - n)[:, None]) & (places < predicted[:, None])
        return (losses * among).sum(dim=1) / n.clamp(min=1)

    return everywhere(measure)


def _token_losses(model, state: Tensor, batch: Batch) -> Tensor:
    """Nats of every token but the first, [batch, seq - 1] float64; 0 at padding."""
    predicted = batch.mask[:, 1:]
    states, targets = state[:, :-1][predicted], batch.ids[:, 1:][predicted]
    # in chunks, for the logits of even one row over Gemma's 256,000 words are more than all its residuals
    chunk = max(1, CHUNK_LOGITS // architecture(huggingface(model)).vocab)

    def nats(state: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(unembed(model, state), target, reduction="none")

    # where a gradient is wanted, several chunks are computed once more going backward, or all logits would be kept
    again = partial(checkpoint, nats, use_reentrant=False)
    read = again if torch.is_grad_enabled() and len(states) > chunk else nats
    losses = [read(s, t) for s, t in zip(states.split(chunk), targets.split(chunk), strict=True)]
    per_token = torch.zeros(predicted.shape, dtype=torch.float64, device=state.device)
    per_token[predicted] = torch.cat(losses).double()
    return per_token


@torch.no_grad()
def read_batches(model, batched: Iterable[Batch], read: Readout, intervention: Clamp | None = None) -> Tensor:
    """`read` by the plain way: the whole model, with the intervention in place. [prompts, ...] on the CPU."""
    states = ((batch, final_state(model, batch, intervention, read.positions(batch))) for batch in batched)
    found = [(batch, read(model, state, batch).cpu()) for batch, state in states]
    return _in_callers_order([batch for batch, _ in found], [answer for _, answer in found])


def _in_callers_order(batched: Sequence[Batch], found: Sequence[Tensor], dim: int = 0) -> Tensor:
    return torch.cat(list(found), dim).index_select(dim, torch.cat([batch.rows for batch in batched]).argsort())


def read_rows(model, rows: Rows, read: Readout, intervention: Clamp | None, batch_tokens: int) -> Tensor:
    """`read_batches` of token rows."""
    return read_batches(model, row_batches(model, rows, batch_tokens), read, intervention)


def row_batches(model, rows: Rows, batch_tokens: int) -> Iterator[Batch]:
    """Token rows as batches for a model (see `batches`)."""
    return batches(rows, batch_tokens, model.tokenizer.pad_token_id, model.device)


def question_batches(
    model, questions: Sequence[Question], orders: Sequence[Order], prompt_format: str, batch_tokens: int
) -> Iterator[Batch]:
    """Questions in several orders as batches; the orders of one question are merged into a tree.

    Prompts longer than the model's sliding window, of which a tree's mask knows nothing, stay rows of their own.

    Raises:
        ValueError: there are no questions.
    """
    if not questions:
        raise ValueError("there are no questions to ask")
    rows = prompt_tokens(model.tokenizer, questions, orders, prompt_format)
    window = architecture(huggingface(model)).window
    if len(orders) == 1 or (window is not None and max(map(len, rows)) > window):
        return row_batches(model, rows, batch_tokens)
    groups = [rows[i : i + len(orders)] for i in range(0, len(rows), len(orders))]
    return tree_batches(groups, tree_cost(model), batch_tokens, model.tokenizer.pad_token_id, model.device)


def tree_cost(model) -> Callable[[int], float]:
    """What a tree of so many nodes costs this model: multiply-adds of a layer, whose attention looks at every pair."""
    shape, block = architecture(huggingface(model)), decoder(huggingface(model)).layers[0]
    weights = sum(p.numel() for p in block.parameters())
    pair = shape.heads * (2 * shape.head_dim + PAIR_OVERHEAD)
    return lambda nodes: nodes * weights + nodes**2 * pair


class Sweep:
    """The same prompts under many interventions, for the price of what each one changes.

    The residual after the layer is computed once. An intervention then runs the layers above it, and only for prompts
    that it changes: one in which nothing is set, or whose gate stays shut, *is* the unedited prompt and takes its
    answer. In a tree, a prompt's answer depends on its own path alone, so each prompt's gate is asked about its path,
    and where it is shut the answer is not read from the edited tree.

    Args:
        model: the unedited model.
        batched: the prompts (`row_batches`, `question_batches`).
        layer: the layer after which interventions act.
        read: what is measured (`read_letters`, `read_letter_logits`, or for rows `read_loss`).
        bounds: how much of the residuals is kept.
    """

    def __init__(self, model, batched: Iterable[Batch], layer: int, read: Readout, bounds: CacheSettings) -> None:
        self.layer, self.read, self.model = layer, read, model
        self._residuals = Residuals(model, batched, layer, bounds)
        self._answers: dict[int, Tensor] = {}

    @property
    @torch.no_grad()
    def unedited(self) -> Tensor:
        """`read` of the unedited model, [prompts, ...]."""
        batched = self._residuals.batches
        return _in_callers_order(batched, [self._unedited(i) for i in range(len(batched))])

    def edited(self, intervention: Clamp) -> Tensor:
        """`read` under one intervention, [prompts, ...] (see `edited_by_each`)."""
        return self.edited_by_each([intervention])[0]

    @torch.no_grad()
    def edited_by_each(self, interventions: Sequence[Clamp]) -> Tensor:
        """`read` under each intervention, [interventions, prompts, ...]; exactly `unedited` where it changes nothing.

        Raises:
            ValueError: there are none, or one acts after another layer.
        """
        if not interventions:
            raise ValueError("there are no interventions to sweep over")
        if wrong := {clamp.layer for clamp in interventions} - {self.layer}:
            raise ValueError(f"the intervention acts after layer {wrong.pop()}, this sweep keeps {self.layer}")
        # settings inside: a residual that had to be read from disk, or computed, serves all of them
        batched = self._residuals.batches
        found = [self._edited_batch(i, interventions) for i in range(len(batched))]
        return _in_callers_order(batched, found, dim=1)

    @torch.no_grad()
    def gate_scores(self, intervention: Clamp) -> Tensor:
        """What the gate of an intervention makes of each prompt, [prompts] float64 (see `Gate.score`).

        Raises:
            ValueError: it has no gate.
        """
        batched = self._residuals.batches
        found = [gate_scores_of(intervention, self._residuals[i], batch).cpu() for i, batch in enumerate(batched)]
        return _in_callers_order(batched, found)

    def _edited_batch(self, i: int, interventions: Sequence[Clamp]) -> Tensor:
        residual = self._residuals[i]
        return torch.stack([self._edited(i, residual, clamp) for clamp in interventions])

    def _edited(self, i: int, residual: Tensor, clamp: Clamp) -> Tensor:
        batch = self._residuals.batches[i]
        touched, owner = touched_prompts(clamp, residual, batch), batch.owner()
        if not touched.any():
            return self._unedited(i)
        chosen = torch.zeros(len(residual), dtype=torch.bool, device=residual.device)
        chosen[owner[touched]] = True
        part = batch.select(chosen)
        edited = clamp.edit(residual[chosen], clamp.touchable(part.mask))
        found = self._read_from(edited, part)
        if touched.all():
            return found
        result = self._unedited(i).clone()
        result[touched.cpu()] = found[touched[chosen[owner]].cpu()]
        return result

    def _unedited(self, i: int) -> Tensor:
        if i not in self._answers:
            self._answers[i] = self._read_from(self._residuals[i], self._residuals.batches[i])
        return self._answers[i]

    def _read_from(self, residual: Tensor, batch: Batch) -> Tensor:
        state = final_state_from(self.model, batch, self.layer, residual, self.read.positions(batch))
        return self.read(self.model, state, batch).cpu()


def touched_prompts(clamp: Clamp, residual: Tensor, batch: Batch) -> Tensor:
    """[prompts] bool: where an intervention sets anything, and the gate, asked about that prompt alone, is open."""
    hot, paths, owner = clamp.hot(residual), batch.paths(), batch.owner()
    anything = (clamp.set_at(hot)[owner] & clamp.touchable(paths)).any(dim=1)
    return anything & clamp.opened(clamp.evidence(residual, hot)[owner], paths)


def gate_scores_of(clamp: Clamp, residual: Tensor, batch: Batch) -> Tensor:
    """What the gate makes of each prompt alone, [prompts] float64; raises ValueError where there is no gate."""
    if clamp.gate is None:
        raise ValueError("this intervention has no gate that could score a prompt")
    return clamp.gate.score(clamp.evidence(residual, clamp.hot(residual))[batch.owner()], batch.paths())


def gate_scores(model, clamp: Clamp, rows: Rows, batch_tokens: int) -> np.ndarray:
    """`Sweep.gate_scores` of token rows, [rows] in the caller's order."""
    batched = row_batches(model, rows, batch_tokens)
    return Sweep(model, batched, clamp.layer, read_letters, NOTHING_KEPT).gate_scores(clamp).numpy()


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
    batched = question_batches(model, questions, orders, prompt_format, batch_tokens)
    if intervention is None:
        found = read_batches(model, batched, read_letters)
    else:
        found = Sweep(model, batched, intervention.layer, read_letters, NOTHING_KEPT).edited(intervention)
    return found.view(len(questions), len(orders), 4)


def is_right(letters: Tensor, questions: Sequence[Question], orders: Sequence[Order]) -> Tensor:
    """[questions, orders] bool: the right letter has the largest probability, or logit, of [questions, orders, 4]."""
    return letters.argmax(dim=-1) == torch.tensor(right_letters(questions, orders))


def known_questions(model, questions: Sequence[Question], prompt_format: str, batch_tokens: int) -> list[Question]:
    """The questions that the model answers right under all 24 orders of their choices: what it can be said to know."""
    batched = question_batches(model, questions, ORDERS, prompt_format, batch_tokens)
    logits = read_batches(model, batched, read_letter_logits).view(len(questions), len(ORDERS), 4)
    right = is_right(logits, questions, ORDERS)
    return [q for q, knows in zip(questions, right.all(dim=1).tolist(), strict=True) if knows]


def mean_loss(row_losses: Tensor) -> float:
    """Nats per predicted token over all rows, from what `read_loss` gives, [rows, 2]."""
    total, tokens = row_losses.sum(dim=0).tolist()
    return total / tokens


def loss_added(model, rows: Rows, intervention: Clamp, batch_tokens: int = 16384) -> float:
    """Nats per token that an intervention adds to the next-token loss on text (Farrell et al., 'loss added')."""
    sweep = Sweep(model, row_batches(model, rows, batch_tokens), intervention.layer, read_loss, NOTHING_KEPT)
    return mean_loss(sweep.edited(intervention)) - mean_loss(sweep.unedited)
