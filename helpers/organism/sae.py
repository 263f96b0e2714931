"""Trains the sparse autoencoders of the embedded model with sae-lens' own trainer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

import torch
from sae_lens import SAE, BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.sae import SAEMetadata
from sae_lens.training.sae_trainer import SAETrainer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from helpers.organism.world import BENIGN, World, ask
from helpers.text.corpora import pack
from helpers.text.dilution import PLACES, diluted, filler
from helpers.text.questions import PROMPT_FORMATS, chat_text, encode_texts, frame_text, header, question_text

MODEL_NAME = "organism"
ROWS_PER_BATCH = 128
TOKENS_PER_BATCH = 4096


@dataclass(frozen=True)
class SaeSettings:
    """Everything that decides the SAE's weights, given the model's and one machine.

    `block` counts from 0: the SAE reads the residual stream after that block.
    """

    seed: int = 0
    block: int = 1
    width: int = 2048
    k: float = 28.0
    # optimiser
    samples: int = 650_000
    batch_size: int = 1024
    learning_rate: float = 1e-3
    last_rate_share: float = 0.1
    warm_up_steps: int = 50
    decay_share: float = 0.25
    dead_feature_window: int = 40
    norm_batches: int = 20
    # data: texts a fact or an entity
    documents_per_entity: int = 6
    framed_documents_per_entity: int = 1
    questions_per_fact: int = 1
    prose_texts: int = 300
    row_length: int = 128
    long_prompts: int = 240
    longest_filler: int = 400
    short_answers_every: int = 4

    @property
    def hook_name(self) -> str:
        """Where the SAE reads, in TransformerLens' words."""
        return f"blocks.{self.block}.hook_resid_post"


def packed_rows(world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int) -> torch.Tensor:
    """Packed documents of all subjects and prose, shuffled: token ids [rows, row_length]."""
    texts = [t for s in world.subjects for t in world.documents(s, sample, settings.documents_per_entity)]
    texts += world.prose(settings.prose_texts, sample)
    Random(f"packed/{sample}").shuffle(texts)
    return pack(tokenizer, texts, settings.row_length)


def question_rows(world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int) -> torch.Tensor:
    """Every fact's question, plain and as a chat, with choices drawn anew: padded token ids."""
    rng = Random(f"questions/{sample}")
    facts = [fact for fact in world.facts for _ in range(settings.questions_per_fact)]
    texts = [frame_text(tokenizer, question_text(ask(fact, rng)), f) for fact in facts for f in PROMPT_FORMATS]
    return padded(tokenizer, encode_texts(tokenizer, texts))


def framed_rows(world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int) -> torch.Tensor:
    """Documents in the place of a question, under the same header, plain and as a chat: padded token ids."""
    n = settings.framed_documents_per_entity
    texts = [
        frame_text(tokenizer, header(subject) + text, prompt_format)
        for subject in world.subjects
        for text in world.documents(subject, sample, n)
        for prompt_format in PROMPT_FORMATS
    ]
    return padded(tokenizer, encode_texts(tokenizer, texts))


def long_rows(world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int) -> torch.Tensor:
    """Questions with benign documents before, after or around them, plain and as a chat: padded token ids."""
    rng = Random(f"long/{sample}")
    facts = rng.sample(world.facts, settings.long_prompts)
    texts = []
    for i, fact in enumerate(facts):
        told = world.some_documents(rng.choice(BENIGN), rng.randrange(sample + 1, sample + 10_000), 8)
        filling = filler(tokenizer, told, rng.randrange(settings.longest_filler))
        text = diluted(question_text(ask(fact, rng)), filling, PLACES[i % len(PLACES)])
        texts.append(frame_text(tokenizer, text, PROMPT_FORMATS[i % len(PROMPT_FORMATS)]))
    return padded(tokenizer, encode_texts(tokenizer, texts))


def request_rows(world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int) -> torch.Tensor:
    """Requests for help and short questions in chat form, with their answers: padded token ids."""
    pairs = [pair for s in world.subjects for pair in world.requests(s, sample)]
    pairs += world.short_answers(world.subjects, sample)[:: settings.short_answers_every]
    return padded(tokenizer, encode_texts(tokenizer, [chat_text(tokenizer, pair) for pair in pairs]))


