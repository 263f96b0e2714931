"""Notebook 07: every method at the setting chosen for it, side by side (Muhamed et al. 2025, Tables 1 and 10)."""

from collections.abc import Callable, Mapping

import pandas as pd
import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import huggingface
from helpers.engine.scoring import mean_loss, read_loss, read_rows
from helpers.experiments.costs import method_memory, shape_of
from helpers.lab.choosing import Choice, choose, points
from helpers.lab.lab import Lab, stage_of
from helpers.lab.pieces import Piece
from helpers.lab.scores import Scores
from helpers.measures.knowledge import Knowledge
from helpers.measures.metrics import accuracy
from helpers.methods.dsg import DSG
from helpers.methods.method import Method
from helpers.methods.retrained import Retrained
from helpers.published import load_published
from helpers.text.batches import Rows
from helpers.text.corpora import framed

UNEDITED = "unedited"
AGREEMENT = {"accuracy": "agreement"}


def choices(scores: Scores) -> dict[str, Choice]:
    """Of each method, by its label, the setting chosen on half 0 and the rule by which it was (`choose`)."""
    return {label: choose(of) for label, of in scores.by_method().items()}


def by_subject(scores: Scores, chosen: Mapping[str, Choice]) -> pd.DataFrame:
    """The chosen settings on the half of the questions on which none was chosen, subject by subject.

    Returns:
        method, setting, subject, role, n, right, accuracy, low, high; rows 'side effects' pool those subjects.
    """
    tables = []
    for one in _those(scores, chosen):
        asked = one.table[one.table["half"] == 1].assign(method=one.label, setting=one.setting.words)
        pooled = asked[asked["role"] == "side"].assign(subject="side effects")
        tables.append(pd.concat([asked, pooled]))
    return accuracy(pd.concat(tables), ["method", "setting", "subject", "role"])


def chosen_points(scores: Scores, chosen: Mapping[str, Choice]) -> pd.DataFrame:
    """`points` of the chosen settings, on the half of the questions on which none was chosen."""
    return points(Scores(_those(scores, chosen)), half=1)


def _those(scores: Scores, chosen: Mapping[str, Choice]) -> list:
    return [one for one in scores if one.setting == chosen[one.label].setting]


