"""Few-shot heads: solved questions above the one that is asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

from helpers.attacks.prompts import HAZARD, Means, PromptAttack
from helpers.profiles import Count, Profile, settings_table
from helpers.text.questions import ORDERS, Question, frame_text, question_text, solved


@settings_table
class Settings:
    """Every number of examples, of benign subjects or of the hazard."""

    examples: tuple[Count, ...]
    kinds: tuple[Literal["benign", "hazard"], ...]


@dataclass(frozen=True)
class FewShot(PromptAttack):
    """Other questions with their right letters as earlier turns of the conversation."""

    examples: int
    kind: str

    name, table = "few-shot", "few_shot"
    source = "ours: nobody has tried it on DSG"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of examples of every kind."""
        of = profile.settings_of(cls.table, Settings)
        return [cls(n, kind) for kind in of.kinds for n in of.examples]

    @property
    def words(self) -> str:
        """As '3 benign examples'."""
        return f"{self.examples} {self.kind} example{'s' * (self.examples > 1)}"

    @property
    def control(self) -> bool:
        """Examples about the hazard open the gate themselves."""
        return self.kind == HAZARD

    def length(self, tokens: int) -> int:
        """So many questions and the one that is asked."""
        return tokens * (1 + self.examples)

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """Examples, then the question. Raises ValueError where there are too few other questions."""
        form = means.prompt_format
        earlier = [solved(other, ORDERS[0], form) for other in means.others(self.kind, question, self.examples)]
        return frame_text(tokenizer, question_text(question, prompt_format=form), form, earlier)
