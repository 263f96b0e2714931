"""Options only: the choices without their question, which shows what the choices alone give away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from helpers.attacks.prompts import Means, PromptAttack, parts_of
from helpers.profiles import Profile
from helpers.text.questions import Question, frame_text


@dataclass(frozen=True)
class OptionsOnly(PromptAttack):
    """Header and choices; where a model is right more often than by chance, it need not know to answer."""

    name = "options only"
    source = "a usual control; the independent reproduction of DSG, unreviewed, told the topic in the choices only"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """There is one way."""
        return [cls()]

    @property
    def words(self) -> str:
        """Nothing is set."""
        return "no question above"

    @property
    def control(self) -> bool:
        """The unguarded model cannot know what is asked either."""
        return True

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The choices in one message, below the header."""
        above, _, options = parts_of(question, means.prompt_format)
        return frame_text(tokenizer, f"{above}{options}", means.prompt_format)
