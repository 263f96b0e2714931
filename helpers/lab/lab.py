"""A profile opened for a notebook: model, SAE, texts, questions, what is known, and the verbs of the field.

    lab = open_lab(profile, "07_side_by_side", runs, figures, overrides)
    scores = lab.sweep("some_method", "another")
    lab.save_figure("05_pareto", points(scores), plots.pareto)

What is computed once is computed when it is first asked for, and kept on disk under a key of all that goes into it.
"""

import json
import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.engine.attribution import attributions
from helpers.engine.edited import Edited, Trained
from helpers.engine.features import feature_statistics, mean_activation, norm_unit, residual_norm
from helpers.engine.forward import check_pair
from helpers.lab.forks import can_fork, is_worker
from helpers.lab.pieces import Computed, Piece, PieceError, Place, jobs_of, spread
from helpers.lab.published import published_statistics
from helpers.lab.run import Run
from helpers.lab.scores import Scored, Scores
from helpers.loading.data import (
    FORGET_FILE,
    NO_FORGET_TEXT,
    Requests,
    load_fillers,
    load_questions,
    load_requests,
    load_texts,
)
from helpers.loading.hub import Hub
from helpers.loading.models import device_of, load_model
from helpers.loading.muse import load_muse
from helpers.loading.saes import load_sae
from helpers.measures.alone import lost_alone
from helpers.measures.knowledge import Knowledge, knowledge_under, known_ids
from helpers.methods import METHODS, PUBLISHED_FEATURES
from helpers.methods.clamping import ClampMethod
from helpers.methods.method import Method
from helpers.methods.own import load_own
from helpers.methods.selection import ATTRIBUTION, candidates_by_attribution, select_by_attribution, selections
from helpers.profiles import Profile
from helpers.records.progress import show_progress
from helpers.text.batches import batches
from helpers.text.corpora import Document, framed, pack
from helpers.text.muse import Muse
from helpers.text.questions import ORIGINAL_ORDER, Question, encode_texts, prompt_tokens

# Interventions of a sweep that are computed, and stored, together, at most: they share a pass over the kept residuals.
GROUP = 12
# Where several processes share a sweep, each gets so many groups, so that none waits long for the last one.
GROUPS_EACH = 4
# What a view with other forget text or another model computes anew; all else that a lab keeps is the same in each.
OF_FORGET_TEXT = ("_statistics", "clamp_unit", "alone")
# The explained variance measured on a few rows of text may fall short of the profile's figure by so much.
TOLERANCE = 0.05

log = logging.getLogger(__name__)

What = str | type[Method] | Method
Make = Callable[[], dict[str, Tensor]]