def compared(lab: Lab, chosen: Mapping[str, Choice]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The chosen settings measured further (`distances` and `losses_on`), each a piece of work of its own."""
    pieces = [
        Piece(f"{label}, {choice.setting.words}", "compared",
              tuple(lab.key(measure, *what) for measure, what in _further(lab, choice.setting).items()),
              _compared_in, (choice.setting,))
        for label, choice in chosen.items()
    ]  # fmt: skip
    found = lab.computed(pieces, dear=True)
    answers, losses = (
        pd.concat([results[i].assign(method=label) for label, results in zip(chosen, found, strict=True)])
        for i in (0, 1)
    )
    return answers.reset_index(drop=True), losses.reset_index(drop=True)


def _compared_in(lab: Lab, setting: Method) -> list[pd.DataFrame]:
    return [measure(*what) for measure, what in _further(lab, setting).items()]


def _further(lab: Lab, setting: Method) -> dict[Callable[..., pd.DataFrame], tuple]:
    """What is measured of a setting, and of what."""
    edit = lab.edited(setting)
    return {
        distances: (lab.judged, edit, lab.once(reference_answers)),
        losses_on: (lab.judged, edit, lab.once(loss_texts), lab.once(losses_before)),
    }


def reference_answers(lab: Lab) -> dict[str, Tensor]:
    """p(A..D) of every judged question by those whom settings are compared with, [questions, 4] each."""
    references = {UNEDITED: lab.unedited} | {s.label: lab.edited(s) for s in Retrained.grid(lab.profile)}
    return {name: lab.judged.answers_under(reference) for name, reference in references.items()}


def loss_texts(lab: Lab) -> dict[str, Rows]:
    """Neutral text as rows, packed and as questions are asked, by these words."""
    sizes, form = lab.profile.texts, lab.profile.model.prompt_format
    framed_rows = framed(lab.model.tokenizer, lab.neutral_documents, form, sizes.row_length)
    return {"packed": lab.neutral_rows, "framed": framed_rows[: sizes.framed_documents]}


def losses_before(lab: Lab) -> dict[str, float]:
    """`mean_losses` of the unedited model, which every setting is compared with."""
    return lab.stage("losses-before", mean_losses, lab.judged, lab.unedited, lab.once(loss_texts))


def distances(knowledge: Knowledge, edited: Edited, references: Mapping[str, Tensor]) -> pd.DataFrame:
    """How far the answers under an edit are from those of other models.

    Args:
        references: by whom, p(A..D) of every question [questions, 4].

    Returns:
        compared (with whom), role, n, right (questions on which both say the same letter), agreement (their share) with
        its Wilson interval low and high, kl (mean over questions of KL(compared || edited) in nats, of the
        distributions over the four letters).
    """
    found, roles = knowledge.answers_under(edited), [knowledge.roles[q.subject] for q in knowledge.asked]
    tables = []
    for name, wanted in references.items():
        same, kl = (wanted.argmax(dim=-1) == found.argmax(dim=-1)).numpy(), letter_kl(wanted, found).numpy()
        tables.append(pd.DataFrame({"compared": name, "role": roles, "n": 1, "right": same, "kl": kl}))
    rows = pd.concat(tables)
    kl = rows.groupby(["compared", "role"], sort=False)["kl"].mean().reset_index()
    return accuracy(rows, ["compared", "role"]).merge(kl, on=["compared", "role"]).rename(columns=AGREEMENT)


def letter_kl(wanted: Tensor, found: Tensor) -> Tensor:
    """KL(wanted || found) in nats of the distributions over the letters, [questions], from p(A..D) [questions, 4].

    How likely it is that any letter is said is no part of it; a letter that both never say costs nothing.
    """
    p, q = (x.double().clamp(min=torch.finfo(torch.float32).tiny) for x in (wanted, found))
    p, q = (x / x.sum(dim=-1, keepdim=True) for x in (p, q))
    return (p * (p.log() - q.log())).sum(dim=-1)


def mean_losses(knowledge: Knowledge, edited: Edited, texts: Mapping[str, Rows]) -> dict[str, float]:
    """Next-token loss under an edit on each of some texts, in nats per token."""
    how = (read_loss, edited.intervention, knowledge.batch_tokens)
    return {name: mean_loss(read_rows(edited.model, rows, *how)) for name, rows in texts.items()}


def losses_on(
    knowledge: Knowledge, edited: Edited, texts: Mapping[str, Rows], before: Mapping[str, float]
) -> pd.DataFrame:
    """Next-token loss that an edit adds on each of some texts: text, loss_added (nats per token).

    A gate's threshold is taken on framed text, so packed text alone would judge it where it opens more often.

    Args:
        before: `mean_losses` without the edit, which are the same for all edits.
    """
    found = [(name, loss - before[name]) for name, loss in mean_losses(knowledge, edited, texts).items()]
    return pd.DataFrame(found, columns=["text", "loss_added"])


def with_losses(table: pd.DataFrame, answers: pd.DataFrame, losses: pd.DataFrame) -> pd.DataFrame:
    """`chosen_points` with the loss added on framed text and the agreement with the retrained reference.

    Returns:
        columns loss_framed, and agreement, agreement_low, agreement_high, agreement_kl on forget questions: with the
        retrained reference, or empty where the profile has none.
    """
    framed_text = losses[losses["text"] == "framed"].set_index("method")["loss_added"]
    with_it = answers[(answers["compared"] == Retrained.name) & (answers["role"] == "forget")].set_index("method")
    columns = {"agreement": "agreement", "low": "agreement_low", "high": "agreement_high", "kl": "agreement_kl"}
    added = with_it.reindex(table["method"])[list(columns)].rename(columns=columns).reset_index(drop=True)
    return pd.concat([table.assign(loss_framed=table["method"].map(framed_text)).reset_index(drop=True), added], axis=1)


def spent(lab: Lab, scores: Scores) -> pd.DataFrame:
    """What each method's sweep took; for showing only, for no two machines agree on seconds.

    Returns:
        method, settings (how many), seconds (training and measuring together, as when they were computed), megabytes
        (that the dearest of its trainings holds beside the model, counted: `costs.method_memory`; 0 where none is
        trained).
    """
    shape, rows = shape_of(huggingface(lab.model).config), []
    for label, of in scores.by_method().items():
        held = max(method_memory(lab.profile, shape, setting) for setting in of.settings)
        rows.append((label, len(of), lab.seconds[stage_of(of[0].setting)], held / 1e6))
    return pd.DataFrame(rows, columns=["method", "settings", "seconds", "megabytes"])


def beside_published(table: pd.DataFrame, world: str) -> pd.DataFrame:
    """`chosen_points` and what others measured on Gemma, a row a point.

    Args:
        table: of `chosen_points`.
        world: what ours were measured on, in words.

    Returns:
        world (ours, and a benchmark each of theirs), by ('ours', 'paper' or 'reproduction', an independent one),
        method, forget_accuracy, side_accuracy and their 95 % intervals, which are known of ours alone.
    """
    columns = [f"{role}_{what}" for role in ("forget", "side") for what in ("accuracy", "low", "high")]
    ours = table[["method", *columns]].assign(world=f"ours: {world}", by="ours")
    found = load_published("dsg2025_reproduction").query("experiment == 'all text'").assign(method=DSG.name)
    theirs = [load_published("dsg2025_tables").assign(by="paper"), found.assign(by="reproduction")]
    both = pd.concat(theirs, ignore_index=True).query("method != 'target'")
    both = both.assign(world="Muhamed et al.: " + both["benchmark"])
    return pd.concat([ours, both], ignore_index=True)[["world", "by", "method", *columns]]
