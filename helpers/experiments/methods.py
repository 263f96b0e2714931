"""What a method's name means under a profile: one edited model, chosen as in the notebooks unless settings say it."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Annotated, Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as checked_dataclass
from torch import Tensor

from helpers.engine.interventions import Add, Clamp, Scale
from helpers.experiments.bench import Bench, clamp_unit, known, open_exam, statistics
from helpers.experiments.conditional import add_grid, aligned_points, answer_rates, prime_grid, refusal_grid, stand_in
from helpers.experiments.discovery import selections
from helpers.experiments.exam import ClampSetting, Exam, score_settings
from helpers.experiments.guardrail import dsg_grid, gate_thresholds
from helpers.experiments.pareto import choose, clamp_grid, rmu_scores, rmu_settings
from helpers.lab.run import Run
from helpers.measures.metrics import SIDE_EFFECT_FLOOR
from helpers.methods.rmu import train_rmu, with_weights
from helpers.profiles import Count, Fraction, Positive, Strength

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
        proportional: whether each feature gets its own share of the strength; None means the same for all.
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
    proportional: bool | None = None
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
    "clamp_prime": (*_OF_A_CLAMP, "proportional"),
    "dsg": (*_OF_A_CLAMP, "threshold"),
    "refusal": (*_OF_A_CLAMP, "refusal_feature"),
    "add": tuple(name for name in _OF_A_CLAMP if name != "fires_above"),
    "rmu": ("layer", "steering", "alpha"),
}
# Of each clamp: the rule that ranks its features, as `selections` names it, and the notebooks' stage of its grid.
RULES = {
    "clamp": ("sparsity", "static-clamp"),
    "clamp_prime": ("clamp_prime", "conditional"),
    "dsg": ("importance", "DSG"),
    "refusal": ("clamp_prime", "refusal"),
    "add": ("clamp_prime", "unconditional"),
}
KHORIATY = ("clamp_prime", "refusal", "add")  # chosen by alignment, as in notebook 04
AS_SET = "as set"


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
        ValueError: see `check_names`; or two settings contradict each other.
    """
    given = settings.given()
    check_names(method, given)
    for one, other in (("strength", "value"), ("proportional", "value"), ("features", "n_features")):
        if one in given and other in given:
            raise ValueError(f"{one} and {other} are both set, and each says what the other does: give one of them")


def edited(run: Run, lab: Bench, method: str, settings: Settings) -> Edited:
    """The model under a method.

    What is not set is chosen as in notebooks 03 to 05: features by the method's rule, clamp unit, gate threshold and
    refusal feature from the profile, and of the profile's grid the setting that does best on half of the known
    questions.

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
    chosen, rule = candidates[0], AS_SET
    if len(candidates) > 1:
        scores = run.stage(RULES[method][1], score_settings, _exam(run, lab), lab.sae, candidates)
        best, rule = _most_aligned(scores) if method in KHORIATY else choose(scores, SIDE_EFFECT_FLOOR)
        chosen = candidates[best]
    clamp = chosen.clamp(lab.sae)
    return Edited(lab.model, clamp, {"method": method, "chosen": rule, **clamp_facts(clamp)})


def _exam(run: Run, lab: Bench) -> Exam:
    return open_exam(run, lab, known(run, lab))


def _most_aligned(scores: pd.DataFrame) -> tuple[int, str]:
    return int(aligned_points(scores, half=0)["alignment"].idxmax()), "highest alignment"


def _candidates(run: Run, lab: Bench, method: str, settings: Settings) -> Sequence[ClampSetting | Variant]:
    """The profile's grid of a method, narrowed to what is set."""
    profile = run.profile
    sizes = {"clamp": profile.pareto, "dsg": profile.guardrail}.get(method, profile.conditional)
    strengths = {"refusal": "refusal_strengths", "add": "add_strengths"}.get(method, "strengths")
    numbers = _only(settings.n_features if settings.features is None else len(settings.features), sizes.n_features)
    # a value set by hand takes the place of what a strength would make
    strength = settings.strength if settings.value is None else 0.0
    narrowed = {"n_features": numbers, strengths: _only(strength, getattr(sizes, strengths))}
    grid = _grid(run, lab, method, settings, replace(sizes, **narrowed))
    changes = {name: value for name, value in settings.given().items() if name in ("value", "fires_above", "bos")}
    if method == "add" and settings.value is not None:
        changes["value"] = Add(settings.value)
    return [Variant(setting, changes) for setting in grid] if changes else grid


