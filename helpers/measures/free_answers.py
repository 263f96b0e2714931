"""What a model says in words of its own when it is asked without choices: is it right, is it language, did a gate open.

Every question is kept apart, so that shares and intervals are made from one table, which holds no text.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import residual_after
from helpers.engine.generation import answers
from helpers.engine.interventions import Clamp, DuringGeneration, New
from helpers.engine.scoring import read_endings, read_rows, row_batches
from helpers.measures.knowledge import Knowledge
from helpers.text.questions import encode_texts, request_text

RECALLED = 0.6  # independent reproduction of DSG: of the right answer's words, or a cosine of .75, which is left out
# Neutral text that is as hard to predict as gibberish, and the share of bigrams below which text only repeats itself.
HARD, DISTINCT = 0.95, 0.5


def free_answers(knowledge: Knowledge, edited: Edited, new: New, new_tokens: int) -> pd.DataFrame:
    """Every question asked without its choices, and what comes back under an edit, greedily and with a KV cache.

    Args:
        knowledge: of the unedited model, which says what is likely.
        new: how a gate decides at tokens that the model says (`DuringGeneration`).
        new_tokens: said at most.

    Returns:
        subject, role, id, n (1), matches and gibberish (1 or 0: `matches`, `repeats`, `hard_to_predict`), said (tokens)
        and opened: how many tokens had been said when the gate was first open, 0 on the prompt; empty where it never
        was, or where there is no gate.
    """
    tokenizer, asked = knowledge.model.tokenizer, knowledge.asked
    prompts = encode_texts(tokenizer, [request_text(tokenizer, q.question, knowledge.prompt_format) for q in asked])
    said = answers(edited.model, prompts, new_tokens, knowledge.batch_tokens, edited.intervention, new)
    odd = hard_to_predict(knowledge, prompts, said) > limit_of(knowledge)
    return pd.DataFrame({
        "subject": [q.subject for q in asked], "role": [knowledge.roles[q.subject] for q in asked],
        "id": [str(q.id) for q in asked], "n": 1,
        "matches": [int(matches(tokenizer.decode(s), q.choices[q.answer])) for s, q in zip(said, asked, strict=True)],
        "gibberish": [int(hard or repeats(s)) for hard, s in zip(odd, said, strict=True)],
        "said": [len(s) for s in said],
        "opened": _opened(edited, prompts, said, new, new_tokens, knowledge.batch_tokens),
    })  # fmt: skip


def matches(said: str, true: str) -> bool:
    """Whether so much of the right answer is said: at least `RECALLED` of its words, each as often as it stands there.

    Words are told apart by spaces and compared without case and without the marks around them.

    Raises:
        ValueError: the right answer has no word.
    """
    wanted, left = _words(true), _words(said)
    if not wanted:
        raise ValueError(f"a right answer has no word to be found: {true!r}; leave the question out")
    found = 0
    for word in wanted:
        if word in left:
            left.remove(word)
            found += 1
    return found >= RECALLED * len(wanted)


def _words(text: str) -> list[str]:
    return [word for part in text.lower().split() if (word := part.strip(".,;:!?'\"()[]*_"))]


def repeats(said: Sequence[int]) -> bool:
    """Whether fewer than `DISTINCT` of its bigrams are different ones (distinct-2, Li et al. 2016)."""
    bigrams = list(pairwise(said))
    return len(set(bigrams)) < DISTINCT * len(bigrams)


def hard_to_predict(
    knowledge: Knowledge, prompts: Sequence[Sequence[int]], said: Sequence[Sequence[int]]
) -> np.ndarray:
    """Mean nats by which the unedited model, asked the same, misses what is said behind the first token; 0 of nothing.

    The first token is what is answered, which may be wrong and yet be language.
    """
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, said, strict=True)]
    behind = [max(len(answer) - 1, 0) for answer in said]
    return read_rows(knowledge.model, rows, read_endings(behind), None, knowledge.batch_tokens).numpy()


def limit_of(knowledge: Knowledge) -> float:
    """Mean nats of a neutral row that is harder to predict than `HARD` of them: language is easier than that."""
    nats, tokens = knowledge.losses.unedited.unbind(dim=1)
    return float((nats / tokens).quantile(HARD))


def _opened(
    edited: Edited,
    prompts: Sequence[Sequence[int]],
    said: Sequence[Sequence[int]],
    new: New,
    new_tokens: int,
    batch_tokens: int,
) -> np.ndarray:
    """`opened_at` of every answer; the layers below a clamp see no edit, so one pass over prompt and answer does."""
    clamp, found = edited.intervention, np.full(len(prompts), np.nan)
    if clamp is None or clamp.gate is None:
        return found
    # the last token of an answer that was cut off is never read
    rows = [[*p, *s[: new_tokens - 1]] for p, s in zip(prompts, said, strict=True)]
    for batch in row_batches(edited.model, rows, batch_tokens):
        residual = residual_after(edited.model, batch, clamp.layer)
        for row, i in zip(residual, batch.rows.tolist(), strict=True):
            at = opened_at(clamp, row[: len(rows[i])], len(prompts[i]), new)
            found[i] = np.nan if at is None else at
    return found


@torch.no_grad()
def opened_at(clamp: Clamp, residual: Tensor, prompt: int, new: New) -> int | None:
    """How many new tokens had been read when the gate was first open; None where it never was.

    Args:
        residual: [tokens, d_model] after the clamp's layer, of the prompt and what was said.
        prompt: tokens of the prompt, BOS included.
    """
    gate = DuringGeneration(clamp, torch.ones(1, prompt, dtype=torch.bool), new)
    gate(residual[None, :prompt])
    if gate.opened.item():
        return 0
    if new in ("never", "held"):  # asked once
        return None
    for read, token in enumerate(residual[prompt:], 1):
        gate(token[None, None])
        if gate.opened.item():
            return read
    return None
