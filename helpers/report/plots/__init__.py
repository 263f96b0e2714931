"""Every picture, drawn from a table and nothing else: the CSV beside a figure is enough to draw it again.

One file a kind of figure, every drawing function also by its name here, which is how a figure is redrawn; what they
share is in `style`. One colour and one marker a method throughout, axes in words with the better direction, chance as
a line, intervals where there are counts; at most 9 inches wide, words of 8 points or more.
"""

from helpers.report.plots.answers import letters
from helpers.report.plots.attacks import relearning
from helpers.report.plots.chosen import alignments, held_out, protocols
from helpers.report.plots.clamps import (
    ablation,
    all_questions,
    carriers,
    clamp_curve,
    conditional_sweeps,
    controls,
    decoders,
)
from helpers.report.plots.features import activation_distribution, firing_rates, highlighted_question, selection_rules
from helpers.report.plots.gates import gate_cost, rho
from helpers.report.plots.organism import long_prompts, quality, training
from helpers.report.plots.style import SHEET
from helpers.report.plots.tradeoffs import (
    MEASURES,
    PUBLISHED_COLUMNS,
    pareto,
    published_dsg,
    published_pareto,
    retention_tradeoff,
)

__all__ = [
    "MEASURES", "PUBLISHED_COLUMNS", "SHEET", "ablation", "activation_distribution", "alignments", "all_questions",
    "carriers", "clamp_curve", "conditional_sweeps", "controls", "decoders", "firing_rates", "gate_cost",
    "held_out", "highlighted_question", "letters", "long_prompts", "pareto", "protocols", "published_dsg",
    "published_pareto", "quality", "relearning", "retention_tradeoff", "rho", "selection_rules", "training",
]  # fmt: skip
