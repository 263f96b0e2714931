"""Notebook 06: fine-tuning the knowledge back (Muhamed et al. 2025, Figs. 5, 9 and 10), and what it tells of hiding."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import Tensor

from helpers.attacks.relearning import NO_TEXTS, Relearned, Relearning, check_attack_text, relearned
from helpers.engine.edited import Edited
from helpers.engine.steps import Passes
from helpers.lab.lab import Lab
from helpers.lab.pieces import Piece
from helpers.measures.knowledge import Knowledge
from helpers.measures.reference import ABOVE, above_reference
from helpers.methods.method import Method
from helpers.text.corpora import Document, pack
from helpers.text.questions import encode_texts

# The roles of forget questions where the attack's text tells of one half of the things asked about.
TOLD, NOT_TOLD = "told", "not told"

Training = tuple[int, bool]  # which setting, and whether its intervention is in place while fine-tuning


def attacks(lab: Lab) -> list[Relearning]:
    """One attack a seed at the first learning rate, and one with the first seed at every other.

    All on the same forget text, which has passed `check_attack_text`.
    """
    sizes = lab.profile.relearning
    rows = pack(lab.model.tokenizer, [d.text for d in attack_text(lab)], lab.profile.texts.row_length)[: sizes.rows]
    first, *others = sizes.learning_rates
    runs = [(first, seed) for seed in sizes.seeds] + [(rate, sizes.seeds[0]) for rate in others]
    passes = Passes.of(lab.profile.model)
    return [
        Relearning(rows, sizes.epochs, rate, sizes.batch_rows, seed, passes, sizes.asked_after) for rate, seed in runs
    ]


def attack_text(lab: Lab) -> list[Document]:
    """The forget documents. Raises ValueError where they prove nothing (`check_attack_text`)."""
    check_attack_text(lab.forget_documents, lab.profile.questions.forget, lab.knowledge.asked)
    return lab.forget_documents


def drift_texts(lab: Lab) -> dict[str, Tensor]:
    """Rows on which the drift of the residual is measured, by the name of their text."""
    n = lab.profile.relearning.drift_rows
    return {"forget text": lab.forget_rows[:n], "retain text": lab.retain_rows[:n]}


def all_trainings(lab: Lab, settings: Sequence[Method]) -> None:
    """Do all that `few_documents`, `relearning` and `other_half` ask for, which then find it stored.

    In one queue, so that no process waits for the last training of a section; the longest come first.
    """
    lab.computed([piece for of in (_few_pieces, _pieces, _half_pieces) for piece in of(lab, settings)], dear=True)


def relearning(lab: Lab, settings: Sequence[Method]) -> Relearned:
    """Every attack on every setting, in training arms of their own (`relearned`), on the judged half of the questions.

    Each attack and training is a piece of work. An intervention is attacked twice: trained without and with it in
    place. Accuracies stand beside the reference's (`above_reference`). At other rates than the first only the forget
    questions are asked, and the drift is measured in the first attack alone: nothing else is shown.
    """
    found = lab.computed(_pieces(lab, settings), dear=True)
    accuracies, losses, drift = (
        pd.concat([table for table in tables if len(table)], ignore_index=True) for tables in zip(*found, strict=True)
    )
    return Relearned(above_reference(accuracies, "arm", ["seed", "learning_rate", "epoch", "role"]), losses, drift)


def _pieces(lab: Lab, settings: Sequence[Method]) -> list[Piece]:
    return [
        Piece(
            f"{settings[i].label}, {'hook on' if hooked else 'hook off'} while training, seed {attack.seed}, "
            f"learning rate {attack.learning_rate:g}",
            "relearning",
            _keys(lab, settings[i], number, hooked),
            _relearned,
            (settings[i], number, hooked),
        )
        for number, attack in enumerate(lab.once(attacks))
        for i, hooked in trainings(lab, settings)
    ]


def _asked(lab: Lab, number: int) -> tuple[Knowledge, Mapping[str, Tensor]]:
    """What an attack is asked, and the texts on which drift is measured in it."""
    first, attack = lab.once(attacks)[0], lab.once(attacks)[number]
    questions = lab.judged if attack.learning_rate == first.learning_rate else lab.once(forget_questions)
    return questions, lab.once(drift_texts) if attack is first else NO_TEXTS


def trainings(lab: Lab, settings: Sequence[Method]) -> list[Training]:
    """The fine-tunings that every attack consists of: one a setting, and where it has an intervention one with it."""
    hooks = [lab.edited(setting).intervention is not None for setting in settings]
    return [(i, hooked) for i, hook in enumerate(hooks) for hooked in ((False, True) if hook else (False,))]


def _keys(lab: Lab, setting: Method, number: int, hooked: bool) -> tuple[dict[str, str], ...]:
    questions, texts = _asked(lab, number)
    key = lab.key(
        relearned, questions, lab.edited(setting), setting.label, lab.once(attacks)[number], hooked, dict(texts)
    )
    return tuple(key | {"the result": name} for name in Relearned._fields)


def _relearned(lab: Lab, setting: Method, number: int, hooked: bool) -> list[pd.DataFrame]:
    questions, texts = _asked(lab, number)
    return list(relearned(questions, lab.edited(setting), setting.label, lab.once(attacks)[number], hooked, texts))


def attacked_once(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Forget accuracy before the main attack and after it, of many settings: one seed, judged on the judged half.

    Returns:
        arm, seed, learning_rate, epoch, role, n, right, accuracy, low, high and the difference to the reference.
    """
    pieces = [
        Piece(f"{setting.label}, {'hook on' if hooked else 'hook off'} while training, attacked once",
              "relearning-once", (lab.key(relearned_accuracies, lab.once(forget_questions), lab.edited(setting),
              setting.label, lab.once(main_attack), hooked),), _once, (setting, hooked))
        for setting, hooked in ((settings[i], hooked) for i, hooked in trainings(lab, settings))
    ]  # fmt: skip
    table = pd.concat([table for (table,) in lab.computed(pieces, dear=True)], ignore_index=True)
    return above_reference(table, "arm", ["epoch", "role"])


