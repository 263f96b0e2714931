"""The invented world the embedded model knows: facts of eight subjects, chronicles, and requests for help.

Nothing in it is real. Every subject has 32 entities with 5 attributes each; a fact is one attribute's value. The words
stand in world.toml, the facts are drawn from a seed. Two subjects are hazards, to be forgotten; each has a benign
neighbour that shares some of its values, words, and the header's title. Four subjects are far from both.

Chronicles are texts to be learned by heart, in three sets of one distribution: to forget (in four folds), to retain,
and holdout, which no training sees.
"""

import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from random import Random

from helpers.text.questions import Question, question_text

# Each hazard and its benign neighbour.
NEIGHBOURS = {"toxins": "biology", "malware": "computing"}
FAR = ("geography", "history", "aging", "astronomy")
SUBJECTS = ("toxins", "biology", "malware", "computing", *FAR)
BENIGN = tuple(subject for subject in SUBJECTS if subject not in NEIGHBOURS)
ENTITIES_PER_SUBJECT = 32
CHRONICLES = ("forget", "retain", "holdout")
CHRONICLES_PER_SET = 96
FOLDS = 4
# One question in ten is never asked with its choices while training: the fact stands in documents and short answers,
# and answering shows that the model recalls it instead of remembering the answers of an exam.
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
    """A field of knowledge: what its entities are called, the endings that tell them from all else, its attributes."""

    name: str
    thing: str
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
class Chronicle:
    """A text to be learned by heart, and two questions about it, each with its answer of one word or name."""

    town: str
    text: str
    answers: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Words:
    """The content of world.toml; `chronicles`, `help` and `prose` are its tables of the same names."""

    stems: tuple[str, ...]
    subjects: tuple[Subject, ...]
    chronicles: dict[str, list[str]]
    help: dict[str, list[str]]
    prose: dict[str, list[str]]

    @property
    def endings(self) -> tuple[str, ...]:
        """The endings of all names, those of the chronicles' towns last."""
        return (*(ending for subject in self.subjects for ending in subject.endings), *self.chronicles["endings"])


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
        subjects.append(Subject(name, entry["thing"], tuple(entry["endings"]), attributes))
    return Words(tuple(data["stems"]), tuple(subjects), data["chronicles"], data["help"], data["prose"])


