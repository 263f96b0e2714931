"""Notebook 12: is it gone, or hidden? What an attacker with embeddings, residuals or weights gets out of a model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from helpers.attacks.orthogonalisation import Orthogonalisation
from helpers.attacks.pruning import Pruning
from helpers.attacks.quantisation import Quantisation
from helpers.attacks.residual_vector import Place, ResidualVector
from helpers.engine.edited import Edited
from helpers.engine.forward import last_layer, with_weights
from helpers.engine.internals import answer_stream
from helpers.engine.scoring import read_batches, read_letter_logits, row_batches
from helpers.lab.pieces import Piece
from helpers.measures.logit_lens import lens
from helpers.measures.metrics import accuracy
from helpers.measures.probes import read_off, shuffled
from helpers.measures.reference import above_reference, differences
from helpers.methods.method import Method
from helpers.text.batches import Batch
from helpers.text.folds import split
from helpers.text.questions import ORDERS, ORIGINAL_ORDER, Order, Question, prompt_tokens, right_letters

if TYPE_CHECKING:
    from helpers.lab.lab import Lab

UNEDITED = "unedited"
# Every choice stands once under every letter.
ROTATIONS: tuple[Order, ...] = tuple(o for o in ORDERS if all((b - a) % 4 == 1 for a, b in pairwise(o)))
RIGHT, WRONG = "right letter", "random wrong letter"
FITTED, JUDGED, UNANSWERED = "fitted", "judged", "never answered"
PLAIN, LENS, PROBE, CONTROL = "asked plainly", "logit lens", "probe", "probe, shuffled labels"
# What an attacker must be able to touch, or at least to read.
ACCESS = {
    PLAIN: "prompt",
    "vector in the embeddings": "embeddings",
    "vector in the residual": "residual",
    "orthogonalisation": "residual",
    LENS: "residual, read",
    PROBE: "residual, read",
    "quantisation": "weights",
    "pruning": "weights",
}

Questions = Mapping[str, list[Question]]


class Asked(NamedTuple):
    """Questions as prompts.

    Attributes:
        batched: the prompts, question by question, order by order.
        right: index of the right letter of each, [prompts].
    """

    batched: list[Batch]
    right: Tensor


class Frame(NamedTuple):
    """How prompts are asked: the form, tokens a batch, and the layer after which interventions act."""

    prompt_format: str
    batch_tokens: int
    layer: int


def asked(model, questions: Sequence[Question], frame: Frame, orders: Sequence[Order] = ORIGINAL_ORDER) -> Asked:
    """Questions in some orders as prompts, rows of their own."""
    rows = prompt_tokens(model.tokenizer, questions, orders, frame.prompt_format)
    return Asked(
        list(row_batches(model, rows, frame.batch_tokens)), torch.tensor(right_letters(questions, orders)).flatten()
    )


def frame_of(lab: Lab) -> Frame:
    """The profile's form, batches and layer."""
    return Frame(lab.profile.model.prompt_format, lab.profile.model.batch_tokens, lab.profile.sae.layer)


def forget_halves(lab: Lab) -> dict[str, list[Question]]:
    """The known forget questions: half 0 to fit on, half 1 to judge; and those that the unedited model gets wrong.

    The last ones are forget questions that were asked, are not known, and are answered wrong in their own order.
    """
    forget = lab.profile.questions.forget
    known = {name: lab.knowledge_on(half).questions[forget] for half, name in enumerate((FITTED, JUDGED))}
    ids = {q.id for q in lab.known[forget]}
    others = [q for q in lab.questions[forget] if q.id not in ids]
    if others:
        found = asked(lab.model, others, frame_of(lab))
        wrong = read_batches(lab.model, found.batched, read_letter_logits).argmax(dim=1) != found.right
        others = [q for q, is_wrong in zip(others, wrong.tolist(), strict=True) if is_wrong]
    return known | {UNANSWERED: others}


