"""A few known questions through one notebook's path on the real model, timed by kind of work.

Each kind of work that notebooks are made of (`costs.Work`) is done once, in small, and counted as the notebooks' is.
The rates reached so, times the notebooks' counts, are what a full run would take on this machine.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch

from helpers.engine.forward import huggingface
from helpers.experiments.costs import (
    NOTEBOOKS,
    PROMPT_TOKENS,
    TREE_TOKENS,
    WITH_RMU,
    WITHOUT_TREES,
    Shape,
    asked_of,
    projections,
    rmu_work,
    shape_of,
    statistics_work,
    sweep_work,
)
from helpers.lab.lab import Lab, open_lab
from helpers.methods.method import Method
from helpers.methods.rmu import RMU
from helpers.methods.static_clamp import StaticClamp
from helpers.profiles import Profile, load_profile
from helpers.records.provenance import peak_memory

# Settings of the clamp, spread over its grid, steps of RMU, and documents in the frame of a question.
CLAMPS, STEPS, FRAMED = 4, 2, 20
# Batches of each text.
BATCHES = 4


@dataclass(frozen=True)
class Part:
    """One kind of work done in small: what it was, its operations as the notebooks' are counted, and its seconds."""

    kind: str
    what: str
    operations: float
    seconds: float

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


@dataclass(frozen=True)
class Trial:
    """A trial and what follows from it.

    Attributes:
        notebook: whose path was run.
        forget: how many known questions of the subject to forget were asked.
        asked: questions of all subjects that were asked under 24 orders.
        known: those of them that the model knows.
        loading: seconds.
        memory: bytes at the peak, of the GPU where there is one.
        parts: one of each kind of work.
        full: of each notebook that the profile serves, seconds and bytes of a full run; None where it is not counted.
    """

    notebook: str
    forget: int
    asked: int
    known: int
    loading: float
    memory: int
    parts: tuple[Part, ...]
    full: dict[str, tuple[float, float] | None]


def path_of(profile: Profile) -> str:
    """The notebook whose path is tried: the first that sweeps a clamp and trains RMU, else the first that asks an exam.

    Raises:
        ValueError: the profile serves none that does.
    """
    served = profile.notebooks or tuple(NOTEBOOKS)
    asking = [number for number in served if number not in WITHOUT_TREES]
    if not asking:
        raise ValueError(f"profile {profile.name} serves notebook {', '.join(served)} only, which asks no exam to try")
    return next((number for number in asking if number in WITH_RMU), asking[0])


def try_profile(name: str, n: int) -> Trial:
    """Run a notebook's path with n known questions of each subject, and project every notebook from it.

    All is computed in this process and anew: stages are kept in a folder that is gone afterwards.

    Args:
        n: known questions; subjects other than the one to forget may have fewer.

    Raises:
        ValueError: n is below 2, or more than the model knows of what is to be forgotten; or as `open_lab`.
    """
    profile = load_profile(name)
    number, forget = path_of(profile), profile.questions.forget
    there = asked_of(profile)[forget]
    if not 2 <= n <= there:
        raise ValueError(f"--try {n}: {forget} has {there} questions, and one half of them chooses: try 2 to {there}")
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        lab = open_lab(name, f"{number}_trial", folder, folder, _small(profile, n))
        loading = time.perf_counter() - start
        parts = tuple(_parts(lab, n))
    counted = lab.knowledge.questions
    asked, known = sum(map(len, lab.questions.values())), sum(map(len, counted.values()))
    peak = peak_memory()
    rates = {part.kind: part.rate for part in parts}
    # the rates are whole ones and no shares of a matrix product's
    device, shape = lab.model.device.type, _shape(lab)
    full = projections(name, device, rates, product=1.0, training=1.0, shape=shape, known_share=known / asked)
    of = (number, len(counted[forget]), asked, known, loading)
    return Trial(*of, peak.get("cuda", peak["ram"]), parts, full)


def _small(profile: Profile, n: int) -> dict[str, Any]:
    """What a trial changes: as much text as fills a few batches, and all in this process."""
    rows = max(2, ceil(BATCHES * profile.model.batch_tokens / profile.texts.row_length))
    fewer = {f"texts.{role}_rows": min(rows, getattr(profile.texts, f"{role}_rows"))
             for role in ("forget", "retain", "neutral")}  # fmt: skip
    return fewer | {
        "questions.limit": n,
        "compute.jobs": 1,
        "compute.scheduler": "",
        "texts.framed_documents": min(FRAMED, profile.texts.framed_documents),
    }


def _parts(lab: Lab, n: int) -> list[Part]:
    """Every kind of work of `costs.Work`, in the order in which a notebook comes to it."""
    shape, profile = _shape(lab), lab.profile
    layer, length = profile.sae.layer, profile.texts.row_length
    lab.firing_rates()
    tokens = sum(len(row) for row in (*lab.forget_rows, *lab.retain_rows, *lab.framed_retain))
    operations = statistics_work(shape, layer, profile.sae.width, tokens, length)
    seconds = lab.seconds["forget-statistics"] + lab.seconds["retain-statistics"]
    found = [Part("statistics", f"all features on {tokens} tokens of text", operations, seconds)]

    check_known(lab, n)
    asked = sum(map(len, lab.questions.values()))
    operations = shape.blocks(shape.layers, asked * TREE_TOKENS, TREE_TOKENS)
    found.append(Part("trees", f"{asked} questions in 24 orders", operations, lab.seconds["known-questions"]))

    settings = _spread(lab.settings(StaticClamp))
    clamps = [clamp for setting in settings if (clamp := lab.edited(setting).intervention) is not None]
    knowledge, rows = lab.knowledge, len(lab.neutral_rows)
    questions = len(knowledge.asked)
    operations = sweep_work(shape, layer, len(clamps), questions * PROMPT_TOKENS, PROMPT_TOKENS, questions)
    seconds = _seconds(lambda: (knowledge.answers.unedited, knowledge.answers.edited_by_each(clamps)))
    found.append(Part("answers", f"{questions} known ones under {len(clamps)} clamps", operations, seconds))
    operations = sweep_work(shape, layer, len(clamps), rows * length, length, rows * length)
    seconds = _seconds(lambda: knowledge.losses_added(clamps))
    found.append(Part("losses", f"{rows * length} tokens under {len(clamps)} clamps", operations, seconds))

    setting = RMU.grid(profile)[0]
    _train(lab, setting, 1)  # copies the model, and takes the length of the residual
    seconds = _seconds(lambda: _train(lab, setting, 1 + STEPS))
    step = setting.batch_rows * length
    operations = STEPS * rmu_work(shape, setting.layer, step, length, profile.model.gradient_checkpointing)
    found.append(Part("training", f"{STEPS} steps of RMU, {step} tokens of each text a step", operations, seconds))
    return found


def _train(lab: Lab, setting: RMU, steps: int) -> None:
    """Go on with a training to a step."""
    weights = replace(setting, steps=steps).apply(lab).weights
    if weights is not None:
        weights.make()


def check_known(lab: Lab, n: int) -> None:
    """Check that the model knows so many questions of what is to be forgotten.

    Raises:
        ValueError: it knows fewer.
    """
    forget = lab.profile.questions.forget
    known, asked = len(lab.known[forget]), len(lab.questions[forget])
    if known < n:
        raise ValueError(f"--try {n}: of {asked} questions of {forget} the model knows {known}: try 2 to {known}")


def _shape(lab: Lab) -> Shape:
    return shape_of(huggingface(lab.model).config)


def _spread(grid: Sequence[Method]) -> list[Method]:
    return list(grid[:: ceil(len(grid) / CLAMPS)])


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start
