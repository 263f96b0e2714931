"""What a method's name means under a profile: one edited model, chosen as in the notebooks unless settings say it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from helpers.baselines.rmu import train_rmu, with_weights
from helpers.experiments.bench import Bench, clamp_unit, known, open_exam, statistics
from helpers.experiments.discovery import selections
from helpers.experiments.exam import ClampSetting, score_settings
from helpers.experiments.guardrail import dsg_grid, gate_thresholds
from helpers.experiments.pareto import choose, clamp_grid, rmu_scores, rmu_settings
from helpers.interventions import Add, Clamp, Scale
from helpers.metrics import SIDE_EFFECT_FLOOR
from helpers.profiles import Count, Fraction, Positive, Strength
from helpers.run import Run

REFUSAL_FIRES_ABOVE = 0.05  # Khoriaty et al.

Id = Annotated[int, Field(ge=0)]


@checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class Settings:
    """What is set by hand; None leaves it to the profile and to the choice that the notebooks make.

    Attributes:
        features: ids in place of those that the method's rule selects.
        n_features: how many of the rule's best.
        strength: c in clamp units: features are set to -strength * unit (added, for 'add').
        value: the same in units of activation, with its sign: one number, or one per feature.
        fires_above: a feature fires where its activation is larger than this.
        bos: whether BOS is touched too.
        threshold: of DSG's gate.
        refusal_feature: the feature that Refusal Clamp sets.
        layer, steering, alpha: of RMU, as in `RMU`.
    """

    features: tuple[Id, ...] | None = None
    n_features: Count | None = None
    strength: Strength | None = None
    value: float | tuple[float, ...] | None = None
    fires_above: Annotated[float, Field(ge=0)] | None = None
    bos: bool | None = None
    threshold: Fraction | None = None
    refusal_feature: Id | None = None
    layer: Id | None = None
    steering: Positive | None = None
    alpha: Positive | None = None

    def given(self) -> dict[str, Any]:
        """Those that are set."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) is not None}


@dataclass(frozen=True)
class Edited:
    """A method in place: the model to ask, the intervention on it if there is one, and what it is, as JSON."""

    model: Any
    intervention: Clamp | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A clamp setting with some fields of its Clamp replaced; to be scored like any other setting."""

    base: ClampSetting
    changes: dict[str, Any]

    def clamp(self, sae) -> Clamp:
        """The intervention itself."""
        return replace(self.base.clamp(sae), **self.changes)

    def labels(self) -> dict[str, Any]:
        """The columns that tell this setting's rows from others."""
        return self.base.labels()


_OF_A_CLAMP = ("features", "n_features", "strength", "value", "fires_above", "bos")
# What may be set by hand, by method.
METHODS: dict[str, tuple[str, ...]] = {
    "none": (),
    "clamp": _OF_A_CLAMP,
    "clamp_prime": _OF_A_CLAMP,
    "dsg": (*_OF_A_CLAMP, "threshold"),
    "refusal": (*_OF_A_CLAMP, "refusal_feature"),
    "add": tuple(name for name in _OF_A_CLAMP if name != "fires_above"),
    "rmu": ("layer", "steering", "alpha"),
}
# The name and the rule that selects features of each clamp in the notebooks; stages are shared with them by name.
RULES = {
    "clamp": ("static clamp", "sparsity"),
    "clamp_prime": ("Clamp Prime", "clamp_prime"),
    "dsg": ("DSG", "importance"),
    "refusal": ("Refusal Clamp", "clamp_prime"),
    "add": ("add", "clamp_prime"),
}


def check_names(method: str, names: Iterable[str]) -> None:
    """Make sure that the method is one and takes the settings of these names.

    Raises:
        ValueError: an unknown method, or a setting that it does not take; the allowed ones are listed.
    """
    if method not in METHODS:
        raise ValueError(f"method {method!r} is unknown, the known ones are: {', '.join(METHODS)}")
    unknown, allowed = [name for name in names if name not in METHODS[method]], METHODS[method]
    if unknown:
        settings = f"the settings {', '.join(allowed)}" if allowed else "no settings"
        raise ValueError(f"method {method!r} takes {settings}, not {', '.join(map(repr, unknown))}")


def check_settings(method: str, settings: Settings) -> None:
    """Make sure that a method takes these settings, and that they say one thing.

    Raises:
        ValueError: see `check_names`; or two settings say the same, or the refusal feature is missing.
    """
    given = settings.given()
    check_names(method, given)
    for one, other in (("strength", "value"), ("features", "n_features")):
        if one in given and other in given:
            raise ValueError(f"{one} and {other} are both set, and say the same: give one of them")
    if method == "refusal" and "refusal_feature" not in given:
        raise ValueError("method 'refusal' needs a refusal_feature in its settings: no profile names one")


def edited(run: Run, lab: Bench, method: str, settings: Settings) -> Edited:
    """The model under a method.

    What is not set is chosen as in notebooks 03 and 05: features by the method's rule, unit and gate threshold from the
    profile, and of the grid that is left the setting that `choose` takes on half of the known questions.

    Raises:
        ValueError: see `check_settings`; or the rule finds too few features.
    """
    check_settings(method, settings)
    if method == "none":
        return Edited(lab.model, None, {"method": "none"})
    if method == "rmu":
        return _unlearned(run, lab, settings)
    return _clamped(run, lab, method, settings)


