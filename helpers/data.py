"""What a profile's `source` names: its question sets and its texts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.corpora import Document
from helpers.organism.world import ENTITIES_PER_SUBJECT, World, build_world
from helpers.profiles import Profile, check_source
from helpers.questions import Question

WORLD_SEED = 0
PROSE = "everyday_life"  # neutral text, framed under a title of its own
WORDS_PER_TEXT = 30  # about the least that a text holds, so that there are enough of them


@dataclass(frozen=True)
class Texts:
    """A profile's corpora. `forget` and `retain` choose features and train RMU, `neutral` measures the loss added."""

    forget: list[Document]
    retain: list[Document]
    neutral: list[Document]


def load_questions(profile: Profile) -> dict[str, list[Question]]:
    """Every question of the profile by subject: the one to forget first, its neighbour second, then the side effects.

    Raises:
        ValueError: the source or a subject is unknown, or a question is not well formed.
    """
    world = _world(profile.questions.source)
    wanted = (profile.questions.forget, profile.questions.near, *profile.questions.side_effect)
    unknown = [subject for subject in wanted if subject not in world.subjects]
    if unknown:
        raise ValueError(f"subjects {unknown} are unknown, this world has {list(world.subjects)}")
    return {subject: world.questions(subject) for subject in wanted}


def load_texts(profile: Profile) -> Texts:
    """The profile's corpora.

    The retain text holds documents and notes of the unrelated subjects and plain prose, but nothing of the benign
    neighbour, as WikiText holds hardly any college biology; neutral text is of the same kind and freshly drawn.
    """
    world, sizes = _world(profile.texts.source), profile.texts
    side, tokens = profile.questions.side_effect, sizes.row_length
    return Texts(
        forget=_shuffled(_documents(world, profile.questions.forget, sizes.forget_rows * tokens, seed=1), seed=1),
        retain=_benign(world, side, sizes.retain_rows * tokens, seed=2),
        neutral=_benign(world, side, sizes.neutral_rows * tokens, seed=3),
    )


def _world(source: str) -> World:
    check_source(source)
    return build_world(WORLD_SEED)


def _benign(world: World, subjects: Sequence[str], tokens: int, seed: int) -> list[Document]:
    """Equal parts of prose, and of documents and notes of each subject, shuffled."""
    share = tokens // (2 * len(subjects) + 1)
    prose = [Document(PROSE, text) for text in world.prose(share // WORDS_PER_TEXT + 1, seed)]
    told = [d for s in subjects for kind in (_documents, _notes) for d in kind(world, s, share, seed)]
    return _shuffled(prose + told, seed)


def _documents(world: World, subject: str, tokens: int, seed: int) -> list[Document]:
    per_entity = tokens // (WORDS_PER_TEXT * ENTITIES_PER_SUBJECT) + 1
    return [Document(subject, text) for text in world.documents(subject, seed, per_entity)]


def _notes(world: World, subject: str, tokens: int, seed: int) -> list[Document]:
    """Three short questions a text with their answers, in the second wording, which no exam question has.

    Retain text must hold questions, or features of a benign question's words pass for features of the hazard.
    """
    rng, facts = random.Random(f"notes/{subject}/{seed}"), world.subject_facts(subject)
    chosen = [rng.sample(facts, 3) for _ in range(tokens // WORDS_PER_TEXT + 1)]
    texts = ["\n".join(f"{f.attribute.short.format(e=f.entity)}\nAnswer: {f.value}" for f in three) for three in chosen]
    return [Document(subject, text) for text in texts]


def _shuffled(documents: list[Document], seed: int) -> list[Document]:
    random.Random(seed).shuffle(documents)
    return documents
