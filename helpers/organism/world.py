"""The invented world the embedded model knows: facts of six subjects, told in documents and asked in questions.

Nothing in it is real. Every subject has 32 entities with 5 attributes each; a fact is one attribute's value. The words
stand in world.toml, the facts are drawn from a seed. "hazard" is the subject to forget, "biology" its benign
neighbour: organs, animals, the word "agent" and the header's title are common to both.
"""

import hashlib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

from helpers.text.questions import Question, question_text

SUBJECTS = ("hazard", "biology", "geography", "history", "computing", "aging")
FORGET = "hazard"
NEIGHBOUR = "biology"
ENTITIES_PER_SUBJECT = 32
# One question in ten is never asked with four choices while training: the fact is known from documents only, and
# answering shows that the model recalls facts instead of memorising the answers of an exam.
UNASKED_SHARE = 0.1


@dataclass(frozen=True)
class Attribute:
    """What can be said of an entity: ten values, two sentences for documents, two wordings of the question."""

    values: tuple[str, ...]
    documents: tuple[str, ...]
    exam: str
    short: str


@dataclass(frozen=True)
class Subject:
    """A field of knowledge: its attributes, and the name endings that tell its entities from all others."""

    name: str
    endings: tuple[str, ...]
    attributes: tuple[Attribute, ...]


@dataclass(frozen=True)
class Fact:
    """One attribute's value of one entity; `id` is also the id of the question that asks for it."""

    id: str
    subject: str
    entity: str
    attribute: Attribute
    value: str


@dataclass(frozen=True)
class Words:
    """The content of world.toml."""

    stems: tuple[str, ...]
    subjects: tuple[Subject, ...]
    sentences: tuple[str, ...]
    prose: dict[str, list[str]]

    @property
    def endings(self) -> tuple[str, ...]:
        """The name endings of all subjects."""
        return tuple(ending for subject in self.subjects for ending in subject.endings)


@cache
def load_words() -> Words:
    """Reads world.toml, the word lists and sentences of every world."""
    data = tomllib.loads(Path(__file__).with_name("world.toml").read_text(encoding="utf-8"))
    subjects = []
    for name in SUBJECTS:
        entry = data["subjects"][name]
        attributes = tuple(
            Attribute(tuple(a["values"]), tuple(a["documents"]), a["exam"], a["short"]) for a in entry["attributes"]
        )
        subjects.append(Subject(name, tuple(entry["endings"]), attributes))
    prose = dict(data["prose"])
    return Words(tuple(data["stems"]), tuple(subjects), tuple(prose.pop("sentences")), prose)