class Lab(Run):
    """A run with its world loaded.

    Attributes:
        methods: by name, the papers' and those of one's own that the profile names.
        model, sae: the pair, checked against each other.
        explained_variance: of the SAE on retain text.
        forget_rows, retain_rows, neutral_rows: packed token ids [rows, row_length]; no forget rows where the gated
            corpus cannot be had, and features are then the published ones.
        framed_retain, framed_forget: documents asked as questions are, as token rows.
        forget_documents, neutral_documents: these texts as documents.
        all_questions: every question by subject, the one to forget first.
    """

    def __init__(
        self,
        profile: str,
        notebook: str,
        runs: str | None = None,
        figures: str | None = None,
        overrides: Mapping[str, Any] | None = None,
        published_features: bool = False,
    ) -> None:
        super().__init__(profile, notebook, runs, figures, overrides)
        self._place = Place(profile, notebook, runs, figures, json.dumps(overrides), published_features)
        self._once: dict[tuple, Any] = {}
        self._latest: tuple[str, Any] | None = None
        self._halves: dict[int, Knowledge] = {}
        self._view_of: Lab | None = None
        if self.profile.compute.threads:
            torch.set_num_threads(self.profile.compute.threads)
        device_of(self.profile.model)  # that there is none is said before anything is loaded
        self.methods: dict[str, type[Method]] = {**METHODS, **load_own(self.profile.own_methods)}
        self._load(self.profile, Hub(), published_features)

    # --- what is loaded -----------------------------------------------------------------------------------------------

    def _load(self, profile: Profile, hub: Hub, published_features: bool) -> None:
        texts, self.all_questions = load_texts(profile, hub), load_questions(profile, hub)
        self.model = load_model(profile, hub)
        self.sae = load_sae(profile, self.model.device, hub)
        sizes, tokenizer, form = profile.texts, self.model.tokenizer, profile.model.prompt_format
        if not texts.forget:
            self._check_published(hub, published_features)
        pick = {"retain": sizes.retain_rows, "neutral": sizes.neutral_rows}
        rows = {
            role: pack(tokenizer, [d.text for d in found], sizes.row_length)[:limit]
            for role, limit in pick.items()
            if (found := getattr(texts, role))
        }
        self.neutral_documents: list[Document] = texts.neutral
        self.retain_rows, self.neutral_rows = rows["retain"], rows["neutral"]
        self.framed_retain = framed(tokenizer, texts.retain[: sizes.framed_documents], form, sizes.row_length)
        self._take_forget_text(texts.forget)
        rows["forget"] = self.forget_rows
        for large in (self.model, self.sae, *rows.values(), self.framed_retain, self.all_questions):
            self.unchanging(large)
        self._note_sources(hub, rows)
        self._check_pair()

    def _take_forget_text(self, documents: Sequence[Document]) -> None:
        sizes, tokenizer, form = self.profile.texts, self.model.tokenizer, self.profile.model.prompt_format
        self.forget_documents: list[Document] = list(documents)
        self.forget_rows: Tensor = torch.empty(0, sizes.row_length, dtype=torch.long)
        if documents:
            self.forget_rows = pack(tokenizer, [d.text for d in documents], sizes.row_length)[: sizes.forget_rows]
        self.framed_forget = framed(tokenizer, documents[: sizes.framed_documents], form, sizes.row_length)

    def _note_sources(self, hub: Hub, rows: dict[str, Tensor]) -> None:
        asked = [q for questions in self.all_questions.values() for q in questions]
        prompts = prompt_tokens(self.model.tokenizer, asked, ORIGINAL_ORDER, self.profile.model.prompt_format)
        self.note(
            model=self.fingerprint(self.model),
            sae=self.fingerprint(self.sae),
            questions=self.fingerprint(self.all_questions),
            prompts=self.fingerprint(torch.tensor([token for row in prompts for token in row])),
            computed_on=str(self.model.device),
            texts=self.fingerprint(rows),
        )
        self._note_hub(hub)

    def _note_hub(self, hub: Hub) -> None:
        if hub.commits:
            self.note(sources=self._facts.get("sources", {}) | hub.commits)
        for warning in hub.warnings:
            self.warn(warning)

    @cached_property
    def requests(self) -> Requests:
        """Requests for help, harmful and benign, loaded when they are first asked for: most notebooks never do."""
        hub = Hub()
        found = load_requests(self.profile, hub)
        self._note_hub(hub)
        return found

    @cached_property
    def fillers(self) -> dict[str, list[str]]:
        """Harmless texts by kind, loaded when an attack first asks for them."""
        hub = Hub()
        found = load_fillers(self.profile, hub)
        self._note_hub(hub)
        return found

    @cached_property
    def muse(self) -> Muse:
        """The profile's MUSE benchmark, loaded when it is first asked for, which one notebook does."""
        hub = Hub()
        found = load_muse(self.profile, self.model.tokenizer, hub)
        self._note_hub(hub)
        return found

    def _check_pair(self) -> None:
        """Check SAE and model against each other; a pair that explains less than the profile says is a warning."""
        tokens, pad = self.profile.model.batch_tokens, self.model.tokenizer.pad_token_id
        first = next(batches(self.retain_rows[:16], tokens, pad, self.model.device))
        self.explained_variance = check_pair(self.model, self.sae, first)
        expected = self.profile.sae.explained_variance
        self.note(explained_variance=round(self.explained_variance, 4))
        if self.explained_variance < expected - TOLERANCE:
            self.warn(
                f"the SAE explains {self.explained_variance:.3f} of the variance on retain text, the profile's "
                f"sae.explained_variance says {expected:.3f}: check that sae.id is of this layer and model, that the "
                "model is the one the SAE was trained on or its tuned twin, and model.dtype"
            )

    def _check_published(self, hub: Hub, published_features: bool) -> None:
        """Where there is no forget text: go on with published features where there are some, and say so.

        Raises:
            ValueError: none are published for the profile's SAE, or this notebook needs the text itself.
        """
        if not published_features or published_statistics(self.profile).empty:
            (why, *_) = [warning for warning in hub.warnings if warning.startswith(NO_FORGET_TEXT)] or [NO_FORGET_TEXT]
            raise ValueError(
                f"notebook {self.notebook} cannot do without forget text. {why}; or name a local copy "
                f"(.jsonl or .parquet with a column `text`) in texts.forget_file or {FORGET_FILE}"
            )
        self.note(features="published")
        log.warning("published features: no forget text, so nothing is chosen or trained on it; see the warning below")

    # --- other text to forget, another model to start from ------------------------------------------------------------

    def given(
        self,
        documents: Sequence[Document] | None = None,
        model: Any = None,
        retain: Sequence[str] | None = None,
    ) -> "Lab":
        """A view of the lab with other text or another model to start from, of which methods need not know.

        What depends on them (feature statistics, ranked features, the clamp's unit, thresholds, whatever is remembered)
        is computed anew and stored under keys of its own. SAE and neutral text stay, and so do the questions: those
        that the unedited model knows. A view computes in this process; a piece of work for other processes makes its
        own from plain values.

        Args:
            documents: the forget text, in place of the lab's.
            model: where methods start, in place of the unedited model.
            retain: the retain text, in place of the lab's: packed, and each text by itself in place of the framed ones,
                which is how it stands in a prompt that is no question.

        Raises:
            ValueError: there is no text, or too little for one row.
        """
        view = copy(self)
        for name in OF_FORGET_TEXT:
            vars(view).pop(name, None)
        view._once, view._fingerprints = {}, dict(self._fingerprints)
        view._view_of = self  # which holds what its fingerprints are of
        view._latest = None  # or it would hold what the lab has let go
        if model is not None:
            view.model = model
            view.unchanging(model)
        if documents is not None:
            if not documents:
                raise ValueError("there is no forget text: at least one document is needed")
            view._take_forget_text(documents)
            view.unchanging(view.forget_rows)
        if retain is not None:
            sizes, tokenizer = self.profile.texts, self.model.tokenizer
            view.retain_rows = pack(tokenizer, retain, sizes.row_length)[: sizes.retain_rows]
            view.framed_retain = [row[: sizes.row_length] for row in encode_texts(tokenizer, retain)]
            view.unchanging(view.retain_rows)
            view.unchanging(view.framed_retain)
        return view

    # --- what the model knows -----------------------------------------------------------------------------------------

    def known_ids(self, *prompt_formats: str) -> dict[str, dict[str, dict[str, list]]]:
        """By prompt format and subject, the ids that were asked and those of the known questions (`known_ids`)."""
        asked = [(form, subject) for form in prompt_formats for subject in self.all_questions]
        pieces = [
            Piece(
                f"{subject}, {form}", "known-questions", (self._known_key(form, subject),), _known_ids, (form, subject)
            )
            for form, subject in asked
        ]
        found = dict(zip(asked, (result for (result,) in self.computed(pieces, dear=True)), strict=True))
        return {form: {s: ids for (f, s), ids in found.items() if f == form} for form in prompt_formats}

    def _known_key(self, form: str, subject: str) -> dict[str, str]:
        settings = self.profile
        how = (form, settings.model.batch_tokens, settings.questions.limit)
        return self.key(known_ids, self.model, self.all_questions[subject], *how)

    @cached_property
    def _known(self) -> dict[str, dict[str, list]]:
        form = self.profile.model.prompt_format
        return self.known_ids(form)[form]

    @cached_property
    def questions(self) -> dict[str, list[Question]]:
        """The questions that were asked, by subject: all of them, or as many as `questions.limit` needed."""
        return self._those("asked")

    def _those(self, kind: str) -> dict[str, list[Question]]:
        ids = {subject: set(found[kind]) for subject, found in self._known.items()}
        return {s: [q for q in questions if q.id in ids[s]] for s, questions in self.all_questions.items()}

    @cached_property
    def known(self) -> dict[str, list[Question]]:
        """The questions that the model answers right under all 24 orders of their choices, by subject.

        A subject of which fewer than two are known, which cannot be halved, is left out with a warning.

        Raises:
            ValueError: it is the subject to forget.
        """
        known = self._those("known")
        few = [subject for subject, questions in known.items() if len(questions) < 2]
        for subject in few:
            n, asked = len(known.pop(subject)), len(self._known[subject]["asked"])
            words = f"of {asked} questions of {subject} the model knows {n} (right under all 24 orders of the choices)"
            if subject == self.profile.questions.forget:
                raise ValueError(
                    f"{words}, so there is nothing to forget: ask more (--limit), or another model or prompt_format"
                )
            self.warn(f"{words}: the subject is left out")
        return known

    @cached_property
    def knowledge(self) -> Knowledge:
        """What is asked under every edit: the known questions, and neutral text for the loss."""
        if self._view_of:  # of the unedited model, whatever the view starts from
            return self._view_of.knowledge
        settings, asked = self.profile.model, self.profile.questions
        roles = {asked.forget: "forget", asked.near: "near"} | dict.fromkeys(asked.side_effect, "side")
        how = (self.profile.sae.layer, settings.prompt_format, settings.batch_tokens, self.profile.cache)
        return self._kept(Knowledge(self.model, self.known, roles, self.neutral_rows, *how))

    @property
    def judged(self) -> Knowledge:
        """The half of the known questions on which no setting is chosen."""
        return self.knowledge_on(1)

    def knowledge_on(self, half: int | None) -> Knowledge:
        """The known questions, or one half of each subject's, 0 to choose settings on and 1 to report."""
        if half is None:
            return self.knowledge
        if half not in self._halves:
            self._halves[half] = self._kept(self.knowledge.only(half))
        return self._halves[half]

    def _kept(self, knowledge: Knowledge) -> Knowledge:
        self.unchanging(knowledge)
        return knowledge

    # --- features -----------------------------------------------------------------------------------------------------

    def firing_rates(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Feature statistics on forget and on retain text (`feature_statistics`).

        Retain text is seen both packed and in the frame of a question, so that features of the frame itself (header,
        chat marks, which fire in every prompt) do not pass for features of the hazard.
        """
        return self._statistics

    @cached_property
    def _statistics(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        tokens = self.profile.model.batch_tokens
        both = [*self.retain_rows.tolist(), *self.framed_retain]
        retain = self.stage("retain-statistics", feature_statistics, self.model, self.sae, both, tokens)
        if not len(self.forget_rows):
            return published_statistics(self.profile), retain
        forget = self.stage("forget-statistics", feature_statistics, self.model, self.sae, self.forget_rows, tokens)
        return forget, retain

    def selections(self, n: int | None = None) -> dict[str, np.ndarray]:
        """The n best features by each paper's rule (`methods.selection.selections`); n is the profile's by default."""
        settings = self.profile.selection
        return selections(*self.firing_rates(), settings, settings.n_features if n is None else n)

    def ranked(self, rule: str, n: int) -> tuple[int, ...]:
        """Ids of the n best features by a rule, best first.

        Raises:
            ValueError: the rule finds fewer: two settings would silently be one.
        """
        found = self.attributed[:n] if rule == ATTRIBUTION else self.selections(n)[rule]
        if len(found) < n:
            raise ValueError(f"{n} features are asked for, the selection rule found {len(found)}; ask for fewer")
        return tuple(int(i) for i in found)

    @cached_property
    def alone(self) -> pd.DataFrame:
        """The features of largest attribution, each clamped alone on half 0 of the questions (`lost_alone`).

        Both are of the unedited model, whatever a view starts from. Largest attribution first; `attribution` is the
        second column.
        """
        settings, model, asked = self.profile.selection, self.profile.model, self.knowledge_on(0)
        questions = asked.questions[self.profile.questions.forget]
        how = (questions, model.prompt_format, model.training_tokens)
        found = self.stage("attribution", attributions, asked.model, self.sae, *how)["attribution"].to_numpy()
        best = candidates_by_attribution(found, settings.attribution_candidates)
        value, allowed = -settings.attribution_strength * self.clamp_unit, settings.attribution_side_lost
        groups = [best[start : start + GROUP].tolist() for start in range(0, len(best), GROUP)]
        calls = [(asked, self.sae, group, value, allowed) for group in groups]
        lost = pd.concat(self.stages("attribution-alone", lost_alone, calls), ignore_index=True)
        lost.insert(1, "attribution", found[best])
        return lost

    @property
    def attributed(self) -> np.ndarray:
        """Ids of all features that attribution finds and its filters leave, best first (`select_by_attribution`)."""
        return select_by_attribution(self.alone, self.profile.selection.attribution_side_lost)

    @cached_property
    def clamp_unit(self) -> float:
        """What a strength of 1 is in units of activation, as the profile's `clamp_unit` says.

        'absolute': 1. 'mean activation': the mean activation of the best features by Farrell's rule where they fire.
        'residual norm': the activation that moves the residual by its own length (`norm_unit`), which is its mean norm
        on packed retain text after the SAE's layer (`residual_norm`).
        """
        match self.profile.clamp_unit:
            case "absolute":
                return 1.0
            case "mean activation":
                return mean_activation(self.firing_rates()[0], self.selections()["sparsity"])
        layer, tokens = self.profile.sae.layer, self.profile.model.batch_tokens
        norm = self.stage("residual-norm", residual_norm, self.model, layer, self.retain_rows, tokens)
        return norm_unit(norm, self.sae)

    # --- methods ------------------------------------------------------------------------------------------------------

    def settings(self, *what: What | Sequence[Method]) -> list[Method]:
        """Settings by a method's name or class (its grid under this profile), or themselves, alone or in a list.

        Raises:
            ValueError: an unknown name; the known ones are listed.
        """
        found: list[Method] = []
        for one in what:
            if isinstance(one, Method):
                found.append(one)
            elif isinstance(one, str | type):
                found += self.method(one).grid(self.profile)
            else:
                found += one
        return found

    def method(self, name: str | type[Method]) -> type[Method]:
        """The method of a name. Raises ValueError for an unknown one; the known ones are listed."""
        if isinstance(name, type):
            return name
        if name not in self.methods:
            raise ValueError(f"method {name!r} is unknown, the known ones are: {', '.join(self.methods)}")
        return self.methods[name]

    @property
    def own_methods(self) -> tuple[str, ...]:
        """Names of the methods of one's own, which notebooks show beside the papers'."""
        return tuple(name for name in self.methods if name not in METHODS)

    def sweep(self, *what: What | Sequence[Method], half: int | None = None) -> Scores:
        """What is left of the knowledge under every setting, setting by setting from the cache.

        Args:
            what: as for `settings`. Those that ask for more features than attribution finds are left out, and where
                there is no forget text those that are trained on it, or ask for more features than are published.
            half: ask one half of the questions only, 0 or 1; None asks all.
        """
        settings = self._to_be_had(self.settings(*what))
        edits = [setting.apply(self) for setting in settings]
        tables = self._measured(settings, edits, half)
        return Scores(
            Scored(setting, self.labelled(setting), edit.facts(), table)
            for setting, edit, table in zip(settings, edits, tables, strict=True)
        )

    def _to_be_had(self, settings: Sequence[Method]) -> list[Method]:
        """The settings for which there are text and features enough; what is left out is warned of."""
        why = {setting: self._left_out(setting) for setting in settings}
        for line in dict.fromkeys(filter(None, why.values())):
            self.warn(line)
        return [setting for setting in settings if not why[setting]]

    def _left_out(self, setting: Method) -> str:
        """Why a setting cannot be had; '' where it can."""
        text = len(self.forget_rows)
        if setting.trains and not text:
            return f"{setting.name} is left out: it is trained on forget text, and there is none"
        if not isinstance(setting, ClampMethod) or setting.features is not None:
            return ""
        if setting.rule == ATTRIBUTION:
            found = len(self.attributed)
            which = f"of those that attribution names {found} pass its filters here"
        elif text:
            return ""
        else:
            found = len(self.selections(setting.n_features)[setting.rule])
            which = f"of those that are published {found} pass its retain filter here"
        few = found < setting.n_features
        return f"{setting.name} with {setting.n_features} features is left out: {which}" if few else ""

    def labelled(self, setting: Method) -> str:
        """What figures call a setting's method; it says so where its features are the published ones."""
        published = setting.from_text and not len(self.forget_rows)
        return setting.label + PUBLISHED_FEATURES if published else setting.label

    def _measured(self, settings: Sequence[Method], edits: Sequence[Edited], half: int | None) -> list[pd.DataFrame]:
        keys = [self.key(knowledge_under, self.knowledge_on(half), edit) for edit in edits]
        tables = [self._stored(stage_of(s), key) for s, key in zip(settings, keys, strict=True)]
        missing = [i for i, table in enumerate(tables) if table is None]
        stored = Counter(stage_of(s) for s, table in zip(settings, tables, strict=True) if table is not None)
        for stage, n in stored.items():
            log.info("%s: %d %s from the cache", stage, n, "setting" if n == 1 else "settings")
        # what trains first, for it takes longest, and all in one queue, so that no process waits for a last training
        trained, others = ([i for i in missing if settings[i].trains == trains] for trains in (True, False))
        groups = _courses(trained, settings) + _groups(others, settings, self._at_once(len(others)))
        pieces = [
            Piece(_words(settings, group), stage_of(settings[group[0]]), tuple(keys[i] for i in group),
                  _knowledge_under, (half, *(settings[i] for i in group)))
            for group in groups
        ]  # fmt: skip
        for group, results in zip(groups, self.computed(pieces, dear=bool(trained)), strict=True):
            for i, table in zip(group, results, strict=True):
                tables[i] = table
        return tables

    def _at_once(self, n: int) -> int:
        """How many of n interventions a piece takes."""
        processes, _ = self._processes()
        return GROUP if processes == 1 else max(1, min(GROUP, -(-n // (processes * GROUPS_EACH))))

    def edited(self, setting: Method) -> Edited:
        """A setting in place, to be measured further: weights that it trains are kept on disk."""
        edit = setting.apply(self)
        if edit.weights is None or edit.weights.keep is None:
            return edit
        return replace(edit, weights=replace(edit.weights, make=edit.weights.keep))

    def edits(self, *settings: Method) -> dict[tuple[str, str], Edited]:
        """Settings in place, by label and words; one that is given twice stands once."""
        return {(setting.label, setting.words): self.edited(setting) for setting in settings}

    @property
    def unedited(self) -> Edited:
        """The model as it is."""
        return Edited(self.model)

    def trained(self, train: Callable[..., dict[str, Tensor]], *args: Any, make: Make | None = None) -> Trained:
        """Weights that `train(*args)` makes, by the names that the model has for them; for a method's `apply`.

        Weights that take at most the profile's `compute.weights_mb` are on disk once they are made, so that a setting
        of a sweep that is chosen is not trained again; larger ones are where they are asked for (`edited`).

        Args:
            make: the same weights in another way, which may share work with other settings.
        """
        made, kept = (
            partial(self._made, make or partial(train, *args), asked_for, train, *args) for asked_for in (False, True)
        )
        return Trained(self.fingerprint([train, *args]), made, kept)

    def _made(self, make: Make, keep: bool, train: Callable[..., dict[str, Tensor]], *args: Any) -> dict[str, Tensor]:
        """Weights from disk if they are there, or made, and put there if they are to be kept, or small."""
        key = self.key(train, *args)
        if stage := self.store.read("weights", key):
            stored: Any = self.seen(stage) if keep else stage.result
            return stored
        start = time.perf_counter()
        weights = make()
        small = sum(w.numel() * w.element_size() for w in weights.values()) <= self.profile.compute.weights_mb * 2**20
        if keep or small:
            stage = self.store.write("weights", weights, key, time.perf_counter() - start)
            return self.seen(stage) if keep else weights
        return weights

    def latest(self, key: str, make: Callable[[], Any]) -> Any:
        """What was made last, if it was under this key, else what is made now in its place: one thing is kept."""
        if self._view_of is not None:  # one thing in all, whichever view asks: a training may fill half of a GPU
            return self._view_of.latest(key, make)
        if self._latest is None or self._latest[0] != key:
            self._latest = None  # gone before the next is made, for each may be a model and its optimiser
            self._latest = (key, make())
        return self._latest[1]

    def once(self, compute: Callable, *args: Any) -> Any:
        """`compute(lab, *args)`, remembered while the lab is open; arguments that can be hashed."""
        if (compute, args) not in self._once:
            self._once[compute, args] = compute(self, *args)
        return self._once[compute, args]

    # --- pieces of work -----------------------------------------------------------------------------------------------

    def _stored(self, name: str, key: Mapping[str, str]) -> Any:
        stage = self.store.read(name, key)
        return None if stage is None else self.seen(stage)

    def computed(self, pieces: Sequence[Piece], dear: bool) -> list[list]:
        """The results of every piece, from the cache or computed here or by other processes, and stored one by one.

        Args:
            dear: each piece takes long enough to start other processes at once.

        Raises:
            PieceError: some could not be computed; the others are stored.
        """
        found = [[self._stored(piece.stage, key) for key in piece.keys] for piece in pieces]
        missing = [i for i, results in enumerate(found) if any(result is None for result in results)]
        progress = _Progress([pieces[i] for i in missing])
        (jobs, scheduler), faults = self._processes(), []
        for done in spread(self, self._place, progress.pieces, jobs, scheduler, dear):
            piece = progress.pieces[done.number]
            progress.say(done)
            if done.fault:
                faults.append(f"{piece.stage}: {piece.words}: {done.fault}")
                continue
            each = done.seconds / len(done.results)
            stages = [self.store.write(piece.stage, r, k, each) for r, k in zip(done.results, piece.keys, strict=True)]
            found[missing[done.number]] = [self.seen(stage) for stage in stages]
        if faults:
            raise PieceError(f"{len(faults)} of {len(progress.pieces)} pieces failed:\n" + "\n".join(faults))
        return found

    def stages(self, name: str, function: Callable, calls: Sequence[tuple]) -> list:
        """`stage(name, function, *call)` of each call; processes share them where this one can be forked."""
        pieces = [
            Piece(f"part {i} of {len(calls)}", name, (self.key(function, *call),), _called, (function, call))
            for i, call in enumerate(calls, start=1)
        ]
        return [result for (result,) in self.computed(pieces, dear=False)]

    def _processes(self) -> tuple[int, str]:
        """How many processes of this machine share the work of this lab, or the scheduler whose workers do."""
        settings = self.profile.compute
        jobs, scheduler = jobs_of(settings.jobs, self.profile.model.device), settings.scheduler
        forks = not scheduler and can_fork(self.model.device)
        # other processes open the lab that it is a view of, unless they are forks; and a worker computes by itself
        return (1, "") if is_worker() or (self._view_of and not forks) else (jobs, scheduler)


class _Progress:
    """A line a finished piece: which, how many of how many, seconds, and about how many are left."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces, self._done, self._start = pieces, 0, time.perf_counter()

    def say(self, done: Computed) -> None:
        piece = self.pieces[done.number]
        self._done += 1
        passed = time.perf_counter() - self._start
        left = passed / self._done * (len(self.pieces) - self._done)
        state = f"failed: {done.fault}" if done.fault else f"{done.seconds:.1f} s"
        log.info(
            "%s: %s: %s (%d of %d, about %.0f s left)",
            piece.stage,
            piece.words,
            state,
            self._done,
            len(self.pieces),
            left,
        )


def _called(lab: Lab, function: Callable, call: tuple) -> list:
    return [function(*call)]


def _knowledge_under(lab: Lab, half: int | None, *settings: Method) -> list[pd.DataFrame]:
    return lab.knowledge_on(half).under([setting.apply(lab) for setting in settings])


def _known_ids(lab: Lab, form: str, subject: str) -> list[dict[str, list]]:
    settings = lab.profile
    how = (form, settings.model.batch_tokens, settings.questions.limit)
    return [known_ids(lab.model, lab.all_questions[subject], *how)]


def stage_of(setting: Method) -> str:
    """What the sweep of a setting's method is called among stages: 'knowledge-grad-diff'."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", type(setting).__name__)
    return "-".join(["knowledge", *words]).lower()


def _courses(indices: Sequence[int], settings: Sequence[Method]) -> list[list[int]]:
    """Settings that are stops of one training together."""
    by_course: dict[Method, list[int]] = {}
    for i in indices:
        by_course.setdefault(settings[i].course, []).append(i)
    return list(by_course.values())


def _groups(indices: Sequence[int], settings: Sequence[Method], size: int) -> list[list[int]]:
    """Settings of one method, at most so many together."""
    by_stage: dict[str, list[int]] = {}
    for i in indices:
        by_stage.setdefault(stage_of(settings[i]), []).append(i)
    return [of[start : start + size] for of in by_stage.values() for start in range(0, len(of), size)]


def _words(settings: Sequence[Method], group: Sequence[int]) -> str:
    first, last = settings[group[0]], settings[group[-1]]
    if len(group) == 1:
        return f"{first.label}, {first.words}"
    return f"{len(group)} settings from {first.label}, {first.words} to {last.label}, {last.words}"


def open_lab(
    profile: str,
    notebook: str,
    runs: str | None = None,
    figures: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    published_features: bool = False,
) -> Lab:
    """Open a profile for a notebook: load and check all that it names, and show progress as lines of text.

    Args:
        profile: a profile's name, as in 'tiny'.
        notebook: the notebook's own name, as in '03_multi_feature_pareto'.
        runs, figures: folders for cached stages and for figures, by default those of the repository; the profile's name
            is added to them.
        overrides: settings that differ from the profile's, by dotted key, as in {"questions.limit": 8}; what they
            change goes to folders of its own.
        published_features: where the gated forget text cannot be had, go on with features that the papers published.

    Raises:
        ValueError: a profile or setting that does not exist, a device that this machine lacks.
        HubError: something cannot be fetched.
        RuntimeError: model and SAE do not belong together.
    """
    show_progress()
    return Lab(profile, notebook, runs, figures, overrides, published_features)
