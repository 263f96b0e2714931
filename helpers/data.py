"""What a profile's `source` names: its question sets and its texts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from helpers.corpora import Document
from helpers.organism.world import ENTITIES_PER_SUBJECT, World, build_world
from helpers.profiles import Profile
from helpers.questions import Question

WORLD_SEED = 0
PROSE = "everyday_life"  # neutral text, framed under a title of its own
WORDS_PER_DOCUMENT = 35  # the least that a document of five facts holds


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

    The retain text holds the unrelated subjects and plain prose but nothing of the benign neighbour, as WikiText holds
    hardly any college biology; neutral text is of the same kind and freshly drawn.
    """
    world = _world(profile.texts.source)
    side, sizes = profile.questions.side_effect, profile.texts
    return Texts(
        forget=_documents(world, [profile.questions.forget], sizes.forget_rows * sizes.row_length, seed=1),
        retain=_documents(world, [*side, PROSE], sizes.retain_rows * sizes.row_length, seed=2),
        neutral=_documents(world, [*side, PROSE], sizes.neutral_rows * sizes.row_length, seed=3),
    )


def _world(source: str) -> World:
    if source != "organism":
        raise ValueError(f"source {source!r} is unknown, allowed is 'organism'")
    return build_world(WORLD_SEED)


def _documents(world: World, subjects: Sequence[str], tokens: int, seed: int) -> list[Document]:
    """Equal numbers of texts of each subject, shuffled, at least `tokens` words in all."""
    per_subject = tokens // (WORDS_PER_DOCUMENT * len(subjects)) + 1
    found = [Document(s, text) for s in subjects for text in _texts(world, s, per_subject, seed)]
    random.Random(seed).shuffle(found)
    return found


def _texts(world: World, subject: str, n: int, seed: int) -> list[str]:
    if subject == PROSE:
        return world.prose(n, seed)
    return world.documents(subject, seed, n // ENTITIES_PER_SUBJECT + 1)[:n]