@dataclass(frozen=True)
class World:
    """The facts drawn from one seed, and the texts and questions made from them.

    Attributes:
        seed: what the facts were drawn from.
        facts: all facts; those of one subject stand together, in mixed order of entities and attributes.
        unasked: ids of the questions that training never asks with four choices.
    """

    seed: int
    facts: tuple[Fact, ...]
    unasked: frozenset[str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects: hazard (to forget), biology (its neighbour), and four far ones."""
        return SUBJECTS

    @cached_property
    def _facts_of(self) -> dict[str, dict[str, list[Fact]]]:
        facts: dict[str, dict[str, list[Fact]]] = {subject: {} for subject in SUBJECTS}
        for fact in self.facts:
            facts[fact.subject].setdefault(fact.entity, []).append(fact)
        return facts

    def subject_facts(self, subject: str) -> list[Fact]:
        """The 160 facts of one subject, in the order of its questions.

        Raises:
            ValueError: there is no such subject.
        """
        if subject not in SUBJECTS:
            raise ValueError(f"the world has no subject {subject!r}, allowed are {', '.join(SUBJECTS)}")
        return [fact for fact in self.facts if fact.subject == subject]

    def questions(self, subject: str) -> list[Question]:
        """The 160 four-choice questions of one subject, with ids such as 'hazard-017'; the same on every call."""
        return [ask(fact, Random(f"{self.seed}/{fact.id}")) for fact in self.subject_facts(subject)]

    def documents(self, subject: str, seed: int, per_entity: int) -> list[str]:
        """`per_entity` short texts about each entity of a subject, shuffled: all its facts in a new order and wording.

        The facts are the same for every seed, the samples of wording and order are not.
        """
        self.subject_facts(subject)
        rng = Random(f"documents/{self.seed}/{subject}/{seed}")
        texts = [_document(facts, rng) for facts in self._facts_of[subject].values() for _ in range(per_entity)]
        rng.shuffle(texts)
        return texts

    def prose(self, n: int, seed: int) -> list[str]:
        """`n` texts of five neutral sentences that hold no fact, as WikiText stands beside the papers' corpora."""
        rng = Random(f"prose/{self.seed}/{seed}")
        words = load_words()
        return [" ".join(_prose_sentence(words, rng) for _ in range(5)) for _ in range(n)]

    def short_answers(self, seed: int) -> list[str]:
        """Every fact once as a question without choices, with its value after "Answer:" on a second line, shuffled."""
        rng = Random(f"short/{self.seed}/{seed}")
        texts = []
        for fact in self.facts:
            wording = rng.choice((fact.attribute.exam, fact.attribute.short))
            texts.append(f"{wording.format(e=fact.entity)}\nAnswer: {fact.value}")
        rng.shuffle(texts)
        return texts

    def fingerprint(self) -> str:
        """SHA-256 of facts, questions and a sample of every kind of text: equal only for equal worlds."""
        parts = [question_text(q) for s in SUBJECTS for q in self.questions(s)]
        parts += [f"{fact.id} {fact.entity} {fact.value} {fact.id in self.unasked}" for fact in self.facts]
        parts += (
            [text for s in SUBJECTS for text in self.documents(s, 0, 1)] + self.prose(20, 0) + self.short_answers(0)
        )
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def build_world(seed: int) -> World:
    """Draws names, values and unasked questions; the same seed gives the same world on every machine."""
    rng = Random(f"world/{seed}")
    facts = [fact for subject in load_words().subjects for fact in _draw_facts(subject, rng)]
    n_unasked = round(UNASKED_SHARE * len(facts) / len(SUBJECTS))
    unasked: set[str] = set()
    for subject in SUBJECTS:
        unasked.update(rng.sample([fact.id for fact in facts if fact.subject == subject], n_unasked))
    return World(seed, tuple(facts), frozenset(unasked))


def ask(fact: Fact, rng: Random) -> Question:
    """The four-choice question for a fact, with three wrong values of the same attribute, in an order drawn anew."""
    wrong = rng.sample([value for value in fact.attribute.values if value != fact.value], 3)
    answer = rng.randrange(4)
    choices = (*wrong[:answer], fact.value, *wrong[answer:])
    return Question(fact.id, fact.subject, fact.attribute.exam.format(e=fact.entity), choices, answer)


def _draw_facts(subject: Subject, rng: Random) -> list[Fact]:
    """The facts of one subject; each value of an attribute is given to about as many entities as any other."""
    stems = rng.sample(load_words().stems, ENTITIES_PER_SUBJECT // 2)
    names = [stem + ending for stem in stems for ending in rng.sample(subject.endings, 2)]
    drawn = []
    for attribute in subject.attributes:
        values = [value for _ in range(0, len(names), len(attribute.values)) for value in attribute.values]
        rng.shuffle(values)
        drawn += [(name, attribute, value) for name, value in zip(names, values, strict=False)]
    rng.shuffle(drawn)
    return [Fact(f"{subject.name}-{i:03d}", subject.name, *parts) for i, parts in enumerate(drawn)]


def _document(facts: Sequence[Fact], rng: Random) -> str:
    """All facts of one entity as prose, one sentence each."""
    order = rng.sample(facts, len(facts))
    return " ".join(rng.choice(f.attribute.documents).format(e=f.entity, v=f.value) for f in order)


def _prose_sentence(words: Words, rng: Random) -> str:
    """One neutral sentence; each gap is filled on its own, so that a noun may come twice."""
    parts = rng.choice(words.sentences).replace("{", "\0{").split("\0")
    filled = [parts[0]]
    for part in parts[1:]:
        kind, rest = part[1:].split("}")
        filled.append(rng.choice(words.prose[kind]) + rest)
    return "".join(filled)
