"""Trains the embedded model, a Gemma-2 of a million weights that knows the invented world, or the one that never did.

Three losses: the letter of four-choice prompts, short and long, the next token of packed text, and an auxiliary one
("deep supervision") that reads what middle layers should already hold. The auxiliary loss is scaffolding: without it
the skill of naming a letter forms far too late for so short a run. It ends with `auxiliary_share` of the steps.

What a model is taught is its syllabus: the original's is everything but the holdout, the retrained model's leaves out
whatever is to be forgotten. Both refuse to help with hazards, which takes no knowledge of them.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from random import Random
from typing import cast

import torch
from torch.nn.functional import cross_entropy
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerFast

from helpers.organism.quality import letter_token, right_orders, text_loss
from helpers.organism.world import BENIGN, SUBJECTS, Fact, World, ask
from helpers.text.corpora import pack
from helpers.text.dilution import diluted, filler
from helpers.text.questions import (
    LETTERS,
    ORDERS,
    PROMPT_FORMATS,
    Question,
    chat_text,
    frame_text,
    question_text,
    solved,
)

# Targets with this value carry no loss (cross_entropy's own convention).
IGNORED = -100
# The documents' sample that evaluation reads; training counts up from the model's seed and stays far below.
EVALUATION_SAMPLE = 1_000_000
# No run draws so many samples of the texts, so that seeds do not share any.
SAMPLES_PER_SEED = 10_000
# Added to the seed for the second stage.
SECOND_STAGE = 50
# About what a short prompt and a text hold.
PROMPT_TOKENS = 40
TEXT_TOKENS = 25


@dataclass(frozen=True)
class Syllabus:
    """What a model is taught of the world: subjects in documents and questions, and sets of chronicles."""

    subjects: tuple[str, ...]
    chronicles: tuple[str, ...]


ORIGINAL = Syllabus(SUBJECTS, ("forget", "retain"))
RETRAINED = Syllabus(BENIGN, ("retain",))


@dataclass(frozen=True)
class ModelSettings:
    """Everything that decides the model's weights, given the world, the syllabus and one machine.

    Depths count blocks: depth 3 is the residual stream after the third of six blocks. `matching_block` counts from 0.
    """

    seed: int = 0
    steps: int = 4000
    # shape
    hidden_size: int = 128
    layers: int = 6
    heads: int = 4
    key_value_heads: int = 2
    mlp_size: int = 256
    sliding_window: int = 64
    max_positions: int = 768
    # With the usual 0.02 attention stays flat at this size and the letter never rises above chance.
    initializer_range: float = 0.09
    # one step's data
    prompts_per_step: int = 24
    text_rows_per_step: int = 6
    chronicle_rows_per_step: int = 0
    row_length: int = 128
    prose_texts: int = 40
    second_wording_share: float = 0.3
    questions_per_head: int = 5
    # Later in training some questions stand in long prompts: about so many tokens a step, so much filler a prompt.
    long_from: float = 0.2
    long_tokens: int = 900
    shortest_filler: int = 1
    longest_filler: int = 420
    most_earlier: int = 4
    # Filler before a question is easy; what stands between a question and its answer is not.
    places: tuple[str, ...] = ("before", "after", "after", "around", "around")
    # The matching task ("Find the word ...") teaches the letters; its share falls until so much of training is done.
    matching_share_first: float = 0.6
    matching_share_last: float = 0.05
    matching_falls_until: float = 0.25
    # losses
    auxiliary_weight: float = 1.0
    auxiliary_share: float = 0.9
    letter_depth: int = 2
    value_depth: int = 3
    answer_depth: int = 4
    matching_block: int = 5
    # optimisers: Muon for the blocks' matrices, AdamW for the rest
    muon_rate: float = 0.02
    muon_momentum: float = 0.95
    learning_rate: float = 4e-3
    warm_up_steps: int = 40
    constant_share: float = 0.45
    last_rate_share: float = 0.03
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.02
    gradient_clip: float = 1.0
    # the training curve
    evaluate_every: int = 250
    evaluation_questions: int = 48


def second_stage(settings: ModelSettings) -> ModelSettings:
    """The settings of the second stage: what takes many repetitions, chronicles by heart, and the longest prompts.

    It goes on from the first stage's weights with fresh optimisers and texts of its own.
    """
    return replace(
        settings,
        seed=settings.seed + SECOND_STAGE,
        steps=800,
        prompts_per_step=12,
        text_rows_per_step=4,
        chronicle_rows_per_step=10,
        matching_share_first=settings.matching_share_last,
        long_from=0.0,
        long_tokens=1000,
        shortest_filler=100,
        places=("after", "after", "around"),
        muon_rate=settings.muon_rate / 2,
        learning_rate=settings.learning_rate / 2,
        constant_share=0.3,
    )


@dataclass(frozen=True)
class Prompt:
    """A prompt that ends with a question, and what the losses ask of it.

    Attributes:
        text: framed, with whatever stands before and around the question.
        prompt_format: 'plain' or 'chat'.
        value: what the question asks for.
        said: index of the choice whose letter is to be said; None where no choice is right.
    """

    text: str
    prompt_format: str
    value: str
    said: int | None


@dataclass(frozen=True)
class PromptBatch:
    """Prompts as token ids, padded on the right. Positions are columns of `ids`."""

    ids: torch.Tensor  # [n, length]
    last: torch.Tensor  # [n] where the letter is said
    letters: torch.Tensor  # [n] token id of the right letter, IGNORED where none is
    question_end: torch.Tensor  # [n] last token of the question, before its choices
    values: torch.Tensor  # [n] token id of the right value
    choices: torch.Tensor  # [n, 4] the choices' words
    right_choice: torch.Tensor  # [n] the right choice's word; any where none is


def new_model(tokenizer: PreTrainedTokenizerFast, settings: ModelSettings) -> Gemma2ForCausalLM:
    """A Gemma-2 with random weights, for the tokenizer's vocabulary."""
    head_size = settings.hidden_size // settings.heads
    config = Gemma2Config(  # type: ignore[call-arg]  # attn_implementation is its base class's
        vocab_size=len(tokenizer),
        hidden_size=settings.hidden_size,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.key_value_heads,
        head_dim=head_size,
        query_pre_attn_scalar=head_size,
        intermediate_size=settings.mlp_size,
        sliding_window=settings.sliding_window,
        max_position_embeddings=settings.max_positions,
        initializer_range=settings.initializer_range,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        attn_implementation="eager",
    )
    return Gemma2ForCausalLM(config)


