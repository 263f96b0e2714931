"""Cloze: no choices and no letters; the answer is the choice that is the likeliest text after the question alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from helpers.attacks.prompts import Means, PromptAttack
from helpers.profiles import Profile
from helpers.text.questions import Question, request_text


@dataclass(frozen=True)
class Cloze(PromptAttack):
    """The question without its choices; by the mean log-probability of their tokens one is the answer."""

    name = "cloze"
    source = "lm-evaluation-harness's length-normalised accuracy; ours on DSG, where nobody has tried it"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """There is one way."""
        return [cls()]

    @property
    def words(self) -> str:
        """Nothing is set."""
        return "no letters"

    @property
    def lettered(self) -> bool:
        """Choices are read as texts."""
        return False

    def length(self, tokens: int) -> int:
        """Four texts, none of which is longer than the question with its choices."""
        return 4 * tokens

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The question, up to where the model answers in words of its own."""
        return request_text(tokenizer, question.question, means.prompt_format)