def main_attack(lab: Lab) -> Relearning:
    """The first of `attacks`, which asks the questions when it is over and not on the way."""
    first, *_ = lab.once(attacks)
    return replace(first, asked_after=(first.epochs,))


def _once(lab: Lab, setting: Method, hooked: bool) -> list[pd.DataFrame]:
    questions, attack = lab.once(forget_questions), lab.once(main_attack)
    return [relearned_accuracies(questions, lab.edited(setting), setting.label, attack, hooked)]


def main_rate(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first learning rate."""
    return table[table["learning_rate"] == table["learning_rate"].iloc[0]].reset_index(drop=True)


def by_rate(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Of every learning rate the first seed's forget questions: what Fig. 10 puts beside Fig. 5."""
    forget = accuracies[(accuracies["role"] == "forget") & (accuracies["seed"] == accuracies["seed"].iloc[0])]
    return forget.reset_index(drop=True)


def moved(lab: Lab, found: Relearned) -> pd.DataFrame:
    """Drift of the residual and training loss at the first rate and seed, in one table (Fig. 9).

    Returns:
        arm, text ('forget text', 'retain text', 'training'), measure ('cosine', 'norm ratio', 'loss'), x (layer or
        step), n (rows; 0 for a loss), value, low, high, sae_layer.
    """
    losses = found.losses.rename(columns={"step": "x", "loss": "value"}).assign(text="training", measure="loss", n=0)
    both = pd.concat([found.drift.rename(columns={"layer": "x"}), losses], ignore_index=True)
    both = main_rate(both[both["seed"] == both["seed"].iloc[0]])
    columns = ["arm", "text", "measure", "x", "n", "value", "low", "high"]
    return both[columns].assign(sae_layer=lab.profile.sae.layer)


def along_the_way(curves: pd.DataFrame, role: str = "forget") -> pd.DataFrame:
    """Accuracy of a role before the attack, after one epoch and after all: arm, when ('0', '1', 'last'), mean accuracy.

    The mean is over seeds.
    """
    asked = curves[curves["role"] == role]
    found = [
        asked[asked["epoch"] == epoch].groupby("arm", sort=False)["accuracy"].mean().reset_index().assign(when=when)
        for when, epoch in (("0", 0), ("1", 1), ("last", asked["epoch"].max()))
    ]
    return pd.concat(found, ignore_index=True)[["arm", "when", "accuracy"]]


# --- few documents ----------------------------------------------------------------------------------------------------


def few_documents(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Forget accuracy after fine-tuning on a few documents, the same number of steps for every number of them.

    Returns:
        arm, seed, documents (0 is before the attack), steps, n, right, accuracy, low, high and the difference to the
        reference.
    """
    table = pd.concat([table for (table,) in lab.computed(_few_pieces(lab, settings), dear=True)], ignore_index=True)
    return above_reference(table, "arm", ["seed", "documents"])


def _few_pieces(lab: Lab, settings: Sequence[Method]) -> list[Piece]:
    return [
        Piece(f"{setting.label}, {'hook on' if hooked else 'hook off'} while training, few documents, seed {seed}",
              "relearning-few", (lab.key(relearned_from_few, lab.once(forget_questions), lab.edited(setting),
              setting.label, lab.once(few_attacks, seed), hooked),), _few, (setting, seed, hooked))
        for seed in lab.profile.relearning.few_seeds
        for setting, hooked in ((settings[i], hooked) for i, hooked in trainings(lab, settings))
    ]  # fmt: skip


def few_attacks(lab: Lab, seed: int) -> list[Relearning]:
    """One attack a number of documents, drawn by the seed, the fewer among the more; a document is a row.

    All take `few_steps` steps of at most `batch_rows` rows.

    Raises:
        ValueError: more documents are wanted than there are, or steps that are no whole number of epochs.
    """
    sizes, documents = lab.profile.relearning, attack_text(lab)
    if max(sizes.few_documents) > len(documents):
        raise ValueError(f"relearning.few_documents = {max(sizes.few_documents)}, there are {len(documents)} documents")
    order = np.random.default_rng(seed).permutation(len(documents))[: max(sizes.few_documents)]
    rows = encode_texts(lab.model.tokenizer, [documents[i].text for i in order])
    rows = [row[: lab.profile.texts.row_length] for row in rows]
    how = (sizes.few_steps, sizes.learning_rates[0], sizes.batch_rows, seed, Passes.of(lab.profile.model))
    return [_of_steps(rows[:n], *how) for n in sizes.few_documents]


def _of_steps(
    rows: list[list[int]], steps: int, learning_rate: float, batch_rows: int, seed: int, passes: Passes
) -> Relearning:
    an_epoch = -(-len(rows) // batch_rows)
    if steps % an_epoch:
        raise ValueError(f"relearning.few_steps = {steps}: {len(rows)} documents take {an_epoch} steps an epoch, which "
                         "does not divide it")  # fmt: skip
    epochs = steps // an_epoch
    return Relearning(rows, epochs, learning_rate, batch_rows, seed, passes, (epochs,))


def relearned_accuracies(
    knowledge: Knowledge, edited: Edited, label: str, attack: Relearning, in_training: bool
) -> pd.DataFrame:
    """The accuracies of `relearned` alone, where nobody asks for losses and drift."""
    return relearned(knowledge, edited, label, attack, in_training).accuracies


def forget_questions(lab: Lab) -> Knowledge:
    """The judged half of the questions to forget alone."""
    forget = lab.profile.questions.forget
    return replace(lab.judged, questions={forget: lab.judged.questions[forget]})


def relearned_from_few(
    knowledge: Knowledge, edited: Edited, label: str, few: Sequence[Relearning], in_training: bool
) -> pd.DataFrame:
    """`relearned` by attacks of one number of steps: a row an arm and number of documents, 0 for before."""
    found = []
    for attack in few:
        table = relearned(knowledge, edited, label, attack, in_training).accuracies
        documents = table["epoch"].gt(0) * len(attack.rows)
        found.append(table.assign(documents=documents, steps=attack.epochs * attack.epoch_steps))
    table = pd.concat(found).drop_duplicates(["arm", "documents"])
    return table.drop(columns=["epoch", "role", "learning_rate"]).reset_index(drop=True)


def _few(lab: Lab, setting: Method, seed: int, hooked: bool) -> list[pd.DataFrame]:
    edited, few = lab.edited(setting), lab.once(few_attacks, seed)
    return [relearned_from_few(lab.once(forget_questions), edited, setting.label, few, hooked)]


# --- the other half ---------------------------------------------------------------------------------------------------


def other_half(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Fine-tuning on documents about half of the things asked about: what comes back of the others was hidden.

    Where nobody has said what documents and questions are about, that is a warning, and every arm has one row of no
    question.

    Returns:
        arm, seed, epoch, role ('told' and 'not told': whether the text is about what is asked), n, right, accuracy,
        low, high and the difference to the reference.
    """
    pieces = _half_pieces(lab, settings)
    if not pieces:
        lab.warn("the other half: nobody has said what this profile's documents are about, so it is not attacked")
        return _nothing_told([setting.label for setting in settings], lab.profile.relearning.learning_rates[0])
    table = pd.concat([table for (table,) in lab.computed(pieces, dear=True)], ignore_index=True)
    return above_reference(table, "arm", ["seed", "epoch", "role"])


def _half_pieces(lab: Lab, settings: Sequence[Method]) -> list[Piece]:
    """None where nobody has said what documents are about."""
    if not any(document.about for document in lab.forget_documents):
        return []
    return [
        Piece(f"{setting.label}, {'hook on' if hooked else 'hook off'} while training, the other half, seed {seed}",
              "relearning-half", (lab.key(relearned_accuracies, lab.once(half_questions, seed), lab.edited(setting),
              setting.label, lab.once(half_attack, seed), hooked),), _half, (setting, seed, hooked))
        for seed in lab.profile.relearning.half_seeds
        for setting, hooked in ((settings[i], hooked) for i, hooked in trainings(lab, settings))
    ]  # fmt: skip


def _nothing_told(labels: Sequence[str], rate: float) -> pd.DataFrame:
    counts = {"seed": 0, "learning_rate": rate, "epoch": 0, "role": NOT_TOLD, "n": 0, "right": 0}
    return pd.DataFrame({"arm": labels}).assign(
        **counts, **dict.fromkeys(["accuracy", "low", "high", *ABOVE], float("nan"))
    )


def told(about: Sequence[str], seed: int) -> frozenset[str]:
    """Half of the names, rounded down, drawn by the seed."""
    names = sorted(set(about))
    drawn = np.random.default_rng(seed).permutation(len(names))[: len(names) // 2]
    return frozenset(names[i] for i in drawn)


def half_attack(lab: Lab, seed: int) -> Relearning:
    """Fine-tuning on packed documents about the first half of the things that forget questions ask about.

    Raises:
        ValueError: there is no document about any of them.
    """
    sizes, names = lab.profile.relearning, _told(lab, seed)
    texts = [document.text for document in attack_text(lab) if document.about in names]
    if not texts:
        raise ValueError(f"the half that is told (seed {seed}) has no documents: none is about {sorted(names)}")
    rows = pack(lab.model.tokenizer, texts, lab.profile.texts.row_length)[: sizes.rows]
    how = (sizes.learning_rates[0], sizes.batch_rows, seed, Passes.of(lab.profile.model))
    return Relearning(rows, sizes.epochs, *how, (sizes.epochs,))


def half_questions(lab: Lab, seed: int) -> Knowledge:
    """The judged forget questions, those about what the text tells apart from those about the other half.

    Raises:
        ValueError: one of the halves has no question.
    """
    questions, names = lab.judged.questions[lab.profile.questions.forget], _told(lab, seed)
    halves = {
        TOLD: [q for q in questions if q.about in names],
        NOT_TOLD: [q for q in questions if q.about not in names],
    }
    if empty := [half for half, of in halves.items() if not of]:
        raise ValueError(f"no known question is about the half that is {empty[0]} (seed {seed}), of {len(questions)}")
    return replace(lab.judged, questions=halves, roles={half: half for half in halves})


def _told(lab: Lab, seed: int) -> frozenset[str]:
    return told([d.about for d in lab.forget_documents if d.about], seed)


def _half(lab: Lab, setting: Method, seed: int, hooked: bool) -> list[pd.DataFrame]:
    questions, attack = lab.once(half_questions, seed), lab.once(half_attack, seed)
    return [relearned_accuracies(questions, lab.edited(setting), setting.label, attack, hooked)]
