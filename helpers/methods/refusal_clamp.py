"""Khoriaty et al. 2025, refusal clamp: where a harmful feature fires, set the refusal feature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from helpers.engine.edited import Edited
from helpers.engine.features import firing_rates_from
from helpers.engine.generation import answers
from helpers.engine.interventions import Add, Clamp
from helpers.methods.clamping import ClampMethod, Feature, Values
from helpers.methods.clamping import Grid as ClampGrid
from helpers.methods.look import Look
from helpers.methods.method import HIGHEST_ALIGNMENT
from helpers.profiles import Count, Profile, Strength, settings_table
from helpers.text.questions import encode_texts, request_text

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid(ClampGrid):
    """The method's table in a profile.

    Attributes:
        fires_above: the activation above which a harmful feature triggers.
        answer_tokens: how many tokens of an answer to a request count, by which the refusal feature is found.
    """

    fires_above: Strength
    answer_tokens: Count


@dataclass(frozen=True)
class RefusalClamp(ClampMethod):
    """Wherever any of the n best features by the strict rule fires, the refusal feature is set to -c.

    Paper: n 10, c 500, fires above 0.05, absolute. The harmful features themselves stay as they are.

    Attributes:
        refusal_feature: its id; None takes the one most often active on answers to harmful requests
            (`refusal_feature_of`).
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
        feature = lab.once(refusal_feature_of, triggers) if self.refusal_feature is None else self.refusal_feature
        how: dict[str, Any] = {"fires_above": self.fires_above, "bos": self.bos, "keep_error": keep_error}
        return Edited(lab.model, Clamp(lab.sae, (feature,), value, "any", triggers=triggers, **how))

    def controls(self, feature: int, contrast: int, others: Sequence[int]) -> list[RefusalControl]:
        """The setting with one thing changed at a time.

        Args:
            feature: the refusal feature: lowered, as the setting has it, boosted, and boosted without the error term.
            contrast: the feature chosen by contrast (`by_contrast`), in its place.
            others: more features, each in its place.
        """
        feature, contrast = int(feature), int(contrast)
        boosted = f"refusal feature {feature} boosted"
        return [
            self._control(feature, f"refusal feature {feature} lowered"),
            self._control(feature, boosted, boosted=True),
            self._control(feature, f"{boosted}, error term dropped", boosted=True, keep_error=False),
            self._control(contrast, f"contrast feature {contrast} lowered"),
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


# --- which feature ----------------------------------------------------------------------------------------------------


def refusal_feature_of(lab: Lab, triggers: tuple[int, ...] = ()) -> int:
    """The lab's refusal feature: the first of the candidates by rate."""
    return int(candidates_of(lab, triggers)[0][0])


def candidates_of(lab: Lab, triggers: tuple[int, ...] = ()) -> tuple[np.ndarray, np.ndarray]:
    """The lab's candidates by rate and by contrast; no trigger is one, neither these nor any that the grid has."""
    most = max(setting.n_features for setting in RefusalClamp.grid(lab.profile))
    forbidden = sorted({*lab.ranked(RefusalClamp.rule, most), *triggers})
    harmful, benign = (answers["rates"] for answers in lab.once(answers_of).values())
    return by_rate(harmful, benign, forbidden), by_contrast(harmful, benign, forbidden)


def answers_of(lab: Lab) -> dict[str, dict[str, np.ndarray]]:
    """`answer_statistics` of the lab's unedited model under 'harmful' and 'benign' requests."""
    requests, settings, tokenizer = lab.requests, lab.profile.model, lab.model.tokenizer
    sizes = lab.profile.grid_of(RefusalClamp.table, Grid)
    how = (requests.refusals, sizes.answer_tokens, settings.batch_tokens)
    found = {}
    for kind, texts in (("harmful", requests.harmful), ("benign", requests.benign)):
        framed = [request_text(tokenizer, text, settings.prompt_format) for text in texts]
        prompts = encode_texts(tokenizer, framed)
        found[kind] = lab.stage("answers", answer_statistics, lab.model, lab.sae, prompts, *how)
    return found


def answer_statistics(
    model, sae, prompts: Sequence[Sequence[int]], refusals: Sequence[str], new_tokens: int, batch_tokens: int
) -> dict[str, np.ndarray]:
    """What the unedited model's greedy answers are, in numbers; their words are kept nowhere.

    Returns:
        rates [d_sae]: share of the answers' tokens at which each feature fires, prompts and special tokens left out;
        refused [prompts]: whether the answer is a refusal; tokens [prompts]: how many it has.

    Raises:
        ValueError: the model answers no prompt with a single token.
    """
    said = answers(model, prompts, new_tokens, batch_tokens)
    if not any(said):
        raise ValueError(
            f"the model answers none of {len(prompts)} requests, so no feature is active on answers: set "
            "refusal_feature by hand, or name other texts.requests"
        )
    rows = [[*prompt, *answer] for prompt, answer in zip(prompts, said, strict=True)]
    return {
        "rates": firing_rates_from(model, sae, rows, [len(prompt) for prompt in prompts], batch_tokens),
        "refused": np.array([refuses(text, refusals) for text in model.tokenizer.batch_decode(said)]),
        "tokens": np.array([len(answer) for answer in said]),
    }


def refuses(answer: str, refusals: Sequence[str]) -> bool:
    """Whether an answer holds one of the wordings of a refusal, in whatever case and with either apostrophe."""
    told = answer.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").lower()
    return any(words.lower() in told for words in refusals)


def by_rate(harmful: np.ndarray, benign: np.ndarray, forbidden: Sequence[int]) -> np.ndarray:
    """Features by how often they fire on answers to harmful requests, as the paper chooses.

    Of equals the one that fires less on answers to benign requests comes first, then the lower id.

    Args:
        harmful: rate of every feature on answers to harmful requests.
        benign: the same on answers to benign ones.
        forbidden: features that may not be chosen, the harmful ones.

    Returns:
        ids of all other features, best first.
    """
    allowed = np.setdiff1d(np.arange(len(harmful)), forbidden)
    return allowed[np.lexsort((benign[allowed], -harmful[allowed]))]


def by_contrast(harmful: np.ndarray, benign: np.ndarray, forbidden: Sequence[int]) -> np.ndarray:
    """Features by how much more often they fire on answers to harmful requests than on those to benign ones.

    A feature that fires in every answer comes first by rate, but not here. Arguments and result are `by_rate`'s.
    """
    allowed = np.setdiff1d(np.arange(len(harmful)), forbidden)
    return allowed[np.argsort((benign - harmful)[allowed], kind="stable")]
