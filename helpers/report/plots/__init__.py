"""Every picture, drawn from a table and nothing else: the CSV beside a figure is enough to draw it again.

One file a kind of figure, every drawing function also by its name here, which is how a figure is redrawn; what they
share is in `style`. One colour and one marker a method throughout, axes in words with the better direction, chance as
a line, intervals where there are counts; at most 9 inches wide, words of 8 points or more.
"""

from helpers.report.plots.ablations import (
    gate_percentiles,
    ratio_percentiles,
    rho_or_counts,
    static_or_dynamic,
    strength_grid,
)
from helpers.report.plots.answers import letters
from helpers.report.plots.attacks import (
    few_documents,
    other_half,
    relearned_once,
    relearning,
    relearning_rates,
    residual_drift,
)
from helpers.report.plots.chosen import alignments, held_out, protocols
from helpers.report.plots.clamps import all_questions, carriers, clamp_curve, conditional_sweeps, controls, decoders
from helpers.report.plots.features import (
    activation_distribution,
    attribution,
    firing_rates,
    highlighted_question,
    selection_rules,
    strongest_passages,
)
from helpers.report.plots.forget_sets import at_once, features_by_name, forget_requests, little_text
from helpers.report.plots.gates import gate_cost, rho
from helpers.report.plots.guarded_answers import guarded_answers
from helpers.report.plots.mended_gates import (
    calibrations,
    clamp_units,
    detector_taught,
    gate_choice,
    gates_attacked,
    padded_alarms,
)
from helpers.report.plots.muse import muse_criteria, muse_gates, muse_requests, muse_training
from helpers.report.plots.organism import long_prompts, quality, training
from helpers.report.plots.prompt_attacks import attacked_benign, diluted_gate, dilution, prompt_attacks
from helpers.report.plots.recovery import by_layer, other_weights, residual_vector, worst_case
from helpers.report.plots.side_by_side import beside_published, side_by_side
from helpers.report.plots.style import SHEET
from helpers.report.plots.theorems import causal, fisher, roc
from helpers.report.plots.tradeoffs import (
    MEASURES,
    PUBLISHED_COLUMNS,
    pareto,
    published_dsg,
    published_pareto,
    retention_tradeoff,
)

__all__ = [
    "MEASURES", "PUBLISHED_COLUMNS", "SHEET", "activation_distribution", "alignments", "all_questions", "at_once",
    "attacked_benign", "attribution", "beside_published", "by_layer", "calibrations", "carriers", "causal",
    "clamp_curve", "clamp_units", "conditional_sweeps", "controls", "decoders", "detector_taught", "diluted_gate",
    "dilution", "features_by_name", "few_documents", "firing_rates", "fisher", "forget_requests", "gate_choice",
    "gate_cost", "gate_percentiles", "gates_attacked", "guarded_answers", "held_out", "highlighted_question",
    "letters", "little_text", "long_prompts", "muse_criteria", "muse_gates", "muse_requests", "muse_training",
    "other_half", "other_weights", "padded_alarms", "pareto", "prompt_attacks", "protocols", "published_dsg",
    "published_pareto", "quality", "ratio_percentiles", "relearned_once", "relearning", "relearning_rates",
    "residual_drift", "residual_vector", "retention_tradeoff", "rho", "rho_or_counts", "roc", "selection_rules",
    "side_by_side", "static_or_dynamic", "strength_grid", "strongest_passages", "training", "worst_case",
]  # fmt: skip