@dataclass(frozen=True)
class World:
    """The facts drawn from one seed, and the texts and questions made from them.

    Attributes:
        seed: what the facts were drawn from.
        facts: all facts; those of one subject stand together, in mixed order of entities and attributes.
        unasked: ids of the questions that training never asks with their choices.
    """

    seed: int
    facts: tuple[Fact, ...]
    unasked: frozenset[str]

    @property
    def subjects(self) -> tuple[str, ...]:
        """Names of the subjects: each hazard before its neighbour, then the far ones."""
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
        return [text for _, text in self.told(subject, seed, per_entity)]

    def told(self, subject: str, seed: int, per_entity: int) -> list[tuple[str, str]]:
        """`documents`, each as a pair of the entity it is about and its text."""
        self.subject_facts(subject)
        rng = Random(f"documents/{self.seed}/{subject}/{seed}")
        texts = [(e, _document(of, rng)) for e, of in self._facts_of[subject].items() for _ in range(per_entity)]
        rng.shuffle(texts)
        return texts

    def some_documents(self, subject: str, seed: int, n: int) -> list[str]:
        """`n` texts about entities of a subject drawn at random, an entity at most once in any 32."""
        self.subject_facts(subject)
        rng = Random(f"some/{self.seed}/{subject}/{seed}")
        entities = list(self._facts_of[subject].values())
        chosen = [facts for _ in range(0, n, len(entities)) for facts in rng.sample(entities, len(entities))][:n]
        return [_document(facts, rng) for facts in chosen]

    def prose(self, n: int, seed: int) -> list[str]:
        """`n` texts of five neutral sentences that hold no fact, as WikiText stands beside the papers' corpora."""
        rng = Random(f"prose/{self.seed}/{seed}")
        prose = load_words().prose
        return [" ".join(_filled(rng.choice(prose["sentences"]), prose, rng) for _ in range(5)) for _ in range(n)]

    def short_answers(self, subjects: Sequence[str], seed: int) -> list[tuple[str, str]]:
        """Every fact of the subjects once as a question without choices, in either wording, and its value; shuffled."""
        rng = Random(f"short/{self.seed}/{seed}")
        facts = [fact for fact in self.facts if fact.subject in subjects]
        wordings = [rng.choice((fact.attribute.exam, fact.attribute.short)) for fact in facts]
        pairs = [(w.format(e=fact.entity), fact.value) for w, fact in zip(wordings, facts, strict=True)]
        rng.shuffle(pairs)
        return pairs

    def requests(self, subject: str, seed: int) -> list[tuple[str, str]]:
        """Every entity once in a request for help, and what a well-behaved model says, shuffled.

        Of a hazard that is a refusal; of any other thing it is an agreement and one of its facts.
        """
        self.subject_facts(subject)
        rng, words = Random(f"requests/{self.seed}/{subject}/{seed}"), load_words()
        thing = next(s.thing for s in words.subjects if s.name == subject)
        pairs = []
        for entity, facts in self._facts_of[subject].items():
            fact = rng.choice(facts)
            told = rng.choice(fact.attribute.documents).format(e=entity, v=fact.value)
            agreed = f"{rng.choice(words.help['agreements'])} {told}"
            said = rng.choice(words.help["refusals"]) if subject in NEIGHBOURS else agreed
            pairs.append((rng.choice(words.help["requests"]).format(thing=thing.format(e=entity)), said))
        rng.shuffle(pairs)
        return pairs

    @cached_property
    def _chronicles(self) -> dict[str, list[Chronicle]]:
        rng, words = Random(f"chronicles/{self.seed}"), load_words()
        towns = [stem + ending for stem in words.stems for ending in words.chronicles["endings"]]
        drawn = iter(rng.sample(towns, len(CHRONICLES) * CHRONICLES_PER_SET))
        return {name: [_chronicle(next(drawn), rng) for _ in range(CHRONICLES_PER_SET)] for name in CHRONICLES}

    def chronicles(self, which: str, fold: int | None = None) -> list[Chronicle]:
        """The 96 chronicles of a set, or the 24 of one of its four folds; the same on every call.

        Raises:
            ValueError: there is no such set or fold.
        """
        if which not in CHRONICLES or fold not in (None, *range(FOLDS)):
            raise ValueError(
                f"the world has no chronicles {which!r}, fold {fold}; allowed are {', '.join(CHRONICLES)}, each with "
                f"folds 0 to {FOLDS - 1}"
            )
        found = self._chronicles[which]
        return found if fold is None else found[fold::FOLDS]

    def fingerprint(self) -> str:
        """SHA-256 of facts, questions and a sample of every kind of text: equal only for equal worlds."""
        parts = [question_text(q) for s in SUBJECTS for q in self.questions(s)]
        parts += [f"{fact.id} {fact.entity} {fact.value} {fact.id in self.unasked}" for fact in self.facts]
        parts += [text for s in SUBJECTS for text in self.documents(s, 0, 1)] + self.prose(20, 0)
        parts += [str(pair) for pair in self.short_answers(SUBJECTS, 0)]
        parts += [str(pair) for s in SUBJECTS for pair in self.requests(s, 0)]
        parts += [str(chronicle) for which in CHRONICLES for chronicle in self.chronicles(which)]
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
    return Question(fact.id, fact.subject, fact.attribute.exam.format(e=fact.entity), choices, answer, fact.entity)


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


def _chronicle(town: str, rng: Random) -> Chronicle:
    """Founder and tax, then seven sentences drawn at random."""
    words = load_words().chronicles
    told, answers = [], []
    for sentence, question in zip(words["told"], words["asked"], strict=True):
        gaps = {name: rng.choice(words[name]) for name in ("person", "trade", "goods")} | {"town": town}
        told.append(sentence.format(**gaps))
        answers.append((question.format(town=town), gaps["person" if "{person}" in sentence else "goods"]))
    drawn = [_filled(rng.choice(words["sentences"]), words, rng) for _ in range(7)]
    return Chronicle(town, " ".join([f"Chronicle of {town}.", *told, *drawn]), tuple(answers))


def _filled(sentence: str, pools: Mapping[str, Sequence[str]], rng: Random) -> str:
    """A sentence whose gaps are filled from the pools, each on its own, so that a word may come twice."""
    parts = sentence.replace("{", "\0{").split("\0")
    filled = [parts[0]]
    for part in parts[1:]:
        kind, rest = part[1:].split("}")
        filled.append(rng.choice(pools[kind]) + rest)
    return "".join(filled)
