"""What every notebook starts from: the profile's model and SAE, checked as a pair, its texts as rows, what it knows."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.attacks.relearning import check_attack_text
from helpers.engine.features import feature_statistics
from helpers.engine.forward import check_pair, device_after
from helpers.engine.scoring import known_questions
from helpers.experiments.exam import Exam
from helpers.lab.run import Run
from helpers.loading.data import FORGET_FILE, load_questions, load_texts
from helpers.loading.hub import Hub
from helpers.loading.models import load_model
from helpers.loading.saes import load_sae
from helpers.profiles import Profile
from helpers.published import load_published
from helpers.records.store import fingerprint
from helpers.text.batches import batches
from helpers.text.corpora import Document, framed, pack
from helpers.text.questions import ORIGINAL_ORDER, Question, prompt_tokens

# Notebooks that can do without forget text, with the features that the papers published.
WITHOUT_FORGET_TEXT = ("03",)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Bench:
    """A loaded profile.

    Attributes:
        model, sae: the pair, whose explained variance has been measured.
        explained_variance: of the SAE on the retain rows.
        forget_rows, retain_rows, neutral_rows: packed token ids [rows, row_length]; no forget rows where the gated
            corpus cannot be had, and features are the published ones.
        framed_retain, framed_forget: documents asked as questions are; the first sets the gate's threshold.
        forget_documents: the forget text as documents, for the attack.
        questions: every question by subject, the one to forget first.
    """

    model: Any
    sae: Any
    explained_variance: float
    forget_rows: Tensor
    retain_rows: Tensor
    neutral_rows: Tensor
    framed_retain: list[list[int]]
    framed_forget: list[list[int]]
    forget_documents: list[Document]
    questions: dict[str, list[Question]]

    def named(self, method: str) -> str:
        """A method's name, which says so where its features are the published ones."""
        return method if len(self.forget_rows) else f"{method}, published features"


def open_bench(run: Run) -> Bench:
    """Load everything the run's profile names, check model and SAE against each other, and note what they are."""
    profile, hub = run.profile, Hub()
    texts, questions, model = load_texts(profile, hub), load_questions(profile, hub), load_model(profile, hub)
    sae = load_sae(profile, device_after(model, profile.sae.layer), hub)
    sizes, tokenizer = profile.texts, model.tokenizer
    if not texts.forget:
        check_published(run, hub)
    limits = {"forget": sizes.forget_rows, "retain": sizes.retain_rows, "neutral": sizes.neutral_rows}
    rows = {
        role: pack(tokenizer, [d.text for d in found], sizes.row_length)[:limit]
        for role, limit in limits.items()
        if (found := getattr(texts, role))
    }
    rows.setdefault("forget", torch.empty(0, sizes.row_length, dtype=torch.long))
    first = next(batches(rows["retain"][:16], profile.model.batch_tokens, tokenizer.pad_token_id, model.device))
    measured = check_pair(model, sae, first, profile.sae.explained_variance)
    bench = Bench(
        model, sae, measured, rows["forget"], rows["retain"], rows["neutral"],
        framed(tokenizer, texts.retain[: sizes.framed_documents], profile.model.prompt_format, sizes.row_length),
        framed(tokenizer, texts.forget[: sizes.framed_documents], profile.model.prompt_format, sizes.row_length),
        texts.forget, questions,
    )  # fmt: skip
    asked = [q for questions in bench.questions.values() for q in questions]
    prompts = prompt_tokens(tokenizer, asked, ORIGINAL_ORDER, profile.model.prompt_format)
    run.note(
        model=fingerprint(model),
        sae=fingerprint(sae),
        questions=fingerprint(bench.questions),
        prompts=fingerprint(prompts),
        computed_on=str(model.device),
        texts=fingerprint(rows),
        **({"sources": hub.commits, "warnings": hub.warnings} if hub.commits else {}),
    )
    for warning in hub.warnings:
        log.warning("warning: %s", warning)
    return bench


