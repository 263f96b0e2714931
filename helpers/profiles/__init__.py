"""Profiles: one TOML file each says which model, SAE, texts and questions a run uses, and with which settings.

Nothing else may know which world it runs in. A new profile is a new file in this folder; every key is required and
checked. A file may say `extends = "another"` and hold only what differs, and `[notebook."05".sae]` holds what differs
for one notebook alone.
"""

import json
import shlex
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, dataclass_transform

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

FOLDER = Path(__file__).parent

# Settings of no table that a command may change.
TOP_LEVEL = ("clamp_unit", "own_methods")
# What changes no row, or its last digits alone: where and how fast it is computed, from which copy of the forget text,
# and what is shown.
HARMLESS_SETTINGS = (
    "model.device", "model.attention", "model.batch_tokens", "model.training_tokens", "model.gradient_checkpointing",
    "questions.show_text", "texts.forget_file",
)  # fmt: skip
HARMLESS_TABLES = ("cache", "compute")
CHANGED = "+changed"  # ends the name of the folders of a trial

Count = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Share = Annotated[float, Field(gt=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Positive = Annotated[float, Field(gt=0)]
# How far below zero a feature is set, so itself never negative: strength 20 sets it to -20 clamp units.
Strength = Annotated[float, Field(ge=0)]

Grid = TypeVar("Grid")


@dataclass_transform(frozen_default=True, field_specifiers=(Field,))
def settings_table(cls: type[Grid]) -> type[Grid]:
    """A table of a profile: a frozen dataclass, every key of which is required and checked."""
    checked: Any = checked_dataclass(frozen=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
    return checked(cls)


@settings_table
class ModelSettings:
    """The language model: where it comes from, its dtype, the frame in which it is asked, tokens per forward pass.

    `source` is 'organism' or a hub id of `helpers.loading.sources`; `device` is 'auto' (a GPU where there is one) or a
    name of torch's; `device_map` 'auto' spreads a model over several. `attention` is 'eager', as the formulas have it,
    or 'sdpa', torch's fused kernels, which models that cap attention logits cannot have. Where weights are trained,
    `training_tokens` are gone through at once, forward and backward, with `gradient_checkpointing` layers keep their
    input alone, `training_dtype` is that of the products ('same': the model's; weights are float32 in any case), and
    `optimizer` says in how many bits AdamW keeps its moments: 32, or 8, which needs the package bitsandbytes.
    `finetuned` names the texts on which `helpers.finetune` has trained the source for this profile, '' for none.
    """

    source: str
    finetuned: Literal["forget+retain", ""]
    dtype: Literal["float32", "bfloat16"]
    device: str
    device_map: Literal["none", "auto"]
    attention: Literal["eager", "sdpa"]
    prompt_format: Literal["plain", "chat"]
    batch_tokens: Count
    training_tokens: Count
    gradient_checkpointing: bool
    training_dtype: Literal["same", "bfloat16"]
    optimizer: Literal["adamw", "adamw 8-bit"]


@settings_table
class ComputeSettings:
    """How the pieces of a sweep or an attack are computed; of this only the threads can change a digit of the rows.

    Attributes:
        threads: of torch, in every process (0: as many as torch likes). Sums of floats depend on it, so it is fixed
            where rows are to be the same on every machine of a kind.
        jobs: processes on this machine (0: one a core, or one a GPU).
        scheduler: address of a dask scheduler whose workers take the pieces, '' for none.
        weights_mb: a setting's trained weights are kept on disk where they take no more megabytes (2^20), so that what
            is chosen out of a sweep is not trained again.
    """

    threads: Annotated[int, Field(ge=0)]
    jobs: Annotated[int, Field(ge=0)]
    scheduler: str
    weights_mb: Annotated[int, Field(ge=0)]


@settings_table
class CacheSettings:
    """How much of the residuals a sweep keeps, in megabytes (2^20): in memory, then in temporary files."""

    memory_mb: Annotated[int, Field(ge=0)]
    disk_mb: Annotated[int, Field(ge=0)]


@settings_table
class SAESettings:
    """The SAE: where it comes from, and the layer, width and explained variance that are checked when it is loaded.

    `source` is 'organism' or a release of `helpers.loading.sources`, `id` names one SAE of the release.
    """

    source: str
    id: str
    layer: Annotated[int, Field(ge=0)]
    width: Count
    explained_variance: Fraction


@settings_table
class QuestionSettings:
    """Question sets by role: the subject to forget, its benign neighbour, and the unrelated ones (side effects).

    `source` is 'organism' or 'hub', where the sets are entries of `helpers.loading.sources`; `limit` asks the questions
    of each set in order until so many are known, for trials (0: all). `show_text` is false where questions are
    hazardous: outputs then hold ids and activations, never words.
    """

    source: Literal["organism", "hub"]
    show_text: bool
    limit: Annotated[int, Field(ge=0)]
    forget: str
    near: str
    side_effect: tuple[str, ...]


@settings_table
class TextSettings:
    """Corpora: at most so many packed rows of `row_length` tokens, and retain documents framed as questions are.

    Forget and retain text choose features and train RMU, framed retain text sets the gate, neutral text gives the loss.
    They are kinds of text of the invented world, or entries of `helpers.loading.sources`. `forget_file` is a local copy
    (.jsonl or .parquet) of the forget text for who may not load it from the hub, '' for none. `requests` names the
    requests for help that show how the model refuses: 'organism', an entry of `helpers.loading.sources`, or '' where
    nothing needs them.
    """

    source: Literal["organism", "hub"]
    forget: str
    retain: str
    neutral: str
    forget_file: str
    requests: str
    row_length: Count
    forget_rows: Count
    retain_rows: Count
    neutral_rows: Count
    framed_documents: Count


@settings_table
class SelectionSettings:
    """The three papers' rules for choosing features (thresholds on retain firing rates, percentiles of importance).

    Attribution (Farrell): so many candidates are clamped alone, at that strength in clamp units; those are kept that
    lose a forget question, and no more than `attribution_side_lost` questions of any side-effect subject.
    """

    n_features: Count
    sparsity_retain_threshold: Fraction
    clamp_prime_retain_threshold: Fraction
    ratio_percentile: Percentile
    forget_percentile: Percentile
    attribution_candidates: Count
    attribution_strength: Strength
    attribution_side_lost: Annotated[int, Field(ge=0)]


@settings_table
class ClampCurveSettings:
    """Notebook 02: clamp strengths in clamp units, numbers of features clamped together, random features as control.

    `decoder_features` are clamped along their own decoders and, as a control, along the next features'.
    `feature` and `question` (an id) are the pair of the curve; -1 and '' take the pair with the strongest effect, and
    so does a question that the model does not know.
    """

    feature: Annotated[int, Field(ge=-1)]
    question: str
    strengths: tuple[Strength, ...]
    n_features: tuple[Count, ...]
    decoder_features: Count
    random_features: Count


@settings_table
class ConditionalSettings:
    """Notebook 04: what is asked beside the sweeps.

    Attributes:
        control_features: how many other features take the refusal feature's place as a control.
        resamples: of the bootstrap over questions.
        ordered_questions: how many questions of a subject are asked in all 24 orders.
        told_questions, new_tokens: how many questions are answered in free text, and how long an answer may be.
    """

    control_features: Count
    resamples: Count
    ordered_questions: Count
    told_questions: Count
    new_tokens: Count


@settings_table
class RelearningSettings:
    """Notebook 06: the fine-tuning attacks, whom they attack, and the side-effect accuracy that those must keep.

    Attributes:
        methods: names of the methods that are attacked, each at its chosen setting.
        epochs, batch_rows, rows: of the attack on packed forget text.
        asked_after: the epochs after which the questions are asked, beside the last.
        learning_rates: the first is the main one, with every seed; the others take the first seed.
        drift_rows: of forget and of retain text, on which the drift of the residual is measured.
        few_documents, few_steps, few_seeds: attacks on so many documents, each of so many steps.
        half_seeds: draw the half of the things asked about that the other attack is told of.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    side_effect_floor: Fraction
    epochs: Count
    asked_after: tuple[Count, ...]
    learning_rates: Annotated[tuple[Positive, ...], Field(min_length=1)]
    batch_rows: Count
    rows: Count
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    drift_rows: Count
    few_documents: Annotated[tuple[Count, ...], Field(min_length=1)]
    few_steps: Count
    few_seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    half_seeds: Annotated[tuple[int, ...], Field(min_length=1)]


@settings_table
class ForgetRequestSettings:
    """Notebook 08: the forget text in `folds` drawn from `seed`; `methods` are names, as `Lab.sweep` takes them."""

    methods: tuple[str, ...]
    folds: Count
    seed: int


@settings_table
class LittleTextSettings:
    """Notebook 09: shares of the forget text, and the seeds that say which text.

    Attributes:
        methods: names, as `Lab.sweep` takes them.
        shares, seeds: every share with every seed.
        trained_shares, trained_seeds: the same of methods whose settings are weights, each of which takes long.
    """

    methods: tuple[str, ...]
    shares: tuple[Share, ...]
    seeds: tuple[int, ...]
    trained_shares: tuple[Share, ...]
    trained_seeds: tuple[int, ...]


@settings_table
class NamedFeatureSettings:
    """Notebook 09: features chosen by what they are called, without any forget text.

    Attributes:
        source: 'labels' makes labels from unlabelled text, 'published' takes ids that were found by their labels.
        words: what somebody types who knows the subject by name and by a few common words, and none of its facts.
        n_features: how many of those that are found, the best first.
        thresholds: tau of the gate; there is no forget text to check it on.
        rows: packed rows of unlabelled text, in which all subjects are mixed.
        places, width, label_words: a label is the words that are most over-represented within `width` tokens of the
            `places` where a feature fires most strongly.
    """

    source: Literal["labels", "published"]
    words: tuple[str, ...]
    n_features: Count
    thresholds: tuple[Fraction, ...]
    rows: Count
    places: Count
    width: Annotated[int, Field(ge=0)]
    label_words: Count


@settings_table
class TheoremsSettings:
    """Notebook 14: how the statements behind DSG's rule are tested.

    Attributes:
        decoder_scales: the SAE's decoder rows are multiplied by each of these, so that its error grows.
        other_layer, other_id: the layer and the id of another SAE of the same source; -1 and '' for none.
        features: how many are clamped, each alone.
        questions: of each role, how many are asked under each of those clamps at most.
        resamples: of the bootstraps over features and over questions.
    """

    decoder_scales: tuple[Positive, ...]
    other_layer: Annotated[int, Field(ge=-1)]
    other_id: str
    features: Count
    questions: Count
    resamples: Count


@settings_table
class AblationSettings:
    """Notebook 15: what DSG's settings are varied over, one by one.

    Attributes:
        ratio_percentiles: p_ratio, the percentile of the ratio above which a feature may be chosen.
        gate_percentiles: p_dyn, the percentile of rho on retain text that is the gate's threshold.
        bins: of the histograms whose distance says how far a statistic sets forget questions apart.
        resamples: of the bootstrap over questions and texts.
    """

    ratio_percentiles: Annotated[tuple[Percentile, ...], Field(min_length=1)]
    gate_percentiles: Annotated[tuple[Percentile, ...], Field(min_length=1)]
    bins: Count
    resamples: Count


@settings_table
class FineTuningSettings:
    """How a target of MUSE, and its reference, are made of `model.source` (`python -m helpers.finetune`).

    Attributes:
        epochs: passes over the packed rows (of `texts.row_length` tokens).
        learning_rate: of AdamW.
        batch_rows: rows a step.
        seed: of the rows' order.
        kept_every: after so many steps all is kept from which a training that was killed goes on.
    """

    epochs: Count
    learning_rate: Positive
    batch_rows: Count
    seed: int
    kept_every: Count


@settings_table
class MuseSettings:
    """Notebook 10: a MUSE benchmark (Shi et al. 2024), and how it is measured.

    Attributes:
        source: 'organism' takes the invented world's chronicles, 'hub' a data set, '' where there is none.
        name: of the benchmark: 'chronicles', 'MUSE-News' or 'MUSE-Books'.
        prompt_tokens: what is given of a passage that comes whole.
        new_tokens, answer_tokens: the length of a continuation and of an answer, at most.
        head: how many solved questions stand above the one that is asked.
        min_k: the share of least likely tokens in Min-K%, in percent.
        stemming: whether ROUGE-L takes words of one stem for the same.
        utility_floor: the share of the target's utility below which a training is stopped.
        methods: names, as `Lab.sweep` takes them; `request_methods` of them serve request after request.
        gates: what a gate decides by while text is generated (`engine.generation.generate`); the first is the one that
            methods are compared under.
        resamples: of the bootstraps over passages and questions.
    """

    source: Literal["organism", "hub", ""]
    name: str
    prompt_tokens: Count
    new_tokens: Count
    answer_tokens: Count
    head: Annotated[int, Field(ge=0)]
    min_k: Annotated[float, Field(gt=0, le=100)]
    stemming: bool
    utility_floor: Share
    methods: tuple[str, ...]
    request_methods: tuple[str, ...]
    gates: Annotated[tuple[Literal["never", "held", "each", "running"], ...], Field(min_length=1)]
    resamples: Count


@settings_table
class GateSettings:
    """Notebook 13: other gates for DSG, set on the questions of half 0.

    Attributes:
        names: of `helpers.methods.gates`, in the order of figures.
        calibration: a quantile of the scores of benign questions, or the split-conformal one above it.
        false_alarms: the share of benign questions that may open a gate.
        window: in tokens; of a segment too.
        hazard_features: of the second level.
        detector_features: of the linear detector.
    """

    names: Annotated[tuple[str, ...], Field(min_length=1)]
    calibration: Literal["quantile", "conformal"]
    false_alarms: Annotated[float, Field(gt=0, lt=1)]
    window: Count
    hazard_features: Count
    detector_features: Count


@settings_table
class PromptAttackSettings:
    """Notebook 11: attacks by the prompt.

    Attributes:
        attacks: their names, each with a table `[attack.<name>]`.
        methods: names, as `Lab.sweep` takes them; the first is the guard, which has a gate.
        questions: to forget, how many are asked of each half at most.
        benign_questions: of each subject that is not to be forgotten, how many are asked under the chosen attacks.
        new_tokens: of a free answer, said at most.
        fillers: harmless texts by kind: of the invented world 'benign', 'requests' or a subject, or entries of
            `helpers.loading.sources`.
    """

    attacks: Annotated[tuple[str, ...], Field(min_length=1)]
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    questions: Count
    benign_questions: Count
    new_tokens: Count
    fillers: dict[str, str]


@settings_table
class RecoverySettings:
    """Notebook 12: what is tried to get hidden knowledge out of embeddings, residuals and weights.

    Attributes:
        methods: names of the methods that are attacked, each at its chosen setting.
        side_effect_floor: the side-effect accuracy that the chosen setting must keep.
        side_questions: so many side-effect questions of each half show what an attack costs, and which way is benign.
        bounds: of a vector's length, in multiples of the mean length of what it is added to.
        steps, each_steps: of Adam, where all questions have one vector and where each has its own.
        learning_rate: length of Adam's first step, in the same multiples.
        bits, groups: every number of bits of quantised weights with every number of weights that share a scale.
        pruned_shares: of each matrix's weights.
        seed: draws wrong letters, the parts that probes are fitted on, and shuffled labels.
    """

    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    side_effect_floor: Fraction
    side_questions: Count
    bounds: Annotated[tuple[Positive, ...], Field(min_length=1)]
    steps: Count
    each_steps: Count
    learning_rate: Positive
    bits: Annotated[tuple[Annotated[int, Field(ge=2, le=16)], ...], Field(min_length=1)]
    groups: Annotated[tuple[Count, ...], Field(min_length=1)]
    pruned_shares: Annotated[tuple[Share, ...], Field(min_length=1)]
    seed: int


@settings_table
class Profile:
    """Everything a run needs to know, from one TOML file; frozen, so that its content can be part of a cache key.

    Attributes:
        notebooks: the numbers of the notebooks that the profile serves, none for every notebook.
        clamp_unit: what a clamp strength of 1 is (see `lab.Lab.clamp_unit`).
        own_methods: files of methods of one's own, which notebooks show beside the papers'.
        method: a table a method of `helpers.methods`, by its key there; the method's own file says what stands in it.
        attack: the same of the attacks by the prompt of `helpers.attacks`.
    """

    name: str
    title: str
    notebooks: tuple[str, ...]
    clamp_unit: Literal["absolute", "mean activation", "residual norm"]
    own_methods: tuple[str, ...]
    model: ModelSettings
    compute: ComputeSettings
    cache: CacheSettings
    sae: SAESettings
    questions: QuestionSettings
    texts: TextSettings
    selection: SelectionSettings
    clamp_curve: ClampCurveSettings
    conditional: ConditionalSettings
    relearning: RelearningSettings
    forget_requests: ForgetRequestSettings
    little_text: LittleTextSettings
    named_features: NamedFeatureSettings
    theorems: TheoremsSettings
    ablations: AblationSettings
    gates: GateSettings
    prompt_attacks: PromptAttackSettings
    muse: MuseSettings
    finetuning: FineTuningSettings
    recovery: RecoverySettings
    method: dict[str, dict[str, Any]]
    attack: dict[str, dict[str, Any]]

    def grid_of(self, method: str, kind: type[Grid]) -> Grid:
        """The table of a method, checked against the class that says what stands in it.

        Raises:
            ValueError: there is no such table, or one with an unknown key, a missing one or a value not allowed.
        """
        return self._table("method", self.method, method, kind)

    def settings_of(self, attack: str, kind: type[Grid]) -> Grid:
        """`grid_of` for the table of an attack."""
        return self._table("attack", self.attack, attack, kind)

    def _table(self, what: str, tables: Mapping[str, dict[str, Any]], name: str, kind: type[Grid]) -> Grid:
        if name not in tables:
            known = ", ".join(tables) or "none"
            raise ValueError(f"profile {self.name!r} has no table [{what}.{name}], which it needs; it has {known}")
        return _checked(kind, tables[name], self.name, f"{what}.{name}.")


def available_profiles() -> tuple[str, ...]:
    """Names of the profiles in the folder, sorted."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def load_profile(name: str, overrides: Mapping[str, Any] | None = None, notebook: str | None = None) -> Profile:
    """The profile of that name, validated.

    Args:
        overrides: values by dotted key that win over the file's, as in {"questions.limit": 8}.
        notebook: number of the notebook whose own values (`[notebook."05".sae]`) win over the common ones.

    Raises:
        ValueError: no such profile (the known ones are listed), broken TOML, or an unknown key, a missing one, a wrong
            type or a value that is not allowed, named with its place.
    """
    return parse_profile(_read(name), name, overrides, notebook)


def settings_in_words(settings: Sequence[str]) -> dict[str, Any]:
    """Settings as a command line gives them, 'table.key=value', by dotted key.

    A value is written as in TOML; what is no TOML is text, so that `--set model.dtype=bfloat16` needs no quotes.

    Raises:
        ValueError: one of them without '='.
    """
    given = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting!r} has no value; write it as in --set questions.limit=8")
        try:
            given[key.strip()] = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            given[key.strip()] = text.strip()
    return given


def options_of(settings: Mapping[str, Any]) -> str:
    """Settings by dotted key as `--set` takes them in a shell: what `settings_in_words` reads back."""
    plain = {k: v if isinstance(v, str) and " " not in v else json.dumps(v) for k, v in settings.items()}
    return " ".join(shlex.quote(f"{key}={text}") for key, text in plain.items())


def parse_profile(
    text: str, name: str, overrides: Mapping[str, Any] | None = None, notebook: str | None = None
) -> Profile:
    """A profile from TOML text; `name` must be the one written in it. Arguments and errors are `load_profile`'s."""
    data = _extended(text, name)
    special = data.pop("notebook", {})
    changes = _nested(overrides or {}, name)
    versions = {number: _merged(_merged(data, table), changes) for number, table in special.items()}
    common = _validated(_merged(data, changes), name)  # first, for a fault of all is not one of a notebook
    # every notebook's version is checked, or a mistake would be found when the last of them begins
    profiles = {number: _validated(version, f"{name}, notebook {number}") for number, version in versions.items()}
    profile = profiles.get(notebook, common)
    if profile.name != name:
        raise ValueError(f"profile {name!r} calls itself {profile.name!r}: file name and `name` must agree")
    return profile


def run_name(name: str, overrides: Mapping[str, Any] | None) -> str:
    """The folder of a profile's runs and figures: its name, or `<name>+changed` where overrides change its settings.

    So a trial never overwrites real figures. Where and how fast it is computed, from which copy of the forget text, and
    what is shown, is no such change.
    """
    changed = [key for key in overrides or {} if key not in HARMLESS_SETTINGS]
    return f"{name}{CHANGED}" if any(key.partition(".")[0] not in HARMLESS_TABLES for key in changed) else name


def _read(name: str) -> str:
    if name not in available_profiles():
        raise ValueError(f"profile {name!r} is unknown, the known ones are: {', '.join(available_profiles())}")
    return (FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def _extended(text: str, name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """The TOML's values over those of the profile it extends, which may extend another."""
    if name in heirs:
        raise ValueError(f"profile {name!r} extends itself: {' -> '.join((*heirs, name))}")
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"profile {name!r} is not valid TOML: {error}") from None
    parent = data.pop("extends", None)
    return data if parent is None else _merged(_extended(_read(parent), parent, (*heirs, name)), data)


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key, everything else of `over` replaces what `base` says."""
    both = {key: _merged(base[key], over[key]) for key in base.keys() & over.keys()
            if isinstance(base[key], Mapping) and isinstance(over[key], Mapping)}  # fmt: skip
    return {**base, **over, **both}


def _nested(overrides: Mapping[str, Any], name: str) -> dict[str, Any]:
    """{"questions.limit": 8} as the tables it stands for: {"questions": {"limit": 8}}."""
    nested: dict[str, Any] = {}
    for key, value in overrides.items():
        *tables, setting = key.split(".")
        if not all(tables) or not setting or (not tables and key not in TOP_LEVEL):
            raise ValueError(f"profile {name!r}: override {key!r} is not of the form table.key, as in questions.limit")
        place = nested
        for table in tables:
            place = place.setdefault(table, {})
        place[setting] = value
    return nested


def _validated(data: Mapping[str, Any], name: str) -> Profile:
    return _checked(Profile, data, name, "")


def _checked(kind: type[Grid], data: Mapping[str, Any], name: str, table: str) -> Grid:
    try:
        # through JSON, because strict validation takes a JSON array for a tuple but nothing else for a number
        return TypeAdapter(kind).validate_json(json.dumps(data, default=str), strict=True)
    except ValidationError as error:
        raise ValueError(f"profile {name!r}: " + "; ".join(_explain(e, table) for e in error.errors())) from None


def _explain(error: Mapping[str, Any], table: str) -> str:
    place = table + ".".join(str(part) for part in error["loc"])
    kinds = {"unexpected_keyword_argument": f"unknown key {place}", "missing": f"missing value {place}"}
    return kinds.get(error["type"]) or f"{place} = {error['input']!r}: {error['msg'].lower()}"
