"""Attempts to get the knowledge back, one file an attack."""

from collections.abc import Mapping
from types import MappingProxyType

from helpers.attacks.cloze import Cloze
from helpers.attacks.combined import Combined
from helpers.attacks.decomposition import Decomposition
from helpers.attacks.dilution import Dilution
from helpers.attacks.few_shot import FewShot
from helpers.attacks.interleaving import Interleaving
from helpers.attacks.middle_padding import MiddlePadding
from helpers.attacks.near_interleaving import NearInterleaving
from helpers.attacks.options_only import OptionsOnly
from helpers.attacks.prompts import PromptAttack
from helpers.attacks.spaced_letters import SpacedLetters
from helpers.profiles import Profile

__all__ = ["PROMPT_ATTACKS", "PromptAttack", "attacks_of"]

# By the name that the tables of a profile use. A new attack by the prompt is a file and a line here.
PROMPT_ATTACKS: Mapping[str, type[PromptAttack]] = MappingProxyType({
    "dilution": Dilution,
    "decomposition": Decomposition,
    "interleaving": Interleaving,
    "near_interleaving": NearInterleaving,
    "few_shot": FewShot,
    "combined": Combined,
    "middle_padding": MiddlePadding,
    "options_only": OptionsOnly,
    "cloze": Cloze,
    "spaced_letters": SpacedLetters,
})  # fmt: skip


def attacks_of(profile: Profile) -> list[PromptAttack]:
    """Every setting of the attacks that a profile names.

    Raises:
        ValueError: an unknown attack; the known ones are listed.
    """
    named = profile.prompt_attacks.attacks
    for name in named:
        if name not in PROMPT_ATTACKS:
            raise ValueError(f"attack {name!r} is unknown, the known ones are: {', '.join(PROMPT_ATTACKS)}")
    return [setting for name in named for setting in PROMPT_ATTACKS[name].grid(profile)]