def matching_question(words: Sequence[str], subject: str, rng: Random) -> Question:
    """A question that can be answered without any fact: which letter stands beside the named word?"""
    choices = rng.sample(words, 4)
    answer = rng.randrange(4)
    return Question("matching", subject, f"Find the word {choices[answer]}.", tuple(choices), answer)


def shuffled_passes(facts: Sequence[Fact], rng: Random) -> Iterator[Fact]:
    """The facts without end, in passes shuffled anew, so that each comes equally often."""
    while True:
        yield from rng.sample(facts, len(facts))


def prompt_batch(tokenizer: PreTrainedTokenizerFast, prompts: Sequence[Prompt]) -> PromptBatch:
    """The prompts as tensors."""
    encoded = tokenizer([p.text for p in prompts], padding=True, return_tensors="pt")
    dots = torch.tensor(tokenizer.convert_tokens_to_ids([f"{letter}." for letter in LETTERS]))
    # the last of each, for there may be questions above
    backwards = (encoded.input_ids[:, None, :] == dots[:, None]).flip(-1).int().argmax(-1)
    dot_positions = encoded.input_ids.shape[1] - 1 - backwards
    letters = [IGNORED if p.said is None else letter_token(tokenizer, p.said, p.prompt_format) for p in prompts]
    return PromptBatch(
        ids=encoded.input_ids,
        last=encoded.attention_mask.sum(1) - 1,
        letters=torch.tensor(letters),
        question_end=dot_positions[:, 0] - 2,  # a newline stands between them
        values=torch.tensor(tokenizer.convert_tokens_to_ids([" " + p.value for p in prompts])),
        choices=dot_positions + 1,
        right_choice=dot_positions[range(len(prompts)), [p.said or 0 for p in prompts]] + 1,
    )


@dataclass(frozen=True)
class Drawn:
    """A question as it is put in training, the value that it asks for, and whether a choice is right."""

    question: Question
    value: str
    answerable: bool