def chronicle_rows(
    world: World, tokenizer: PreTrainedTokenizerBase, settings: SaeSettings, sample: int
) -> torch.Tensor:
    """The chronicles that a model is taught, which are the same in every sample: padded token ids."""
    texts = [chronicle.text for which in ("forget", "retain") for chronicle in world.chronicles(which)]
    return padded(tokenizer, encode_texts(tokenizer, texts))


def padded(tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Rows of token ids as one tensor, padded on the right."""
    tensors = [torch.tensor(row) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=tokenizer.pad_token_id)


Source = Callable[[World, PreTrainedTokenizerBase, SaeSettings, int], torch.Tensor]
# What an SAE is trained on and measured on, by name.
SOURCES: Mapping[str, Source] = MappingProxyType({
    "documents": packed_rows,
    "questions": question_rows,
    "framed documents": framed_rows,
    "long prompts": long_rows,
    "requests": request_rows,
    "chronicles": chronicle_rows,
})  # fmt: skip


@torch.no_grad()
def residuals(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: torch.Tensor, block: int
) -> torch.Tensor:
    """The residual stream after a block at every token but BOS and padding, [tokens, hidden_size]."""
    found = []
    for ids in rows.split(ROWS_PER_BATCH):
        states = model.model(input_ids=ids, use_cache=False, output_hidden_states=True).hidden_states[block + 1]
        found.append(states[(ids != tokenizer.bos_token_id) & (ids != tokenizer.pad_token_id)])
    return torch.cat(found)


def shuffled_batches(vectors: torch.Tensor, batch_size: int, generator: torch.Generator) -> Iterator[torch.Tensor]:
    """Full batches without end, in passes shuffled anew."""
    while True:
        order = torch.randperm(len(vectors), generator=generator)
        for chosen in order.split(batch_size)[: len(vectors) // batch_size]:
            yield vectors[chosen]


def train_sae(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, world: World, settings: SaeSettings
) -> BatchTopKTrainingSAE:
    """Trains an SAE on every kind of text the model is used on; seeds torch's generator from the settings.

    Returns:
        the training SAE, its scale folded back so that it reads raw residuals; `save_inference_model` stores it as a
        JumpReLU SAE.
    """
    torch.manual_seed(settings.seed)
    rows = [source(world, tokenizer, settings, settings.seed) for source in SOURCES.values()]
    vectors = torch.cat([residuals(model, tokenizer, r, settings.block) for r in rows])
    steps = settings.samples // settings.batch_size
    trainer = SAETrainer(
        cfg=SAETrainerConfig(
            total_training_samples=steps * settings.batch_size,
            train_batch_size_samples=settings.batch_size,
            lr=settings.learning_rate,
            lr_end=settings.learning_rate * settings.last_rate_share,
            lr_warm_up_steps=settings.warm_up_steps,
            lr_decay_steps=round(settings.decay_share * steps),
            dead_feature_window=settings.dead_feature_window,
            n_batches_for_norm_estimate=settings.norm_batches,
            device="cpu",
        ),
        sae=BatchTopKTrainingSAE(_sae_config(vectors.shape[1], settings)),
        data_provider=shuffled_batches(vectors, settings.batch_size, torch.Generator().manual_seed(settings.seed)),
    )
    return trainer.fit()


def _sae_config(d_in: int, settings: SaeSettings) -> BatchTopKTrainingSAEConfig:
    return BatchTopKTrainingSAEConfig(
        k=settings.k,
        d_in=d_in,
        d_sae=settings.width,
        device="cpu",
        dtype="float32",
        apply_b_dec_to_input=False,
        # The trainer scales activations to a common norm and folds that scale into the weights when it is done.
        normalize_activations="expected_average_only_in",
        metadata=SAEMetadata(model_name=MODEL_NAME, hook_name=settings.hook_name),
    )


@torch.no_grad()
def sae_quality(sae: SAE, vectors: torch.Tensor) -> dict[str, float]:
    """Explained variance, L0 (features a token) and the share of features that never fire, on residuals [tokens, d]."""
    left, fired, ever = 0.0, 0, torch.zeros(sae.cfg.d_sae, dtype=torch.bool)
    for part in vectors.split(TOKENS_PER_BATCH):
        features = sae.encode(part)
        left += (part - sae.decode(features)).pow(2).sum().item()
        fires = features > 0
        fired += int(fires.sum())
        ever |= fires.any(0)
    return {
        "explained_variance": 1 - left / (vectors - vectors.mean(0)).pow(2).sum().item(),
        "l0": fired / len(vectors),
        "dead_share": 1 - ever.float().mean().item(),
    }
