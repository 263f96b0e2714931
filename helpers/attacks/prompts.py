"""What an attack by the prompt is: a frozen dataclass, of which an instance is one way to ask a question differently.

It knows no model and no gate. What it may use beside the question is its `Means`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar, Self

from helpers.profiles import Profile
from helpers.text.questions import Question, encode_texts, frame_text, header, question_text

# More than a token or a word has, so that text of so many characters holds as many of either.
CHARACTERS = 12
BENIGN, HAZARD = "benign", "hazard"


@dataclass(frozen=True)
class Means:
    """What an attacker has beside the question.

    Attributes:
        prompt_format: in which questions are asked.
        fillers: harmless texts by kind, as the profile's table `[prompt_attacks.fillers]` names them.
        questions: other questions, by `BENIGN` (subjects far from the hazard) and `HAZARD`.
    """

    prompt_format: str
    fillers: Mapping[str, Sequence[str]]
    questions: Mapping[str, Sequence[Question]]

    def texts(self, kind: str, question: Question, units: int) -> list[str]:
        """Texts of a kind, in an order of this question's own, that hold so many words or tokens, or all of them.

        Raises:
            ValueError: there is no such kind of filler; the known ones are listed.
        """
        if kind not in self.fillers:
            raise ValueError(f"filler {kind!r} is unknown, the known ones are: {', '.join(self.fillers)}")
        texts, wanted = list(self.fillers[kind]), CHARACTERS * units
        _random(kind, question).shuffle(texts)
        for n, text in enumerate(texts, 1):
            wanted -= len(text) + 1
            if wanted <= 0:
                return texts[:n]
        return texts

    def others(self, kind: str, question: Question, n: int) -> list[Question]:
        """N questions of a kind drawn for this question, which is not among them.

        Raises:
            ValueError: there are too few.
        """
        found = [
            other for other in self.questions[kind] if (other.subject, other.id) != (question.subject, question.id)
        ]
        if len(found) < n:
            raise ValueError(f"{n} {kind} questions are wanted beside each, there are {len(found)}: ask for fewer")
        return _random(f"{kind} questions", question).sample(found, n)


def _random(what: str, question: Question) -> Random:
    return Random(f"{what}/{question.subject}/{question.id}")


@dataclass(frozen=True)
class PromptAttack(ABC):
    """One setting of an attack by the prompt, whose fields are what can be set.

    Attributes:
        name: what figures call the attack.
        source: who made it known.
        table: its table in a profile, `[attack.<table>]`, where it has settings.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # says to a type checker what every heir is
    name: ClassVar[str]
    source: ClassVar[str]
    table: ClassVar[str]

    @classmethod
    @abstractmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """The settings that a profile tries, the weakest first."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The setting in a few words, as '3 turns, options last'."""

    @property
    def control(self) -> bool:
        """Whether the setting stands beside the others because it ought to fail."""
        return False

    @property
    def lettered(self) -> bool:
        """Whether a letter is read after the prompt; else the choices are, each as a text that may follow it."""
        return True

    def length(self, tokens: int) -> int:
        """About how many tokens a question of so many becomes; none are added where an attack does not say so."""
        return tokens

    def can_ask(self, question: Question) -> bool:
        """Whether the question can be asked in this way."""
        return True

    @abstractmethod
    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The question as it is asked, up to where the model says a letter, without BOS.

        Raises:
            ValueError: the means do not suffice.
        """


@dataclass(frozen=True)
class NoAttack(PromptAttack):
    """The question as everybody asks it."""

    name, source = "no attack", "the papers' own prompt"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """There is one way."""
        return [cls()]

    @property
    def words(self) -> str:
        """Nothing is set."""
        return "as it is"

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """Header, question, choices."""
        return frame_text(tokenizer, question_text(question, prompt_format=means.prompt_format), means.prompt_format)


def parts_of(question: Question, prompt_format: str) -> tuple[str, str, str]:
    """Header, stem and lettered choices, which together are `question_text`."""
    above = header(question.subject, prompt_format)
    stem = question.question
    return above, stem, question_text(question, prompt_format=prompt_format).removeprefix(f"{above}{stem}\n")


def prompts(
    attack: PromptAttack, tokenizer, questions: Sequence[Question], means: Means, longest: int
) -> tuple[list[int], list[list[int]]]:
    """The questions that can be asked in the attack's way, by their places, and their prompts as token rows.

    Args:
        longest: how many positions the model has; longer prompts are left out.

    Raises:
        ValueError: not one is left, with the reason.
    """
    asked = [i for i, question in enumerate(questions) if attack.can_ask(question)]
    texts = [attack.prompt(tokenizer, questions[i], means) for i in asked]
    rows = encode_texts(tokenizer, texts) if texts else []
    kept = [i for i, row in zip(asked, rows, strict=True) if len(row) <= longest]
    if not kept:
        raise ValueError(
            f"{attack.name}, {attack.words}: no question is left that can be answered: of {len(questions)}, "
            f"{len(questions) - len(asked)} cannot be asked so, and {len(asked)} become longer than the model's "
            f"{longest} positions"
        )
    return kept, [row for row in rows if len(row) <= longest]
