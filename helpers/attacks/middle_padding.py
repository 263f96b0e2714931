"""Middle padding: harmless text in the middle of the question, so that its two ends are far apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from helpers.attacks.prompts import Means, PromptAttack, parts_of
from helpers.profiles import Count, Profile, settings_table
from helpers.text.dilution import filler
from helpers.text.questions import Question, frame_text

Place = Literal["at the middle word", "above the choices"]


@settings_table
class Settings:
    """Every number of tokens in every place, and the kind of filler they are of."""

    tokens: tuple[Count, ...]
    places: tuple[Place, ...]
    filler: str


@dataclass(frozen=True)
class MiddlePadding(PromptAttack):
    """So many tokens of filler at the middle word of the question, or between the question and its choices."""

    tokens: int
    place: str
    filler: str

    name, table = "middle padding", "middle_padding"
    source = (
        "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed: 400 tokens at the "
        "middle word, meant for CUSUM; no result published; above the choices is ours"
    )

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every length in every place."""
        of = profile.settings_of(cls.table, Settings)
        return [cls(n, place, of.filler) for place in of.places for n in of.tokens]

    @property
    def words(self) -> str:
        """As '100 tokens of far text above the choices'."""
        return f"{self.tokens} tokens of {self.filler} text {self.place}"

    def length(self, tokens: int) -> int:
        """The question and the filler."""
        return tokens + self.tokens

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The parted question in one message. Raises ValueError where there is too little filler."""
        told = filler(tokenizer, means.texts(self.filler, question, self.tokens), self.tokens)
        above, stem, options = parts_of(question, means.prompt_format)
        words = stem.split()
        middle = len(words) // 2 if self.place == "at the middle word" else len(words)
        parted = "\n\n".join(part for part in (" ".join(words[:middle]), told, " ".join(words[middle:])) if part)
        return frame_text(tokenizer, f"{above}{parted}\n{options}", means.prompt_format)
