"""Khoriaty et al. 2025, refusal clamp: where a harmful feature fires, set the refusal feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from helpers.engine.edited import Edited
from helpers.engine.features import token_activations
from helpers.engine.interventions import Add, Clamp
from helpers.methods.clamping import ClampMethod, Feature, Values
from helpers.methods.clamping import Grid as ClampGrid
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT
from helpers.profiles import Profile, Strength, settings_table
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid(ClampGrid):
    """The method's table in a profile: `fires_above` is the activation above which a harmful feature triggers."""

    fires_above: Strength


@dataclass(frozen=True)
class RefusalClamp(ClampMethod):
    """Wherever any of the n best features by the strict rule fires, the refusal feature is set to -c.

    Paper: n 10, c 500, fires above 0.05, absolute. The harmful features themselves stay as they are.

    Attributes:
        refusal_feature: its id; None takes the lab's stand-in (`stand_in_of`).
    """

    refusal_feature: Feature | None = field(default=None, kw_only=True)

    name, look = "Refusal Clamp", Look("#D55E00", "X")
    source = "Khoriaty et al. 2025, section 3"
    rule, table, tables = "clamp_prime", "refusal_clamp", Grid
    chosen_by = HIGHEST_ALIGNMENT
    actions = ("clamp_refusal",)

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every number of triggers with every strength."""
        sizes = profile.grid_of(cls.table, Grid)
        return cls.over(sizes.n_features, sizes.strengths, fires_above=sizes.fires_above)

    def apply(self, lab: Lab) -> Edited:
        """The clamp of the refusal feature, triggered by the harmful ones."""
        return self._edited(lab, self.set_to(lab, ()), keep_error=True)

    def _edited(self, lab: Lab, value: Values | Add, keep_error: bool) -> Edited:
        triggers = self.chosen(lab)
        feature = lab.once(stand_in_of, triggers) if self.refusal_feature is None else self.refusal_feature
        how: dict[str, Any] = {"fires_above": self.fires_above, "bos": self.bos, "keep_error": keep_error}
        return Edited(lab.model, Clamp(lab.sae, (feature,), value, "any", triggers=triggers, **how))

    def controls(self, feature: int, others: Sequence[int]) -> list[RefusalControl]:
        """The setting, the same one boosting, that without the error term, and others in the feature's place."""
        boosted = f"refusal feature {feature} boosted"
        return [
            self._control(feature, f"refusal feature {feature} lowered"),
            self._control(feature, boosted, boosted=True),
            self._control(feature, f"{boosted}, error term dropped", boosted=True, keep_error=False),
            *[self._control(int(other), f"feature {other} lowered") for other in others],
        ]

    def _control(self, feature: int, called: str, **changed: bool) -> RefusalControl:
        return RefusalControl(**vars(self) | {"refusal_feature": feature, "called": called, **changed})


@dataclass(frozen=True)
class RefusalControl(RefusalClamp):
    """A refusal clamp with one thing changed.

    Attributes:
        called: what was changed, in words.
        boosted: the feature is set to +c in place of -c.
        keep_error: whether the SAE's error term stays, as in `Clamp`.
    """

    called: str = field(default="", kw_only=True)
    boosted: bool = field(default=False, kw_only=True)
    keep_error: bool = field(default=True, kw_only=True)

    @property
    def label(self) -> str:
        """What was changed."""
        return self.called

    def apply(self, lab: Lab) -> Edited:
        """The clamp with its change."""
        value = self.set_to(lab, ())
        return self._edited(lab, -cast(float, value) if self.boosted else value, self.keep_error)


def stand_in_of(lab: Lab, triggers: tuple[int, ...] = ()) -> int:
    """The lab's stand-in for the refusal feature: none of the triggers, nor of those that a setting of the grid has."""
    _, retain = lab.firing_rates()
    most = max(setting.n_features for setting in RefusalClamp.grid(lab.profile))
    forbidden = {*lab.ranked(RefusalClamp.rule, most), *triggers}
    return stand_in(lab.once(answer_rates_of), retain["firing_rate"].to_numpy(), sorted(forbidden))


def answer_rates_of(lab: Lab) -> np.ndarray:
    """`answer_rates` of the lab's known questions."""
    asked, settings = lab.knowledge.asked, lab.profile.model
    rows = prompt_tokens(lab.model.tokenizer, asked, ORIGINAL_ORDER, settings.prompt_format)
    return lab.stage("answer-rates", answer_rates, lab.model, lab.sae, rows, settings.batch_tokens)["rates"]


def answer_rates(model, sae, rows: Rows, batch_tokens: int) -> dict[str, np.ndarray]:
    """How often every feature fires where the model is about to answer: at the last token of prompts, rates [d_sae]."""
    found = token_activations(model, sae, range(sae.cfg.d_sae), rows, batch_tokens)
    return {"rates": np.mean([(row[-1] > 0).numpy() for row in found], axis=0)}


def stand_in(rates: np.ndarray, retain_rate: np.ndarray, forbidden: Sequence[int]) -> int:
    """The feature that takes the refusal feature's part: fires most often where answers begin.

    Of equals it is the one that fires least on retain text, which speaks of that place and of little else.

    Args:
        rates: firing rate of every feature where answers begin.
        retain_rate: the same on retain text.
        forbidden: features that may not be chosen, the harmful ones.
    """
    allowed = np.setdiff1d(np.arange(len(rates)), forbidden)
    return int(allowed[np.lexsort((retain_rate[allowed], -rates[allowed]))[0]])
