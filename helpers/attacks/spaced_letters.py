"""Spaced letters: the words of the question letter by letter, so that none of them is the token that features know."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from helpers.attacks.prompts import Means, PromptAttack, parts_of
from helpers.profiles import Profile
from helpers.text.questions import Question, frame_text


@dataclass(frozen=True)
class SpacedLetters(PromptAttack):
    """A space between any two letters of the question and two between words; header and choices stay whole."""

    name = "spaced letters"
    source = "independent reproduction of DSG (Lokesh-916/Model-Unlearning-Using-SAEs), unreviewed"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """There is one way."""
        return [cls()]

    @property
    def words(self) -> str:
        """Nothing is set."""
        return "the question's words"

    def length(self, tokens: int) -> int:
        """As if every token of the prompt were a word of five letters: at most about so many."""
        return 5 * tokens

    def prompt(self, tokenizer, question: Question, means: Means) -> str:
        """The spelt question in one message.

        Raises:
            ValueError: the tokenizer knows no letters by themselves.
        """
        above, stem, options = parts_of(question, means.prompt_format)
        spelt = "  ".join(" ".join(word) for word in stem.split())
        unknown = tokenizer.unk_token_id
        if unknown is not None and unknown in tokenizer(spelt, add_special_tokens=False).input_ids:
            raise ValueError(
                f"{self.name}: this tokenizer has no letters by themselves, so that a spelt word is lost: leave "
                "spaced_letters out of prompt_attacks.attacks"
            )
        return frame_text(tokenizer, f"{above}{spelt}\n{options}", means.prompt_format)
