"""Notebook 14: the three statements on which DSG rests its rule (Muhamed et al. 2025), each put to the test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from helpers.engine.attribution import attributions
from helpers.engine.columns import layer_of
from helpers.engine.features import CHUNK_ACTIVATIONS, EPSILON, select_by_importance, token_activations
from helpers.engine.forward import residual_after
from helpers.engine.interventions import Clamp
from helpers.engine.scoring import row_batches
from helpers.loading.saes import load_sae
from helpers.measures.knowledge import Knowledge
from helpers.profiles import SelectionSettings
from helpers.text.batches import Rows
from helpers.text.questions import ORIGINAL_ORDER, prompt_tokens, right_letters
from helpers.text.tokens import special_ids

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

SEED = 0
# Probabilities of letters below this are rounding of float32.
SMALLEST = 1e-12
FALSE_ALARMS = 0.05
Statistic = Callable[[np.ndarray, np.ndarray], float]


# --- 1: Fisher --------------------------------------------------------------------------------------------------------


@torch.no_grad()
def fisher_scores(model, sae, rows: Rows, batch_tokens: int, scales: Sequence[float]) -> pd.DataFrame:
    """Squared gradients of the reconstruction loss by decoder row, per token and averaged, and what is to stand for it.

    The loss of a token is the squared norm of x - dec(enc(x)), the sum over d_model. Its gradient by decoder row j is
    -2 f_j e with e the error, so its squared norm is 4 f_j^2 e.e: no backward pass is needed (a test compares with
    autograd).

    Args:
        scales: the decoder rows are multiplied by each of these; 1 is the SAE as it is.

    Returns:
        a row a scale and feature: scale, feature, fisher (E[4 f^2 e.e]), mean_square (E[f^2]), error (E[e.e]),
        lost (the share of the variance in the error), over tokens that are not special.
    """
    special = torch.tensor(special_ids(model.tokenizer), device=sae.W_enc.device)
    square, product = torch.zeros(sae.cfg.d_sae).double(), torch.zeros(sae.cfg.d_sae, len(scales)).double()
    error, tokens = torch.zeros(len(scales)).double(), 0
    first, second = torch.zeros(sae.cfg.d_in).double(), torch.zeros(()).double()
    for batch in row_batches(model, rows, batch_tokens):
        kept = residual_after(model, batch, layer_of(sae))[batch.mask & ~torch.isin(batch.ids, special)].float()
        for x in kept.split(max(1, CHUNK_ACTIVATIONS // sae.cfg.d_sae)):
            f, e = sae.encode(x), errors(sae, x, scales)
            square += f.square().sum(dim=0).double().cpu()
            product += (f.square().T @ e).double().cpu()
            error += e.sum(dim=0).double().cpu()
            first, second = first + x.sum(dim=0).double().cpu(), second + x.square().sum().double().cpu()
            tokens += len(x)
    variance = float(second / tokens - (first / tokens).square().sum())
    table = {"scale": np.repeat(scales, sae.cfg.d_sae), "feature": np.tile(np.arange(sae.cfg.d_sae), len(scales))}
    mean_error = np.repeat((error / tokens).numpy(), sae.cfg.d_sae)
    table |= {"fisher": 4 * (product / tokens).T.flatten().numpy(), "error": mean_error}
    table |= {"mean_square": np.tile((square / tokens).numpy(), len(scales)), "lost": mean_error / variance}
    return pd.DataFrame(table)


def errors(sae, x: Tensor, scales: Sequence[float]) -> Tensor:
    """Squared norm of x - dec(enc(x)), x [tokens, d_model], with the decoder rows scaled: [tokens, scales]."""
    written = sae.encode(x) @ sae.W_dec
    return torch.stack([(x - sae.b_dec - scale * written).square().sum(dim=1) for scale in scales], dim=1)


def all_fisher_scores(lab: Lab) -> pd.DataFrame:
    """`fisher_scores` on forget and on retain text (as the rule sees it), of the SAE and of another layer's.

    Returns:
        layer, text, and the columns of `fisher_scores`. The other layer is there where the profile names one.
    """
    settings, tokens = lab.profile.theorems, lab.profile.model.batch_tokens
    texts = {"forget text": lab.forget_rows.tolist(), "retain text": [*lab.retain_rows.tolist(), *lab.framed_retain]}
    tables = []
    for sae in [lab.sae, *other_saes(lab)]:
        layer, scales = layer_of(sae), settings.decoder_scales if sae is lab.sae else (1.0,)
        for text, rows in texts.items():
            name = f"fisher-{text.partition(' ')[0]}-{layer}"
            found = lab.stage(name, fisher_scores, lab.model, sae, rows, tokens, scales)
            tables.append(found.assign(layer=layer, text=text))
    return pd.concat(tables, ignore_index=True)


def other_saes(lab: Lab) -> list:
    """The SAE of the other layer that the profile names, none for layer -1."""
    settings = lab.profile.theorems
    if settings.other_layer < 0:
        return []
    other = replace(lab.profile.sae, layer=settings.other_layer, id=settings.other_id)
    return [load_sae(replace(lab.profile, sae=other), lab.model.device)]


def fisher_fits(scores: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """How well E[f^2] stands for the squared gradient, over the live features, by `all_fisher_scores`.

    Returns:
        layer, text, scale, lost, n (features that ever fire); slope and r (least squares and Pearson's, of logarithms)
        and spearman with 95 % bootstrap intervals over features; missed (of the variance of the log gradient, the share
        not in the product 4 E[f^2] E[e.e], slope 1).
    """
    rows = []
    for (layer, text, scale), of in scores.groupby(["layer", "text", "scale"], sort=False):
        live = of[(of["mean_square"] > 0) & (of["fisher"] > 0)]
        x, y = np.log(live["mean_square"].to_numpy()), np.log(live["fisher"].to_numpy())
        row = {"layer": layer, "text": text, "scale": scale, "lost": of["lost"].iloc[0], "n": len(live)}
        for name, statistic in (("slope", _slope), ("r", _pearson), ("spearman", spearman)):
            row |= _with_interval(name, statistic, x, y, resamples)
        rows.append(row | {"missed": float(np.var(y - x) / np.var(y))})
    return pd.DataFrame(rows)


def chosen_by_fisher(scores: pd.DataFrame, chosen: Sequence[int], rule: SelectionSettings) -> pd.DataFrame:
    """How many of the features that DSG's rule chose it chooses too with the true squared gradient for E[f^2].

    Args:
        scores: `all_fisher_scores`, rows of the SAE itself.

    Returns:
        scale, shared, n.
    """
    rows = []
    for scale, of in scores.groupby("scale", sort=False):
        forget, retain = (of.loc[of["text"] == text, "fisher"].to_numpy() for text in ("forget text", "retain text"))
        found = select_by_importance(forget, retain, len(chosen), rule.ratio_percentile, rule.forget_percentile)
        rows.append((scale, len(np.intersect1d(found, chosen)), len(chosen)))
    return pd.DataFrame(rows, columns=["scale", "shared", "n"])


def _slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.cov(x, y, bias=True)[0, 1] / np.var(x))


def _pearson(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1]) if np.ptp(x) and np.ptp(y) else float("nan")


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation; not a number where one of the two is the same everywhere."""
    return _pearson(rankdata(x), rankdata(y))


def _with_interval(name: str, statistic: Statistic, x: np.ndarray, y: np.ndarray, resamples: int) -> dict[str, float]:
    draw = np.random.default_rng(SEED).integers(0, len(x), (resamples, len(x)))
    low, high = np.nanpercentile([statistic(x[i], y[i]) for i in draw], [2.5, 97.5])
    return {name: statistic(x, y), f"{name}_low": float(low), f"{name}_high": float(high)}


# --- 2: causal importance ---------------------------------------------------------------------------------------------


def drawn_features(mean_square: np.ndarray, n: int, strata: int = 5) -> np.ndarray:
    """Ids of n features that ever fire, equally many (but for rounding) of each stratum of E[f^2], sorted.

    Raises:
        ValueError: fewer than n features fire.
    """
    live = np.flatnonzero(mean_square > 0)
    if len(live) < n:
        raise ValueError(f"{n} features are to be drawn, only {len(live)} fire: lower theorems.features")
    rng, parts = np.random.default_rng(SEED), np.array_split(live[np.argsort(mean_square[live])], strata)
    sizes = [len(part) for part in np.array_split(np.arange(n), strata)]
    return np.sort(np.concatenate([rng.choice(p, size, replace=False) for p, size in zip(parts, sizes, strict=True)]))


def questions_of(knowledge: Knowledge, role: str, limit: int) -> Knowledge:
    """The same with the known questions of one role alone, at most `limit`, evenly from its subjects."""
    subjects = [s for s in knowledge.questions if knowledge.roles[s] == role]
    each = -(-limit // max(1, len(subjects)))
    return replace(knowledge, questions={s: knowledge.questions[s][:each] for s in subjects})


def clamp_effects(knowledge: Knowledge, sae, features: Sequence[int] | np.ndarray, value: float) -> np.ndarray:
    """What setting each feature alone, where it fires, takes from the log-odds of the right letter.

    Mean over questions, [features]; log-odds are of the right letter against the other three together.
    """
    right = torch.tensor(right_letters(knowledge.asked, ORIGINAL_ORDER))[:, 0]
    before = log_odds(knowledge.answers.unedited, right)
    after = knowledge.answers.edited_by_each([Clamp(sae, [int(i)], value) for i in features])
    return np.array([float((before - log_odds(p, right)).mean()) for p in after])


def log_odds(probabilities: Tensor, right: Tensor) -> Tensor:
    """Log p(right) - log p(any other letter) of p(A..D) [questions, 4], float64."""
    p = probabilities.double()
    of_right = p.gather(1, right[:, None])[:, 0]
    return of_right.clamp(min=SMALLEST).log() - (p.sum(dim=1) - of_right).clamp(min=SMALLEST).log()


def attribution_of(lab: Lab, knowledge: Knowledge) -> pd.Series:
    """Attribution of every feature to the right letter, mean over questions (`engine.attribution.attributions`)."""
    asked, tokens = knowledge.asked, lab.profile.model.training_tokens
    return attributions(knowledge.model, lab.sae, asked, knowledge.prompt_format, tokens)["attribution"] / len(asked)


def causal_table(lab: Lab, strength: float) -> pd.DataFrame:
    """Scores of some drawn features, and what clamping each alone does.

    Args:
        strength: of the clamp, in clamp units.

    Returns:
        feature, the four scores (columns named as in figures), and forget and side (`clamp_effects`).
    """
    settings, (forget, retain) = lab.profile.theorems, lab.firing_rates()
    ids = drawn_features(forget["mean_square"].to_numpy(), settings.features)
    asked = {role: questions_of(lab.knowledge, role, settings.questions) for role in ("forget", "side")}
    ratio = forget["mean_square"] / (retain["mean_square"] + EPSILON)
    scores = {"E[f^2] on forget text": forget["mean_square"], "ratio forget to retain": ratio,
              "firing rate on forget text": forget["firing_rate"],
              "attribution": attribution_of(lab, asked["forget"])}  # fmt: skip
    table = {"feature": ids} | {name: values.to_numpy()[ids] for name, values in scores.items()}
    for role, knowledge in asked.items():
        table[role] = clamp_effects(knowledge, lab.sae, ids, -strength * lab.clamp_unit)
    return pd.DataFrame(table)


def causal_ranks(table: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Spearman's rank correlation of each score of `causal_table` with the effect on questions of each role.

    Returns:
        score, role, spearman with its 95 % bootstrap interval over features, n (features), inert (features whose clamp
        changes no answer: they tie).
    """
    rows = []
    for score in [c for c in table if c not in ("feature", "forget", "side")]:
        for role in ("forget", "side"):
            x, y = table[score].to_numpy(), table[role].to_numpy()
            found = _with_interval("spearman", spearman, x, y, resamples)
            rows.append({"score": score, "role": role, **found, "n": len(table), "inert": int((y == 0).sum())})
    return pd.DataFrame(rows)


# --- 3: Neyman and Pearson --------------------------------------------------------------------------------------------


def question_statistics(
    knowledge: Knowledge, sae, features: Sequence[int], forget: np.ndarray, retain: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """What tests may know of each question: where the chosen features fire on its tokens after BOS.

    Args:
        forget, retain: firing rates of the chosen features, strictly between 0 and 1.

    Returns:
        role, rho, hot tokens, likelihood ratio and likelihood ratio per token (Bernoulli, features and tokens as if
        independent); and mean activations [questions, features].
    """
    prompts = prompt_tokens(knowledge.model.tokenizer, knowledge.asked, ORIGINAL_ORDER, knowledge.prompt_format)
    found = [a[1:].numpy() for a in token_activations(knowledge.model, sae, features, prompts, knowledge.batch_tokens)]
    ratios = [log_likelihood_ratio(a > 0, forget, retain) for a in found]
    hot = [int((a > 0).any(axis=1).sum()) for a in found]
    lengths = np.array([len(a) for a in found])
    table = {"role": [knowledge.roles[q.subject] for q in knowledge.asked], "rho": np.array(hot) / lengths}
    table |= {"hot tokens": hot, "likelihood ratio": ratios, "likelihood ratio per token": np.array(ratios) / lengths}
    return pd.DataFrame(table), np.stack([a.mean(axis=0) for a in found])


def log_likelihood_ratio(fires: np.ndarray, forget: np.ndarray, retain: np.ndarray) -> float:
    """Sum over tokens, features of the Bernoulli log-likelihood ratio; fires [tokens, features], rates [features]."""
    on, off = np.log(forget / retain), np.log((1 - forget) / (1 - retain))
    return float(np.where(fires, on, off).sum())


def rates_of(statistics: pd.DataFrame, features: Sequence[int]) -> np.ndarray:
    """Firing rates of some features, kept half a token away from 0 and 1."""
    chosen = statistics.iloc[np.asarray(features)]
    least = 0.5 / chosen["tokens"]
    return chosen["firing_rate"].clip(least, 1 - least).to_numpy()


def powers(lab: Lab, features: Sequence[int], resamples: int) -> pd.DataFrame:
    """Every test's AUC and power on half 1, forget questions against side effects and against the near domain.

    The logistic probe is fitted on half 0 with the mean activations of the chosen features.

    Returns:
        against, test, auc and difference (to rho's AUC) with 95 % bootstrap intervals over questions, drawn for all
        tests together; power (at 5 % false alarms), positives, negatives.
    """
    rates = [rates_of(statistics, features) for statistics in lab.firing_rates()]
    (_, seen), (table, asked) = (
        question_statistics(lab.knowledge_on(half), lab.sae, features, *rates) for half in (0, 1)
    )
    roles = np.array([lab.knowledge.roles[q.subject] for q in lab.knowledge_on(0).asked])
    tables = []
    for against in ("side", "near"):
        fitted, judged = np.isin(roles, ["forget", against]), table["role"].isin(["forget", against]).to_numpy()
        if not (roles == against).any() or not (table["role"] == against).any():
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression()).fit(seen[fitted], roles[fitted] == "forget")
        of = table[judged].assign(**{"logistic probe": probe.decision_function(asked[judged])})
        tables.append(compared(of, resamples).assign(against=against))
    return pd.concat(tables, ignore_index=True)


def compared(table: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """`powers` of one contrast: a column a test, and role, which is 'forget' for the positives."""
    forget = (table["role"] == "forget").to_numpy()
    tests = table.drop(columns="role")
    rng, places = np.random.default_rng(SEED), (np.flatnonzero(forget), np.flatnonzero(~forget))
    draws = [np.concatenate([rng.choice(of, len(of)) for of in places]) for _ in range(resamples)]
    drawn = {name: np.array([roc_auc_score(forget[i], v[i]) for i in draws])
             for name, v in ((name, tests[name].to_numpy()) for name in tests)}  # fmt: skip
    aucs = {name: float(roc_auc_score(forget, tests[name])) for name in tests}
    rows = []
    for name in tests:
        (low, high), apart = np.percentile(drawn[name], [2.5, 97.5]), drawn[name] - drawn["rho"]
        worse, better = np.percentile(apart, [2.5, 97.5])
        rows.append((name, aucs[name], low, high, aucs[name] - aucs["rho"], worse, better,
                     power(tests[name].to_numpy(), forget), int(forget.sum()), int((~forget).sum())))  # fmt: skip
    columns = ["test", "auc", "auc_low", "auc_high", "difference", "difference_low", "difference_high", "power"]
    return pd.DataFrame(rows, columns=[*columns, "positives", "negatives"])


def power(values: np.ndarray, positive: np.ndarray, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of positives strictly above the value that at most a share `false_alarms` of negatives exceeds."""
    threshold = np.quantile(values[~positive], 1 - false_alarms, method="higher")
    return float((values[positive] > threshold).mean())