def _only(value: Any, otherwise: tuple) -> tuple:
    return otherwise if value is None else (value,)


def _grid(run: Run, lab: Bench, method: str, settings: Settings, sizes: Any) -> list[ClampSetting]:
    by = _ranking(run, lab, method, settings, max(sizes.n_features))
    match method:
        case "clamp":
            return clamp_grid("static clamp", by.features, sizes.n_features, sizes.strengths, by.unit)
        case "clamp_prime":
            grid = prime_grid(by.features, by.forget_rate, sizes, by.unit)
            return [s for s in grid if (s.weights is not None) == bool(settings.proportional)]
        case "add":
            return add_grid(by.features, sizes, by.unit)
        case "refusal":
            return refusal_grid(by.features, _refusal_feature(run, lab, settings, by.features), sizes, by.unit)
        case _:
            taus = _thresholds(run, lab, by.features, sizes.n_features, settings.threshold)
            return dsg_grid(by.features, taus, sizes.strengths, by.unit)


class _Ranking(NamedTuple):
    features: np.ndarray
    unit: float
    forget_rate: np.ndarray


def _ranking(run: Run, lab: Bench, method: str, settings: Settings, n: int) -> _Ranking:
    """Features, best first, the clamp unit, and firing rates; no statistics are taken where all is set by hand."""
    if settings.features is not None and settings.value is not None:
        return _Ranking(np.array(settings.features), 1.0, np.ones(lab.sae.cfg.d_sae))
    profile = run.profile
    forget, retain = statistics(run, lab)
    of_unit = selections(forget, retain, profile.selection, profile.selection.n_features)["sparsity"]
    unit, rate = clamp_unit(profile, forget, of_unit), forget["firing_rate"].to_numpy()
    if settings.features is not None:
        return _Ranking(np.array(settings.features), unit, rate)
    return _Ranking(selections(forget, retain, profile.selection, n)[RULES[method][0]], unit, rate)


def _refusal_feature(run: Run, lab: Bench, settings: Settings, harmful: np.ndarray) -> int:
    if settings.refusal_feature is not None:
        return settings.refusal_feature
    forget, retain = statistics(run, lab)
    n = max(run.profile.conditional.n_features)
    forbidden = [*selections(forget, retain, run.profile.selection, n)["clamp_prime"], *harmful]
    return stand_in(answer_rates(_exam(run, lab), lab.sae), retain["firing_rate"].to_numpy(), forbidden)


def _thresholds(
    run: Run, lab: Bench, ranked: np.ndarray, numbers: Sequence[int], threshold: float | None
) -> dict[str, float]:
    if threshold is not None:
        return {str(n): threshold for n in numbers}
    texts = (lab.framed_retain, run.profile.guardrail.gate_percentile, run.profile.model.batch_tokens)
    return run.stage("thresholds", gate_thresholds, lab.model, lab.sae, ranked, tuple(numbers), *texts)


def _unlearned(run: Run, lab: Bench, settings: Settings) -> Edited:
    grid, rows = run.profile.rmu, (lab.forget_rows, lab.retain_rows)
    by_hand = (("layers", settings.layer), ("steering", settings.steering), ("alphas", settings.alpha))
    narrowed = {name: _only(value, getattr(grid, name)) for name, value in by_hand}
    candidates = rmu_settings(replace(grid, **narrowed), seed=0)
    chosen, rule = candidates[0], AS_SET
    if len(candidates) > 1:
        best, rule = choose(run.stage("RMU", rmu_scores, _exam(run, lab), *rows, candidates), SIDE_EFFECT_FLOOR)
        chosen = candidates[best]
    weights = run.stage("RMU-weights", train_rmu, lab.model, *rows, chosen)
    return Edited(with_weights(lab.model, weights), None, {"method": "rmu", "chosen": rule, **asdict(chosen)})


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
        "keep_error": clamp.keep_error,
    }


def _plain(value: Any) -> Any:
    if isinstance(value, Add | Scale):
        return {type(value).__name__.lower(): _plain(next(iter(vars(value).values())))}
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) else value