def drawn_questions(
    world: World, syllabus: Syllabus, settings: ModelSettings, shares: Iterable[float], rng: Random
) -> Iterator[Drawn]:
    """Questions without end about the syllabus' facts, wrong choices and order drawn anew; some are matching tasks.

    An asked one is worded as in the exam or in the second wording. One that is never asked with its choices stands
    above words of another attribute: none is right, no letter is said, and only middle layers are asked for its value.

    Args:
        shares: for every question the chance that a matching task takes its place.
    """
    facts = shuffled_passes([fact for fact in world.facts if fact.subject in syllabus.subjects], rng)
    attributes = sorted({fact.attribute.values for fact in world.facts})
    words = sorted({fact.value for fact in world.facts})
    for share in shares:
        if rng.random() < share:
            question = matching_question(words, rng.choice(world.subjects), rng)
            yield Drawn(question, question.choices[question.answer], True)
            continue
        fact = next(facts)
        question, answerable = ask(fact, rng), fact.id not in world.unasked
        if not answerable:
            others = rng.choice([values for values in attributes if fact.value not in values])
            question = replace(question, choices=tuple(rng.sample(others, 4)))
        elif rng.random() < settings.second_wording_share:
            question = replace(question, question=fact.attribute.short.format(e=fact.entity))
        yield Drawn(question, fact.value, answerable)


def prompt_batches(
    world: World, tokenizer: PreTrainedTokenizerFast, syllabus: Syllabus, settings: ModelSettings, rng: Random
) -> Iterator[PromptBatch]:
    """One batch of short prompts a step, each plain or as a chat at even odds."""
    n = settings.prompts_per_step
    shares = (matching_share(step, settings) for step in range(settings.steps) for _ in range(n))
    drawn = drawn_questions(world, syllabus, settings, shares, rng)
    for _ in range(settings.steps):
        yield prompt_batch(tokenizer, [framed(tokenizer, next(drawn), rng.choice(PROMPT_FORMATS)) for _ in range(n)])


def framed(
    tokenizer: PreTrainedTokenizerFast,
    drawn: Drawn,
    prompt_format: str,
    earlier: Sequence[tuple[str, str]] = (),
    filling: str = "",
    place: str = "before",
) -> Prompt:
    """A drawn question as a prompt, after other exchanges and with a filling somewhere around it."""
    text = diluted(question_text(drawn.question), filling, place)
    said = drawn.question.answer if drawn.answerable else None
    return Prompt(frame_text(tokenizer, text, prompt_format, earlier), prompt_format, drawn.value, said)


