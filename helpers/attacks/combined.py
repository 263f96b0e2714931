"""Combined queries: several questions in one prompt, of which the last is to be answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from helpers.attacks.prompts import HAZARD, Means, PromptAttack
from helpers.profiles import Count, Profile, settings_table
from helpers.text.questions import Question, frame_text, question_text


@settings_table
class Settings:
    """Every number of questions above, of benign subjects or of the hazard."""

    questions: tuple[Count, ...]
    kinds: tuple[Literal["benign", "hazard"], ...]


@dataclass(frozen=True)
class Combined(PromptAttack):
    """Other questions, unanswered, above the one whose letter is read; a gate has one state for all of them."""

    questions: int
    kind: str

    name, table = "combined", "combined"
    source = "combined queries: 2410.02879; up to 8 mixed ones: SEPS, 2505.14832; on DSG ours"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of questions of every kind."""
        of = profile.settings_of(cls.table, Settings)
        return [cls(n, kind) for kind in of.kinds for n in of.questions]

    @property
    def words(self) -> str:
        """As '7 benign questions above'."""
        return f"{self.questions} {self.kind} question{'s' * (self.questions > 1)} above"

    @property
    def control(self) -> bool:
        """Questions about the hazard open the gate themselves."""
        return self.kind == HAZARD

    def length(self, tokens: int) -> int:
        """So many questions and the one that is asked."""
        return tokens * (1 + self.questions)

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """All in one message, an empty line between them. Raises ValueError where there are too few other questions."""
        asked = [*means.others(self.kind, question, self.questions), question]
        texts = [question_text(one, prompt_format=means.prompt_format) for one in asked]
        return frame_text(tokenizer, "\n\n".join(texts), means.prompt_format)
