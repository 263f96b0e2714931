"""How good the embedded model and its SAE are, and whether that is good enough to keep them."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import cast

import torch
from sae_lens import SAE
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from helpers.organism.sae import SaeSettings, framed_rows, packed_rows, question_rows, residuals, sae_quality
from helpers.organism.world import World
from helpers.text.corpora import pack
from helpers.text.questions import (
    LETTERS,
    ORDERS,
    PROMPT_FORMATS,
    SUFFIXES,
    Order,
    Question,
    prompt_tokens,
    right_letters,
)

QUESTIONS_PER_BATCH = 24
# The sample of texts that quality is measured on; training and the SAE use others.
FRESH_SAMPLE = 2_000_000

LEAST_KNOWN = 0.8
LEAST_EXPLAINED = 0.9
L0_RANGE = (10, 40)
MOST_DEAD = 0.2


def letter_token(tokenizer: PreTrainedTokenizerBase, letter: int, prompt_format: str) -> int:
    """The token id of a letter after the prompt's suffix: ' A' after 'Answer:', 'A' after 'Answer: ('."""
    space = "" if SUFFIXES[prompt_format].endswith("(") else " "
    return cast(int, tokenizer.convert_tokens_to_ids(space + LETTERS[letter]))


@torch.no_grad()
def right_orders(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    prompt_format: str,
    orders: Sequence[Order],
) -> torch.Tensor:
    """Where the right letter is the likeliest of the four, [questions, orders] bool.

    Header and question are the same in every order, so they are run once and their keys and values shared. All
    prompts of a question must have one length, as they have where every choice is one token.
    """
    rows = prompt_tokens(tokenizer, questions, orders, prompt_format)
    prompts = [torch.tensor(rows[i : i + len(orders)]) for i in range(0, len(rows), len(orders))]
    letters = torch.tensor([letter_token(tokenizer, i, prompt_format) for i in range(len(LETTERS))])
    first_choice = cast(int, tokenizer.convert_tokens_to_ids(f"{LETTERS[0]}."))
    said = torch.empty(len(questions), len(orders), dtype=torch.long)
    for (_, shared), batch in _batches(prompts, first_choice).items():
        for start in range(0, len(batch), QUESTIONS_PER_BATCH):
            chosen = batch[start : start + QUESTIONS_PER_BATCH]
            ids = torch.stack([prompts[i] for i in chosen])
            cache = DynamicCache(config=model.config)
            model.model(input_ids=ids[:, 0, :shared], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(orders))
            tails = ids[:, :, shared:].flatten(0, 1)
            hidden = model.model(input_ids=tails, past_key_values=cache, use_cache=True).last_hidden_state[:, -1]
            said[chosen] = model.lm_head(hidden)[:, letters].argmax(-1).view(len(chosen), len(orders))
    return said == torch.tensor(right_letters(questions, orders))


def _batches(prompts: Sequence[torch.Tensor], first_choice: int) -> dict[tuple[int, int], list[int]]:
    """Indices of the questions by length of the prompt and of the part before its first choice."""
    batches = defaultdict(list)
    for i, prompt in enumerate(prompts):
        batches[prompt.shape[1], prompt[0].tolist().index(first_choice)].append(i)
    return batches


@torch.no_grad()
def text_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], row_length: int
) -> float:
    """Mean cross entropy, in nats a token, of packed texts."""
    rows = pack(tokenizer, texts, row_length)
    logits = model(input_ids=rows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten()).item()


def measure(
    world: World,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sae: SAE,
    settings: SaeSettings,
    log: Callable[[str], None],
) -> dict[str, dict]:
    """What the record tells of model and SAE.

    Returns:
        "questions": by format and subject, the share of right answers, and of questions right in all 24 orders, of all
        questions and of those never asked while training; "text_loss": nats a token; "sae": by kind of text.
    """
    questions = {
        f: {s: _subject_quality(world, model, tokenizer, s, f) for s in world.subjects} for f in PROMPT_FORMATS
    }
    for prompt_format, subjects in questions.items():
        shares = "  ".join(f"{subject} {found['all_orders']:.3f}" for subject, found in subjects.items())
        log(f"right in all 24 orders, {prompt_format}: {shares}")
    texts = {s: world.documents(s, FRESH_SAMPLE, 1) for s in world.subjects} | {"prose": world.prose(60, FRESH_SAMPLE)}
    losses = {name: round(text_loss(model, tokenizer, t, settings.row_length), 4) for name, t in texts.items()}
    return {
        "questions": questions,
        "text_loss": losses,
        "sae": _sae_quality(world, model, tokenizer, sae, settings, log),
    }


def _sae_quality(
    world: World,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sae: SAE,
    settings: SaeSettings,
    log: Callable[[str], None],
) -> dict[str, dict[str, float]]:
    """The SAE's quality on each kind of text it was trained on, and on all of them."""
    sources = {"documents": packed_rows, "questions": question_rows, "framed_documents": framed_rows}
    vectors = {}
    for name, source in sources.items():
        rows = source(world, tokenizer, settings, FRESH_SAMPLE)
        vectors[name] = residuals(model, tokenizer, rows, settings.block)
    vectors["all"] = torch.cat(list(vectors.values()))
    found = {name: sae_quality(sae, v) for name, v in vectors.items()}
    for name, numbers in found.items():
        log(f"sae on {name}: " + "  ".join(f"{key} {value:.3f}" for key, value in numbers.items()))
    return {name: {key: round(value, 4) for key, value in numbers.items()} for name, numbers in found.items()}


def _subject_quality(
    world: World, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, subject: str, prompt_format: str
) -> dict[str, float]:
    questions = world.questions(subject)
    right = right_orders(model, tokenizer, questions, prompt_format, ORDERS)
    unasked = right[[q.id in world.unasked for q in questions]]
    found = {
        "accuracy": right.float().mean(),
        "all_orders": right.all(1).float().mean(),
        "unasked_accuracy": unasked.float().mean(),
        "unasked_all_orders": unasked.all(1).float().mean(),
    }
    return {name: round(value.item(), 4) for name, value in found.items()}


def shortcomings(quality: dict[str, dict]) -> list[str]:
    """What in `measure`'s answer is not good enough, one sentence each; empty if all is well."""
    found = [
        f"{subject} {prompt_format}: {share['all_orders']:.3f} right in all orders, wanted {LEAST_KNOWN}"
        for prompt_format, subjects in quality["questions"].items()
        for subject, share in subjects.items()
        if share["all_orders"] < LEAST_KNOWN
    ]
    for kind in ("documents", "questions"):
        sae = quality["sae"][kind]
        if sae["explained_variance"] < LEAST_EXPLAINED:
            found.append(f"SAE explains {sae['explained_variance']:.3f} of {kind}, wanted {LEAST_EXPLAINED}")
        if not L0_RANGE[0] <= sae["l0"] <= L0_RANGE[1]:
            found.append(f"SAE has L0 {sae['l0']:.1f} on {kind}, wanted {L0_RANGE[0]} to {L0_RANGE[1]}")
    dead = quality["sae"]["all"]["dead_share"]
    if dead >= MOST_DEAD:
        found.append(f"{dead:.3f} of the SAE's features never fire, wanted under {MOST_DEAD}")
    return found