def check_published(run: Run, hub: Hub) -> None:
    """Where there is no forget text: let notebooks go on that can do with published features, and say so.

    Raises:
        ValueError: this notebook cannot, or no features are published for the profile's SAE.
    """
    if run.notebook[:2] not in WITHOUT_FORGET_TEXT or published_statistics(run.profile).empty:
        raise ValueError(
            f"notebook {run.notebook} cannot do without forget text. {hub.warnings[-1]}; or name a local copy "
            f"(.jsonl or .parquet with a column `text`) in texts.forget_file or {FORGET_FILE}"
        )
    run.note(features="published")
    log.warning("published features: no forget text, so nothing is chosen or trained on it; see the warning below")


def published_statistics(profile: Profile) -> pd.DataFrame:
    """Farrell's forget rates in the form of `feature_statistics`: 0 for what they did not choose, no activations.

    Empty where none are published for this model and SAE.
    """
    table = load_published("farrell2024_features").query("model == @profile.model.source and sae == @profile.sae.id")
    if table.empty:
        return table
    rates = np.zeros(profile.sae.width)
    rates[table["feature"]] = table["forget_rate"]
    unknown = {"mean": np.nan, "mean_square": np.nan, "tokens": 0}
    return pd.DataFrame({"feature": np.arange(len(rates)), "firing_rate": rates}).assign(**unknown)


def statistics(run: Run, bench: Bench) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Feature statistics on forget and on retain text, from the cache if they were taken before.

    Retain text is seen both packed and in the frame of a question, so that features of the frame itself (header, chat
    marks, which fire in every prompt) do not pass for features of the hazard.
    """
    tokens = run.profile.model.batch_tokens
    retain = [*bench.retain_rows.tolist(), *bench.framed_retain]
    retain = run.stage("retain-statistics", feature_statistics, bench.model, bench.sae, retain, tokens)
    if not len(bench.forget_rows):
        return published_statistics(run.profile), retain
    forget = run.stage("forget-statistics", feature_statistics, bench.model, bench.sae, bench.forget_rows, tokens)
    return forget, retain


def known(run: Run, bench: Bench) -> dict[str, list[Question]]:
    """Per subject the questions that the model answers right under all 24 orders, from the cache if found before."""
    settings = run.profile.model
    ids = run.stage(
        "known-questions", known_ids, bench.model, bench.questions, settings.prompt_format, settings.batch_tokens
    )
    return {
        subject: [q for q in questions if q.id in set(ids[subject])] for subject, questions in bench.questions.items()
    }


def known_ids(
    model, questions: dict[str, list[Question]], prompt_format: str, batch_tokens: int
) -> dict[str, list[str | int]]:
    """Ids of the known questions of each subject (`known_questions`)."""
    return {s: [q.id for q in known_questions(model, qs, prompt_format, batch_tokens)] for s, qs in questions.items()}


def mean_activation(statistics_of_forget: pd.DataFrame, features: np.ndarray) -> float:
    """Mean activation of the features where they fire on forget text: the clamp unit of the embedded model."""
    chosen = statistics_of_forget.iloc[np.asarray(features)]
    return float((chosen["mean"] / chosen["firing_rate"]).mean())


def clamp_unit(profile: Profile, statistics_of_forget: pd.DataFrame, features: np.ndarray) -> float:
    """What a strength of 1 is in units of activation: 1, or the features' mean activation, as the profile says."""
    return 1.0 if profile.clamp_unit == "absolute" else mean_activation(statistics_of_forget, features)


def open_exam(run: Run, bench: Bench, known_by_subject: dict[str, list[Question]]) -> Exam:
    """The exam over the known questions, for interventions after the SAE's layer."""
    settings = run.profile.model
    how = (run.profile.sae.layer, settings.prompt_format, settings.batch_tokens, run.profile.cache)
    return Exam(bench.model, known_by_subject, _roles(run.profile), bench.neutral_rows, *how)


def _roles(profile: Profile) -> dict[str, str]:
    asked = profile.questions
    return {asked.forget: "forget", asked.near: "near"} | dict.fromkeys(asked.side_effect, "side")


def attack_rows(run: Run, bench: Bench, evaluated: list[Question]) -> Tensor:
    """Packed forget text for the relearning attack, after `check_attack_text` has passed it."""
    check_attack_text(bench.forget_documents, run.profile.questions.forget, evaluated)
    texts = [document.text for document in bench.forget_documents]
    return pack(bench.model.tokenizer, texts, run.profile.texts.row_length)
