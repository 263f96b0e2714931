"""Interleaving: harmless words between the words of the question, so that no stretch of it is all hazard."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from helpers.attacks.prompts import Means, PromptAttack, parts_of
from helpers.profiles import Count, Profile, settings_table
from helpers.text.questions import Question, frame_text


@settings_table
class Settings:
    """Every number of words between two of the question, and the kind of filler they are of."""

    between: tuple[Count, ...]
    filler: str


@dataclass(frozen=True)
class Interleaving(PromptAttack):
    """So many words of filler after each word of the question but the last; header and choices stay whole."""

    between: int
    filler: str

    name, table = "interleaving", "interleaving"
    source = (
        "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed: 1 to 8 tokens between "
        "tokens, meant for gates by window; no result published"
    )

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of words between."""
        of = profile.settings_of(cls.table, Settings)
        return [cls(n, of.filler) for n in of.between]

    @property
    def words(self) -> str:
        """As '2 words between words'."""
        return f"{self.between} word{'s' * (self.between > 1)} between words"

    def length(self, tokens: int) -> int:
        """As if every token of the prompt were a word of the question: at most so many."""
        return tokens * (1 + self.between)

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The mixed question in one message. Raises ValueError where there is too little filler."""
        above, stem, options = parts_of(question, means.prompt_format)
        words = stem.split()
        wanted = self.between * (len(words) - 1)
        told = " ".join(means.texts(self.filler, question, wanted)).split()[:wanted]
        if len(told) < wanted:
            raise ValueError(f"the filler holds {len(told)} words, {wanted} are wanted: give more text")
        mixed = words[:1]
        for i, word in enumerate(words[1:]):
            mixed += [*told[i * self.between : (i + 1) * self.between], word]
        return frame_text(tokenizer, f"{above}{' '.join(mixed)}\n{options}", means.prompt_format)