def side_halves(lab: Lab) -> dict[str, list[Question]]:
    """Of each half as many known side-effect questions as `recovery.side_questions`, evenly from the subjects."""
    found, roles = {}, lab.knowledge.roles
    for half, name in enumerate((FITTED, JUDGED)):
        subjects = [of for s, of in lab.knowledge_on(half).questions.items() if roles[s] == "side"]
        each = -(-lab.profile.recovery.side_questions // max(1, len(subjects)))
        found[name] = [q for of in subjects for q in of[:each]]
    return found


def edit_of(lab: Lab, setting: Method | None) -> tuple[str, Edited]:
    """What figures call a setting, and the setting in place; None is the unedited model."""
    return (UNEDITED, lab.unedited) if setting is None else (setting.label, lab.edited(setting))


class Attack(NamedTuple):
    """What is done to every setting, as pieces of work.

    Attributes:
        stage: the name under which results are stored.
        what: the things to do, as arguments.
        key: of the lab, what it has edited, and those arguments: what a result depends on.
        compute: of the lab, a setting and those arguments: a table.
    """

    stage: str
    what: Sequence[tuple]
    key: Callable[..., dict[str, str]]
    compute: Callable[..., list[pd.DataFrame]]

    def pieces(self, lab: Lab, settings: Sequence[Method | None]) -> list[Piece]:
        """One piece a setting and thing to do, in that order."""
        found = []
        for setting, one in product(settings, self.what):
            label, edited = edit_of(lab, setting)
            more = (x if isinstance(x, str) else "a vector a question" if x else "one vector" for x in one)
            words, key = ", ".join((label, self.stage, *more)), self.key(lab, edited, *one)
            found.append(Piece(words, f"recovery-{self.stage}", (key,), self.compute, (setting, *one)))
        return found

    def on(self, lab: Lab, settings: Sequence[Method | None]) -> pd.DataFrame:
        """The results as one table with the column `method`."""
        found, jobs = lab.computed(self.pieces(lab, settings), dear=True), product(settings, self.what)
        tables = [t.assign(method=edit_of(lab, s)[0]) for (t,), (s, _) in zip(found, jobs, strict=True)]
        return pd.concat(tables, ignore_index=True)


def all_attacks(lab: Lab, settings: Sequence[Method]) -> None:
    """Do all that `vectors`, `by_layer`, `other_weights` and `orthogonalised` ask for, which then find it stored.

    In one queue, so that no process waits for the last attack of a section; the longest come first.
    """
    with_unedited = [None, *settings]
    of = ((VECTORS, settings), (LAYERS, with_unedited), (WEIGHTS, with_unedited), (DIRECTIONS, settings))
    lab.computed([piece for attack, attacked in of for piece in attack.pieces(lab, attacked)], dear=True)


# --- a vector in the residual, or in the embeddings -------------------------------------------------------------------


def vector_attacks(lab: Lab, place: Place, each: bool) -> list[ResidualVector]:
    """One attack a bound on the vector's length; where each question has its own, at the largest bound alone."""
    of = lab.profile.recovery
    steps, bounds = (of.each_steps, (max(of.bounds),)) if each else (of.steps, of.bounds)
    return [ResidualVector(place, each, bound, steps, of.learning_rate) for bound in bounds]


def vectors(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """What is said with a vector in the stream: fitted on half of the forget questions, judged on the other.

    Of the public demonstration's kind beside it: a vector a question, fitted to the very question that it is judged on.

    Returns:
        method, place, each (a vector a question), bound (0: no vector), target ('right letter', 'random wrong letter'),
        asked ('fitted', 'judged', 'never answered': which questions), n, right (how many say the target), accuracy
        (their share), low, high, the difference `above` to the reference and `beyond` to the share that says the wrong
        target, which is what a vector gets out of a model that knows nothing of it.
    """
    rows = VECTORS.on(lab, settings)
    by = ["method", "place", "each", "bound", "target", "asked"]
    table = above_reference(accuracy(rows, by), "method", by[1:])
    wrong = table[table["target"] == WRONG].drop(columns="target")[[*by[:4], "asked", "accuracy", "low", "high"]]
    both = table[[*by, "accuracy", "low", "high"]].merge(wrong, on=[*by[:4], "asked"], how="left", suffixes=("", "_w"))
    return table.assign(**differences(both, "_w", "beyond"))


def _vectors_how(lab: Lab, place: Place, each: bool) -> tuple:
    tokens, seed = lab.profile.model.training_tokens, lab.profile.recovery.seed
    return lab.once(forget_halves), vector_attacks(lab, place, each), frame_of(lab), tokens, seed


def _vectors_key(lab: Lab, edited: Edited, place: Place, each: bool) -> dict[str, str]:
    how = _vectors_how(lab, place, each)
    return lab.key(vector_answers, edited, *how)


def _vectors(lab: Lab, setting: Method | None, place: Place, each: bool) -> list[pd.DataFrame]:
    how = _vectors_how(lab, place, each)
    return [vector_answers(edit_of(lab, setting)[1], *how)]


def vector_answers(
    edited: Edited, questions: Questions, attacks: Sequence[ResidualVector], frame: Frame, tokens: int, seed: int
) -> pd.DataFrame:
    """How often the target is said, with no vector (bound 0) and with every attack's.

    Args:
        questions: to fit on, to judge, and those never answered right, of which there may be none.
        tokens: that are gone back through at once.
        seed: draws the wrong letters.
    """
    # a vector a question is fitted to the very questions that it is judged on
    names = [name for name, of in questions.items() if of and not (attacks[0].each and name == FITTED)]
    sets = {name: asked(edited.model, questions[name], frame) for name in names}
    prompts = {name: attacks[0].prompts(edited, frame.layer, of.batched) for name, of in sets.items()}
    draw, rows = torch.Generator().manual_seed(seed), []
    targets = {RIGHT: {name: of.right for name, of in sets.items()}}
    targets[WRONG] = {n: (of.right + torch.randint(1, 4, of.right.shape, generator=draw)) % 4 for n, of in sets.items()}
    none = replace(attacks[0], bound=0.0, steps=0)
    for attack, (target, letters) in product([none, *attacks], targets.items()):
        shared = None if attack.each else attack.fit(prompts[FITTED], letters[FITTED], tokens)
        for name, wanted in letters.items():
            vector = attack.fit(prompts[name], wanted, tokens) if shared is None else shared
            hits = int((attack.letters(prompts[name], vector).argmax(dim=1) == wanted).sum())
            rows.append((attack.place, attack.each, attack.bound, target, name, len(wanted), hits))
    return pd.DataFrame(rows, columns=["place", "each", "bound", "target", "asked", "n", "right"])


# --- read off by layer ------------------------------------------------------------------------------------------------


def by_layer(lab: Lab, settings: Sequence[Method | None]) -> pd.DataFrame:
    """What the logit lens and linear probes read off the residual at the answer's place, layer by layer.

    Returns:
        method, measure ('logit lens', 'probe', 'probe, shuffled labels'), layer, half, n, right, accuracy, low, high,
        the difference `above` to the reference, and sae_layer.
    """
    rows = LAYERS.on(lab, settings)
    by = ["method", "measure", "layer", "half"]
    table = above_reference(accuracy(rows, by), "method", by[1:])
    return table.assign(sae_layer=lab.profile.sae.layer)


def _layers_key(lab: Lab, edited: Edited) -> dict[str, str]:
    return lab.key(
        read_layers, edited, lab.once(forget_halves), lab.once(parts), frame_of(lab), lab.profile.recovery.seed
    )


def _layers(lab: Lab, setting: Method | None) -> list[pd.DataFrame]:
    how = (lab.once(forget_halves), lab.once(parts), frame_of(lab), lab.profile.recovery.seed)
    return [read_layers(edit_of(lab, setting)[1], *how)]


def parts(lab: Lab) -> list[list[str]]:
    """Ids of the known forget questions in two parts that are about different things, drawn by the seed.

    Where nobody has said what a question is about, or all are about one thing, the questions themselves are drawn.
    """
    known, seed = lab.known[lab.profile.questions.forget], lab.profile.recovery.seed
    about = sorted({q.about for q in known})
    if "" in about or len(about) < 2:
        lab.warn("probes: questions are drawn one by one, for it is not said that they are about different things")
        return split(sorted(str(q.id) for q in known), 2, seed)
    return [[str(q.id) for q in known if q.about in part] for part in split(about, 2, seed)]


def read_layers(
    edited: Edited, questions: Questions, of_parts: Sequence[Sequence[str]], frame: Frame, seed: int
) -> pd.DataFrame:
    """Counts of what is read off after every layer: measure, layer, half, n, right.

    A probe sees the questions of one part in four orders, so that every letter is right equally often, and is judged on
    the other part in the order in which questions are asked. Below an intervention's layer nothing is guarded.
    """
    listed, half = (
        [*questions[FITTED], *questions[JUDGED]],
        np.repeat([0, 1], [len(questions[FITTED]), len(questions[JUDGED])]),
    )
    found = asked(edited.model, listed, frame, ROTATIONS)
    stream, letters = answer_stream(edited.model, found.batched, edited.intervention), found.right.numpy()
    group = np.repeat([int(str(q.id) in of_parts[1]) for q in listed], len(ROTATIONS))
    as_asked, rows = np.arange(len(letters)) % len(ROTATIONS) == 0, []
    control = shuffled(letters, seed)
    for layer in range(stream.shape[1]):
        x = stream[:, layer]
        said = lens(edited.model, x[as_asked]).argmax(dim=-1).numpy()
        read = {LENS: said == letters[as_asked]}
        read |= {name: read_off(x.numpy(), of, group)[as_asked] for name, of in ((PROBE, letters), (CONTROL, control))}
        rows += [
            (name, layer, h, int((half == h).sum()), int(right[half == h].sum()))
            for name, right in read.items()
            for h in (0, 1)
        ]
    return pd.DataFrame(rows, columns=["measure", "layer", "half", "n", "right"])


def best_layers(table: pd.DataFrame) -> pd.DataFrame:
    """Of `by_layer` the rows of half 1 at the layer that is best on half 0, of every method and measure."""
    by = ["method", "measure"]
    fitted = table[table["half"] == 0]
    best = fitted.loc[fitted.groupby(by, sort=False)["accuracy"].idxmax(), [*by, "layer"]]
    return best.merge(table[table["half"] == 1], on=[*by, "layer"])


# --- a direction taken out --------------------------------------------------------------------------------------------


def orthogonalised(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Answers without the direction from benign to hazard prompts, taken out after one layer.

    Returns:
        method, layer, role ('forget', 'side'), half, n, right, accuracy, low, high.
    """
    rows = DIRECTIONS.on(lab, settings)
    return accuracy(rows, ["method", "layer", "role", "half"])


def _orthogonal_key(lab: Lab, edited: Edited) -> dict[str, str]:
    return lab.key(without_direction, edited, lab.once(forget_halves), lab.once(side_halves), frame_of(lab))


def _orthogonal(lab: Lab, setting: Method | None) -> list[pd.DataFrame]:
    how = (lab.once(forget_halves), lab.once(side_halves), frame_of(lab))
    return [without_direction(edit_of(lab, setting)[1], *how)]


def without_direction(edited: Edited, forget: Questions, side: Questions, frame: Frame) -> pd.DataFrame:
    """Counts of right answers without the direction, by the layer after which it is taken out; fitted on half 0.

    Raises:
        ValueError: there are no known side-effect questions of half 0, so nothing says which way is benign.
    """
    if not side[FITTED]:
        raise ValueError("orthogonalisation needs known side-effect questions, and half 0 has none: ask more (--limit)")
    both = {"forget": forget, "side": side}
    sets = {(role, half): asked(edited.model, of[name], frame)
            for role, of in both.items() for half, name in enumerate((FITTED, JUDGED)) if of[name]}  # fmt: skip
    rows = []
    for layer in range(frame.layer, last_layer(edited.model) + 1):
        attack = Orthogonalisation(layer)
        direction = attack.direction(edited, sets["forget", 0].batched, sets["side", 0].batched)
        for (role, half), of in sets.items():
            said = attack.letters(edited, of.batched, direction).argmax(dim=1)
            rows.append((layer, role, half, len(said), int((said == of.right).sum())))
    return pd.DataFrame(rows, columns=["layer", "role", "half", "n", "right"])


def best_directions(table: pd.DataFrame) -> pd.DataFrame:
    """Of `orthogonalised` the forget rows of half 1 after the layer that is best on half 0, of every method."""
    forget = table[table["role"] == "forget"]
    fitted = forget[forget["half"] == 0]
    best = fitted.loc[fitted.groupby("method", sort=False)["accuracy"].idxmax(), ["method", "layer"]]
    return best.merge(forget[forget["half"] == 1], on=["method", "layer"])


# --- other weights ----------------------------------------------------------------------------------------------------


def weight_attacks(lab: Lab) -> list[tuple[str, Quantisation | Pruning]]:
    """Every number of bits with every group, and every pruned share, by the attack's name."""
    of = lab.profile.recovery
    rounding = [("quantisation", Quantisation(bits, group)) for bits, group in product(of.bits, of.groups)]
    return rounding + [("pruning", Pruning(share)) for share in of.pruned_shares]


def other_weights(lab: Lab, settings: Sequence[Method | None]) -> pd.DataFrame:
    """Answers of quantised and of pruned weights, an intervention still in place.

    Returns:
        method, attack ('asked plainly' for before), setting (in words), bits, group, share, buckets (share of weights
        whose bucket is not the unedited model's, over the edited matrices), role ('forget', 'side'), half, n, right,
        accuracy, low, high.
    """
    rows = WEIGHTS.on(lab, settings)
    by = ["method", "attack", "setting", "bits", "group", "share", "buckets", "role", "half"]
    return accuracy(rows, by)


def _weights_key(lab: Lab, edited: Edited) -> dict[str, str]:
    return lab.key(
        with_other_weights, edited, lab.once(forget_halves), lab.once(side_halves), weight_attacks(lab), frame_of(lab)
    )


def _weights(lab: Lab, setting: Method | None) -> list[pd.DataFrame]:
    how = (lab.once(forget_halves), lab.once(side_halves), weight_attacks(lab), frame_of(lab))
    return [with_other_weights(edit_of(lab, setting)[1], *how)]


def with_other_weights(
    edited: Edited, forget: Questions, side: Questions, attacks: Sequence[tuple], frame: Frame
) -> pd.DataFrame:
    """Counts of right answers before and under each attack: forget questions of both halves, side effects of half 1."""
    sets = [("forget", half, asked(edited.model, forget[name], frame)) for half, name in enumerate((FITTED, JUDGED))]
    if side[JUDGED]:
        sets.append(("side", 1, asked(edited.model, side[JUDGED], frame)))
    rows: list[tuple] = []

    def ask(model, *about) -> None:
        for role, half, of in sets:
            said = read_batches(model, of.batched, read_letter_logits, edited.intervention).argmax(dim=1)
            rows.append((*about, role, half, len(said), int((said == of.right).sum())))

    ask(edited.model, PLAIN, "", *[np.nan] * 4)
    for name, attack in attacks:
        buckets = attack.moved_buckets(edited.model, edited.original) if isinstance(attack, Quantisation) else np.nan
        values = (getattr(attack, field, np.nan) for field in ("bits", "group", "share"))
        ask(with_weights(edited.model, attack.weights(edited.model)), name, attack.words, *values, buckets)
    columns = ["attack", "setting", "bits", "group", "share", "buckets", "role", "half", "n", "right"]
    return pd.DataFrame(rows, columns=columns)


VECTORS = Attack("vectors", (("residual", False), ("residual", True), ("embeddings", False)), _vectors_key, _vectors)
LAYERS = Attack("layers", ((),), _layers_key, _layers)
DIRECTIONS = Attack("orthogonalisation", ((),), _orthogonal_key, _orthogonal)
WEIGHTS = Attack("weights", ((),), _weights_key, _weights)


# --- one table --------------------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What the attacks found: the tables of `vectors`, `by_layer`, `orthogonalised` and `other_weights`."""

    vectors: pd.DataFrame
    layers: pd.DataFrame
    orthogonalised: pd.DataFrame
    weights: pd.DataFrame

    def tries(self) -> list[pd.DataFrame]:
        """Counts of every attack at every setting: method, attack, setting, role, half, n, right."""
        of = self.vectors[
            (self.vectors["target"] == RIGHT) & (self.vectors["asked"] != UNANSWERED) & ~self.vectors["each"]
        ]
        pushed = of[of["bound"] > 0].assign(role="forget", half=(of["asked"] == JUDGED).astype(int))
        pushed = pushed.assign(
            attack="vector in the " + pushed["place"], setting=pushed["bound"].map("length {:g}".format)
        )
        read = self.layers[self.layers["measure"].isin([LENS, PROBE])]
        read = read.assign(attack=read["measure"], setting=read["layer"].map("after layer {}".format), role="forget")
        out = self.orthogonalised
        out = out.assign(attack="orthogonalisation", setting=out["layer"].map("after layer {}".format))
        columns = ["method", "attack", "setting", "role", "half", "n", "right"]
        return [table[columns] for table in (pushed, out, read, self.weights)]


def worst_case(found: Found) -> pd.DataFrame:
    """Every attack on every method, at the attack's setting that was best on half 0, with what it does on half 1.

    A vector a question is left out, for it was told the right letter of the very question that it is judged on.

    Returns:
        method, attack, access (what an attacker must touch), setting (of the attack, in words), n, right, accuracy,
        low, high (forget questions of half 1), the difference `above` to the reference under the same attack,
        side_accuracy, side_low, side_high, side_n (where side-effect questions are asked under it), worst (of a
        method's attacks the one that got most on half 0: the largest of several shares of half 1 would be large by
        luck).
    """
    tries = pd.concat(found.tries(), ignore_index=True)
    tries = tries[tries["method"].isin(found.vectors["method"])]
    fitted = accuracy(tries[(tries["role"] == "forget") & (tries["half"] == 0)], ["method", "attack", "setting"])
    best = fitted.loc[fitted.groupby(["method", "attack"], sort=False)["accuracy"].idxmax()]
    strongest = best.loc[best.groupby("method", sort=False)["accuracy"].idxmax(), ["method", "attack"]].assign(
        worst=True
    )
    chosen = best[["method", "attack", "setting"]].merge(tries[tries["half"] == 1], on=["method", "attack", "setting"])
    table = accuracy(chosen[chosen["role"] == "forget"], ["method", "attack", "setting"])
    side = accuracy(chosen[chosen["role"] == "side"], ["method", "attack"]).drop(columns="right")
    side = side.rename(columns={name: f"side_{name}" for name in ("n", "accuracy", "low", "high")})
    table = above_reference(table.merge(side, on=["method", "attack"], how="left"), "method", ["attack"])
    table.insert(2, "access", table["attack"].map(ACCESS))
    order = [list(found.vectors["method"].unique()), list(ACCESS)]
    table = table.sort_values(["method", "attack"], key=lambda x: x.map(order[x.name == "attack"].index))
    table = table.merge(strongest, on=["method", "attack"], how="left")
    return table.assign(worst=table["worst"].notna())
