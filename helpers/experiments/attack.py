"""Notebook 06: fine-tuning the knowledge back (Muhamed et al. 2025, Fig. 5)."""

from collections.abc import Sequence

import pandas as pd

from helpers.attacks.relearning import Relearning, check_attack_text, relearned
from helpers.lab.lab import Lab
from helpers.lab.pieces import Piece
from helpers.methods.method import Method
from helpers.text.corpora import pack


def attacks(lab: Lab) -> list[Relearning]:
    """One attack a seed of the profile, on forget text that has passed `check_attack_text`."""
    sizes, documents = lab.profile.relearning, lab.forget_documents
    check_attack_text(documents, lab.profile.questions.forget, lab.knowledge.asked)
    rows = pack(lab.model.tokenizer, [d.text for d in documents], lab.profile.texts.row_length)[: sizes.rows]
    how = (sizes.epochs, sizes.learning_rate, sizes.batch_rows)
    return [Relearning(rows, *how, seed) for seed in sizes.seeds]


def relearning_curves(lab: Lab, settings: Sequence[Method]) -> pd.DataFrame:
    """Every attack on every setting, in training arms of their own (`relearned`), on the judged half of the questions.

    Each seed and arm is a piece of work. An intervention is attacked twice: trained without and with it in place.
    """
    edits = [lab.edited(setting) for setting in settings]
    asked = [
        (seed, i, in_training)
        for seed in range(len(lab.profile.relearning.seeds))
        for i, edit in enumerate(edits)
        for in_training in ((False,) if edit.intervention is None else (False, True))
    ]
    attack = lab.once(attacks)
    pieces = [
        Piece(
            f"{settings[i].label}, {'hook on' if hooked else 'hook off'} while training, seed {attack[seed].seed}",
            "relearning",
            (lab.key(relearned, lab.judged, edits[i], settings[i].label, attack[seed], hooked),),
            _relearned,
            (settings[i], seed, hooked),
        )
        for seed, i, hooked in asked
    ]
    return pd.concat([table for (table,) in lab.computed(pieces, dear=True)], ignore_index=True)


def _relearned(lab: Lab, setting: Method, seed: int, in_training: bool) -> list[pd.DataFrame]:
    attack = lab.once(attacks)[seed]
    return [relearned(lab.judged, lab.edited(setting), setting.label, attack, in_training)]


def along_the_way(curves: pd.DataFrame) -> pd.DataFrame:
    """Forget accuracy before the attack, after one epoch and after all: arm, when ('0', '1', 'last'), mean accuracy.

    The mean is over seeds.
    """
    forget = curves[curves["role"] == "forget"]
    found = [
        forget[forget["epoch"] == epoch].groupby("arm", sort=False)["accuracy"].mean().reset_index().assign(when=when)
        for when, epoch in (("0", 0), ("1", 1), ("last", forget["epoch"].max()))
    ]
    return pd.concat(found, ignore_index=True)[["arm", "when", "accuracy"]]
