"""Decomposition: one question told in several turns, so that no turn holds all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np

from helpers.attacks.prompts import Means, PromptAttack, parts_of
from helpers.profiles import Count, Profile, settings_table
from helpers.text.questions import Question, frame_text


@settings_table
class Settings:
    """Every number of turns with the choices in the last or in the first of them, and what the model says between."""

    turns: tuple[Count, ...]
    options: tuple[Literal["last", "first"], ...]
    acknowledgement: str


@dataclass(frozen=True)
class Decomposition(PromptAttack):
    """The words of the question in turns of equal length, each but the last acknowledged in fixed words.

    In plain text, which has no turns, an acknowledgement stands on a line of its own.
    """

    turns: int
    options: str
    acknowledgement: str

    name, table = "decomposition", "decomposition"
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed: 2 and 3 turns"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of turns, with the choices in every place."""
        of = profile.settings_of(cls.table, Settings)
        return [cls(n, options, of.acknowledgement) for options in of.options for n in of.turns]

    @property
    def words(self) -> str:
        """As '3 turns, options last'."""
        return f"{self.turns} turns, options {self.options}"

    def can_ask(self, question: Question) -> bool:
        """A question needs a word for each turn."""
        return len(question.question.split()) >= self.turns

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The header opens the first turn."""
        above, stem, options = parts_of(question, means.prompt_format)
        told = [" ".join(part) for part in np.array_split(stem.split(), self.turns)]
        if self.options == "first":
            told[0] = f"{options}\n{told[0]}"
        else:
            told[-1] = f"{told[-1]}\n{options}"
        told[0] = above + told[0]
        earlier = [(part, self.acknowledgement) for part in told[:-1]]
        return frame_text(tokenizer, told[-1], means.prompt_format, earlier)