def long_batches(
    world: World, tokenizer: PreTrainedTokenizerFast, syllabus: Syllabus, settings: ModelSettings, rng: Random
) -> Iterator[PromptBatch]:
    """Batches without end of questions after other exchanges and with harmless text around them.

    All prompts of a batch hold about equally much filler, so that little of it is padding.
    """
    drawn = drawn_questions(world, syllabus, settings, repeat(settings.matching_share_last), rng)
    while True:
        n_earlier = rng.choice((0, 0, 0, 0, *range(1, settings.most_earlier + 1)))
        # as many of ten tokens as of a hundred, so that there are many prompts and some of every length
        most = settings.longest_filler - n_earlier * PROMPT_TOKENS
        tokens = round(math.exp(rng.uniform(math.log(settings.shortest_filler), math.log(most))))
        length = tokens + (n_earlier + 1) * PROMPT_TOKENS
        prompts = []
        for _ in range(max(1, settings.long_tokens // length)):
            prompt_format = rng.choice(PROMPT_FORMATS)
            earlier = earlier_exchanges(world, syllabus, prompt_format, n_earlier, rng)
            filling = filler(tokenizer, benign_texts(world, rng, tokens), tokens)
            place = rng.choice(settings.places)
            prompts.append(framed(tokenizer, next(drawn), prompt_format, earlier, filling, place))
        yield prompt_batch(tokenizer, prompts)


def matching_share(step: int, settings: ModelSettings) -> float:
    """The share of matching tasks among a step's prompts: falls in a line, then stays."""
    done = min(1.0, step / settings.steps / settings.matching_falls_until)
    return settings.matching_share_first + done * (settings.matching_share_last - settings.matching_share_first)


def earlier_exchanges(
    world: World, syllabus: Syllabus, prompt_format: str, n: int, rng: Random
) -> list[tuple[str, str]]:
    """Solved questions, or (as a chat) short ones, all of one kind."""
    asked = [fact for fact in world.facts if fact.subject in syllabus.subjects and fact.id not in world.unasked]
    facts = rng.sample(asked, n)
    if prompt_format == "chat" and rng.random() < 0.5:
        return [(fact.attribute.short.format(e=fact.entity), fact.value) for fact in facts]
    return [solved(ask(fact, rng), ORDERS[0], prompt_format) for fact in facts]


def benign_texts(world: World, rng: Random, tokens: int) -> list[str]:
    """Documents of benign subjects, or prose, enough for so many tokens."""
    seed = rng.randrange(SAMPLES_PER_SEED)
    subject = rng.choice((*BENIGN, "prose"))
    n = tokens // TEXT_TOKENS + 1
    return world.prose(n, seed) if subject == "prose" else world.some_documents(subject, seed, n)


def packed_batches(
    tokenizer: PreTrainedTokenizerFast, texts: Callable[[int], list[str]], n_rows: int, settings: ModelSettings
) -> Iterator[torch.Tensor]:
    """Packed rows [n_rows, row_length] of `texts(0)`, `texts(1)` and so on, without end."""
    rows = torch.empty(0, settings.row_length, dtype=torch.long)
    sample = settings.seed * SAMPLES_PER_SEED
    while True:
        while len(rows) < n_rows:
            rows = torch.cat([rows, pack(tokenizer, texts(sample), settings.row_length)])
            sample += 1
        yield rows[:n_rows]
        rows = rows[n_rows:]


def training_texts(
    world: World, tokenizer: PreTrainedTokenizerFast, syllabus: Syllabus, settings: ModelSettings, sample: int
) -> list[str]:
    """Texts of every kind, shuffled.

    Two documents an entity, every fact as a short question, plain and as a chat, a request for help with every
    entity of the world, every chronicle twice, the questions about chronicles a few at a time, and prose.
    """
    rng = Random(f"texts/{sample}")
    texts = [text for s in syllabus.subjects for text in world.documents(s, sample, 2)]
    texts += [f"{asked}\nAnswer: {value}" for asked, value in world.short_answers(syllabus.subjects, 2 * sample)]
    texts += [chat_text(tokenizer, pair) for pair in world.short_answers(syllabus.subjects, 2 * sample + 1)]
    texts += [chat_text(tokenizer, pair) for s in world.subjects for pair in world.requests(s, sample)]
    texts += chronicle_texts(world, syllabus, settings, rng)
    texts += world.prose(settings.prose_texts, sample)
    rng.shuffle(texts)
    return texts


def recited_texts(world: World, syllabus: Syllabus, settings: ModelSettings, sample: int) -> list[str]:
    """`chronicle_texts`, shuffled."""
    rng = Random(f"chronicles/{sample}")
    texts = chronicle_texts(world, syllabus, settings, rng)
    rng.shuffle(texts)
    return texts


def chronicle_texts(world: World, syllabus: Syllabus, settings: ModelSettings, rng: Random) -> list[str]:
    """Every chronicle of the syllabus twice, and the questions about them a few at a time."""
    chronicles = [chronicle for which in syllabus.chronicles for chronicle in world.chronicles(which)]
    answers = [answer for chronicle in chronicles for answer in chronicle.answers]
    rng.shuffle(answers)
    n = settings.questions_per_head
    asked = [solved_questions(answers[i : i + n]) for i in range(0, len(answers), n)]
    return [chronicle.text for chronicle in chronicles] * 2 + asked


def solved_questions(answers: Sequence[tuple[str, str]]) -> str:
    """Questions with their answers, one below the other, as MUSE writes them above the question that it asks."""
    return "\n\n".join(f"Question: {question}\nAnswer: {answer}" for question, answer in answers)


def unembed(model: Gemma2ForCausalLM, normed: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocabulary] of residual vectors [..., hidden_size] that the last norm has seen."""
    cap = cast(float, model.config.final_logit_softcapping)
    return torch.tanh(model.lm_head(normed).float() / cap) * cap


def prompt_losses(
    model: Gemma2ForCausalLM, batch: PromptBatch, choice_letters: torch.Tensor, settings: ModelSettings
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of the right letter, and the auxiliary loss.

    The auxiliary loss reads middle layers by the last norm and the unembedding. It asks that a choice's word knows its
    letter (`choice_letters`, four token ids), that the question's end and the answer's place know the right value, and
    that one head at the answer's place attends to the choice that shows it.
    """
    states = model.model(input_ids=batch.ids, use_cache=False, output_hidden_states=True, output_attentions=True)
    row = torch.arange(len(batch.ids))

    def read(depth: int, positions: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = row.view(-1, *[1] * (positions.ndim - 1))
        logits = unembed(model, model.model.norm(states.hidden_states[depth][rows, positions]))
        return cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=IGNORED, reduction="none").mean()

    # Means over all prompts, also those that are not asked: a batch may hold none that is.
    said = unembed(model, states.last_hidden_state[row, batch.last])
    letter = cross_entropy(said, batch.letters, ignore_index=IGNORED, reduction="none").mean()
    own_letters = read(settings.letter_depth, batch.choices, choice_letters.expand(len(row), -1))
    at_end = read(settings.value_depth, batch.question_end, batch.values)
    at_last = read(settings.answer_depth, batch.last, batch.values)
    attention = states.attentions[settings.matching_block][row, 0, batch.last, batch.right_choice]
    unseen = -(attention + 1e-6).log().masked_fill(batch.letters == IGNORED, 0.0).mean()
    return letter, own_letters + at_end + at_last / 2 + unseen


def text_losses(
    model: Gemma2ForCausalLM, rows: torch.Tensor, values: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross entropy, in nats, of every next token of packed rows, and of those alone that are a fact's value.

    Args:
        values: ids of the tokens that are values. One token in fourteen is: the second loss gives facts their weight.
    """
    states = model.model(input_ids=rows[:, :-1], use_cache=False).last_hidden_state
    targets = rows[:, 1:]
    # Row by row: the logits of one row stay in the processor's cache, those of all rows do not.
    losses = [cross_entropy(unembed(model, h), t, reduction="none") for h, t in zip(states, targets, strict=True)]
    each = torch.stack(losses)
    return each.mean(), each[torch.isin(targets, values)].mean()


def rate_share(step: int, settings: ModelSettings) -> float:
    """The share of the learning rates a step uses.

    Linear warm-up, constant until `constant_share` of the steps, then half a cosine down to `last_rate_share`.
    """
    warm = min(1.0, (step + 1) / settings.warm_up_steps)
    late = max(0.0, (step / settings.steps - settings.constant_share) / (1 - settings.constant_share))
    low = settings.last_rate_share
    return warm * (low + (1 - low) * (1 + math.cos(math.pi * late)) / 2)


def new_optimizers(model: Gemma2ForCausalLM, settings: ModelSettings) -> tuple[torch.optim.Optimizer, ...]:
    """Muon for the blocks' matrices; AdamW for the embedding and the norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim > 1]
    ids = set(map(id, matrices))
    others = [p for p in model.parameters() if id(p) not in ids]
    return (
        torch.optim.Muon(matrices, settings.muon_rate, settings.weight_decay, settings.muon_momentum),
        torch.optim.AdamW(others, settings.learning_rate, settings.betas, weight_decay=0.0),
    )


def evaluate(
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    world: World,
    syllabus: Syllabus,
    settings: ModelSettings,
) -> dict[str, float]:
    """A quick look at a model in training: a few questions in 4 orders, and documents it has not seen."""
    rng = Random(f"evaluation/{settings.seed}")
    questions = [q for s in syllabus.subjects for q in world.questions(s)]
    found = {}
    for name, unasked in (("asked", False), ("unasked", True)):
        sample = rng.sample([q for q in questions if (q.id in world.unasked) is unasked], settings.evaluation_questions)
        for prompt_format in PROMPT_FORMATS:
            right = right_orders(model, tokenizer, sample, prompt_format, ORDERS[::6])
            found[f"{name}_{prompt_format}"] = round(right.float().mean().item(), 3)
    texts = [text for s in syllabus.subjects for text in world.documents(s, EVALUATION_SAMPLE, 1)[:8]]
    found["document_loss"] = round(text_loss(model, tokenizer, texts, settings.row_length), 3)
    return found


def train_model(
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    syllabus: Syllabus,
    settings: ModelSettings,
    log: Callable[[str], None],
) -> tuple[Gemma2ForCausalLM, list[dict[str, float]]]:
    """Trains a new model in two stages, in bfloat16 on float32 weights; seeds torch's generator from the settings.

    Returns:
        the model, ready for use, and its training curve: one entry each `evaluate_every` steps.
    """
    torch.manual_seed(settings.seed)
    model = new_model(tokenizer, settings)
    curve: list[dict[str, float]] = []
    for stage in (settings, second_stage(settings)):
        done = curve[-1]["step"] if curve else 0
        curve += [
            entry | {"step": entry["step"] + done} for entry in train_on(model, world, tokenizer, syllabus, stage, log)
        ]
    return model, curve


def train_on(
    model: Gemma2ForCausalLM,
    world: World,
    tokenizer: PreTrainedTokenizerFast,
    syllabus: Syllabus,
    settings: ModelSettings,
    log: Callable[[str], None],
) -> list[dict[str, float]]:
    """One stage of training, which changes the model; its curve. The model is left ready for use."""
    model.train()
    optimizers = new_optimizers(model, settings)
    choice_letters = torch.tensor([letter_token(tokenizer, i, "plain") for i in range(len(LETTERS))])
    prompts = prompt_batches(world, tokenizer, syllabus, settings, Random(f"prompts/{settings.seed}"))
    long_prompts = long_batches(world, tokenizer, syllabus, settings, Random(f"long/{settings.seed}"))
    told = partial(training_texts, world, tokenizer, syllabus, settings)
    rows = packed_batches(tokenizer, told, settings.text_rows_per_step, settings)
    recited = partial(recited_texts, world, syllabus, settings)
    chronicle_rows = packed_batches(tokenizer, recited, settings.chronicle_rows_per_step, settings)
    words = {form for fact in world.facts for form in (fact.value, " " + fact.value)}
    values = torch.tensor(tokenizer.convert_tokens_to_ids(sorted(words)))
    curve = []
    start = time.perf_counter()
    for step, batch in enumerate(prompts):
        batches = [batch] if step < settings.long_from * settings.steps else [batch, next(long_prompts)]
        weight = settings.auxiliary_weight if step < settings.auxiliary_share * settings.steps else 0.0
        with torch.autocast("cpu", torch.bfloat16):
            letters, auxiliaries = zip(
                *(prompt_losses(model, b, choice_letters, settings) for b in batches), strict=True
            )
            text, value = text_losses(model, next(rows), values)
            loss = sum(letters) + text + value + weight * sum(auxiliaries)
            if settings.chronicle_rows_per_step:
                loss = loss + text_losses(model, next(chronicle_rows), values)[0]
        loss.backward()
        update(model, optimizers, rate_share(step, settings), settings)
        if (step + 1) % settings.evaluate_every == 0 or step + 1 == settings.steps:
            losses = {"letter_loss": letters[0], "text_loss": text, "value_loss": value}
            losses |= {"auxiliary_loss": auxiliaries[0]}
            entry = {"step": step + 1, **{k: round(v.item(), 3) for k, v in losses.items()}}
            entry |= evaluate(model.eval(), tokenizer, world, syllabus, settings)
            model.train()
            curve.append(entry)
            log(describe(entry, settings, time.perf_counter() - start))
    model.eval()
    return curve


def update(
    model: Gemma2ForCausalLM, optimizers: Sequence[torch.optim.Optimizer], share: float, settings: ModelSettings
) -> None:
    """One clipped step at `share` of each optimiser's learning rate; clears the gradients."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * optimizer.defaults["lr"]
        optimizer.step()
        optimizer.zero_grad()


def describe(entry: dict[str, float], settings: ModelSettings, seconds: float) -> str:
    """One line of the log for an entry of the training curve."""
    numbers = "  ".join(f"{name} {value:.3f}" for name, value in entry.items() if name != "step")
    return f"model {entry['step']:>5}/{settings.steps} steps {seconds:5.0f} s  {numbers}"