def _clamped(run: Run, lab: Bench, method: str, settings: Settings) -> Edited:
    candidates = _candidates(run, lab, method, settings)
    if len(candidates) == 1:
        chosen, rule = candidates[0], "as set"
    else:
        name = RULES[method][0].replace(" ", "-")
        chosen, rule = _best(run, lab, name, lambda exam: (score_settings, exam, lab.sae, candidates), candidates)
    clamp = chosen.clamp(lab.sae)
    return Edited(lab.model, clamp, {"method": method, "chosen": rule, **clamp_facts(clamp)})


def _candidates(run: Run, lab: Bench, method: str, settings: Settings) -> Sequence[ClampSetting | Variant]:
    profile = run.profile
    sizes = profile.guardrail if method == "dsg" else profile.pareto
    by_hand = settings.features is not None
    numbers = (len(settings.features),) if by_hand else _only(settings.n_features, sizes.n_features)
    # a value set by hand replaces what a strength would make of it
    strengths = _only(0.0 if settings.value is not None else settings.strength, sizes.strengths)
    ranked, unit = _ranking(run, lab, method, settings, max(numbers))
    if method == "dsg":
        taus = _thresholds(run, lab, ranked, numbers, settings.threshold)
        grid = dsg_grid(ranked, taus, strengths, unit)
    else:
        grid = clamp_grid(RULES[method][0], ranked, numbers, strengths, unit)
    changes = [_changes(method, setting, settings) for setting in grid]
    return [Variant(s, c) if c else s for s, c in zip(grid, changes, strict=True)]


def _only(value: Any, otherwise: tuple) -> tuple:
    return otherwise if value is None else (value,)


def _ranking(run: Run, lab: Bench, method: str, settings: Settings, n: int) -> tuple[np.ndarray, float]:
    """Features, best first, and the clamp unit; no statistics are taken where neither needs them."""
    if settings.features is not None and settings.value is not None:
        return np.array(settings.features), 1.0
    profile = run.profile
    forget, retain = statistics(run, lab)
    of_unit = selections(forget, retain, profile.selection, profile.selection.n_features)["sparsity"]
    unit = clamp_unit(profile, forget, of_unit)
    if settings.features is not None:
        return np.array(settings.features), unit
    return selections(forget, retain, profile.selection, n)[RULES[method][1]], unit


def _thresholds(
    run: Run, lab: Bench, ranked: np.ndarray, numbers: Sequence[int], threshold: float | None
) -> dict[str, float]:
    if threshold is not None:
        return {str(n): threshold for n in numbers}
    percentile, tokens = run.profile.guardrail.gate_percentile, run.profile.model.batch_tokens
    texts = (lab.framed_retain, percentile, tokens)
    return run.stage("thresholds", gate_thresholds, lab.model, lab.sae, ranked, tuple(numbers), *texts)


def _changes(method: str, setting: ClampSetting, settings: Settings) -> dict[str, Any]:
    changes = {name: value for name, value in settings.given().items() if name in ("value", "fires_above", "bos")}
    if method == "refusal":
        firing = {"triggers": setting.features, "where": "any", "fires_above": REFUSAL_FIRES_ABOVE}
        return {"features": (settings.refusal_feature,), **firing, **changes}
    if method == "add":
        amount = changes.get("value", -setting.strength * setting.unit)
        return {**changes, "value": Add(amount), "where": "always"}
    return changes


def _unlearned(run: Run, lab: Bench, settings: Settings) -> Edited:
    grid = run.profile.rmu
    narrowed = {
        plural: _only(value, getattr(grid, plural))
        for plural, value in (("layers", settings.layer), ("steering", settings.steering), ("alphas", settings.alpha))
    }
    candidates, rows = rmu_settings(replace(grid, **narrowed), seed=0), (lab.forget_rows, lab.retain_rows)
    chosen, rule = candidates[0], "as set"
    if len(candidates) > 1:
        chosen, rule = _best(run, lab, "RMU", lambda exam: (rmu_scores, exam, *rows, candidates), candidates)
    weights = run.stage("RMU-weights", train_rmu, lab.model, *rows, chosen)
    return Edited(with_weights(lab.model, weights), None, {"method": "rmu", "chosen": rule, **asdict(chosen)})


def _best(run: Run, lab: Bench, name: str, call: Callable[..., tuple], candidates: Sequence) -> tuple[Any, str]:
    scores: pd.DataFrame = run.stage(name, *call(open_exam(run, lab, known(run, lab))))
    best, rule = choose(scores, SIDE_EFFECT_FLOOR)
    return candidates[best], rule


def clamp_facts(clamp: Clamp) -> dict[str, Any]:
    """An intervention as JSON: everything but the SAE's weights."""
    return {
        "layer": clamp.layer,
        "features": _plain(clamp.features),
        "value": _plain(clamp.value),
        "where": clamp.where,
        "gate": None if clamp.gate is None else clamp.gate.threshold,
        "decoders": _plain(clamp.decoders),
        "triggers": _plain(clamp.triggers),
        "fires_above": clamp.fires_above,
        "bos": clamp.bos,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Add | Scale):
        return {type(value).__name__.lower(): _plain(next(iter(vars(value).values())))}
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) else value
