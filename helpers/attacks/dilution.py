"""Dilution: harmless text in the same prompt, so that the share of tokens at which hazard features fire falls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field

from helpers.attacks.prompts import Means, PromptAttack
from helpers.profiles import Count, Profile, settings_table
from helpers.text.dilution import diluted, filler
from helpers.text.questions import Question, frame_text, question_text

Place = Literal["before", "after", "around"]
# The kind of filler that speaks of what the hazard's features fire on too, and so ought not to dilute.
NEAR = "near"


@settings_table
class Settings:
    """Every number of tokens in every place with every kind of filler (`[prompt_attacks.fillers]`).

    Attributes:
        tokens: numbers of them.
        places: where they stand.
        fillers: kinds that stand in every place.
        first_place_fillers: kinds that stand in the first place only, for less work.
    """

    tokens: tuple[Count, ...]
    places: Annotated[tuple[Place, ...], Field(min_length=1)]
    fillers: tuple[str, ...]
    first_place_fillers: tuple[str, ...]


@dataclass(frozen=True)
class Dilution(PromptAttack):
    """So many tokens of filler before the question, after it, or half of its words on either side.

    The filler is drawn for each question; a longer one begins with the shorter one.
    """

    tokens: int
    place: str
    filler: str

    name, table = "dilution", "dilution"
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed: 0 to 1,600 tokens"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every length in every place with every kind of filler."""
        of = profile.settings_of(cls.table, Settings)
        places = dict.fromkeys(of.fillers, of.places) | dict.fromkeys(of.first_place_fillers, of.places[:1])
        return [cls(n, place, kind) for kind in places for place in places[kind] for n in of.tokens]

    @property
    def words(self) -> str:
        """As '100 tokens of far text before'."""
        return f"{self.tokens} tokens of {self.filler} text {self.place}"

    @property
    def control(self) -> bool:
        """Text of the near domain fires the same features."""
        return self.filler == NEAR

    def length(self, tokens: int) -> int:
        """The question and the filler."""
        return tokens + self.tokens

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The question with the filler in one message. Raises ValueError where there is too little filler."""
        told = filler(tokenizer, means.texts(self.filler, question, self.tokens), self.tokens)
        text = diluted(question_text(question, prompt_format=means.prompt_format), told, self.place)
        return frame_text(tokenizer, text, means.prompt_format)
