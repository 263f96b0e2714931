"""Selective synaptic dampening (SSD): weights that matter far more for forget text than for the rest are shrunk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor

from helpers.engine.edited import Edited
from helpers.engine.forward import clone, huggingface
from helpers.methods.look import Look
from helpers.methods.losses import mean_nats
from helpers.methods.method import Method
from helpers.profiles import Count, Positive, Profile, settings_table
from helpers.text.batches import packed_batch

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid:
    """The method's table in a profile: every threshold with every dampening, on so many rows of either text."""

    thresholds: tuple[Positive, ...]
    dampenings: tuple[Positive, ...]
    embeddings: tuple[bool, ...]
    rows: Count


@dataclass(frozen=True)
class SSD(Method):
    """Where I_forget > a I_retain a weight is multiplied by min(1, b I_retain / I_forget); nothing is trained.

    The importance I of a weight is the mean over rows of the squared gradient of a row's next-token loss (the public
    code squares the gradient of whole batches, which is another thing for batches of more than one).

    Attributes:
        threshold: a (Muhamed et al., Table 6: .1 to 5).
        dampening: b (there: 1e-5 to 1).
        embeddings: whether the token embedding is dampened too. Tied to the unembedding, it holds rows that only forget
            text uses: their importance for retain text is about 0, and they are wiped out.
        rows: rows of either text whose gradients are taken, one by one.
    """

    threshold: Positive
    dampening: Positive
    embeddings: bool
    rows: Count

    name, look = "SSD", Look("#17BECF", "d")
    source = "Foster et al. 2024, equations 3 to 5; Muhamed et al. 2025, Tables 1 and 6"
    # its settings are weights and a model of its own each, so each is a piece of work
    trains = True
    table = "ssd"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """Every threshold with every dampening, with or without the embedding as the profile says."""
        of = profile.grid_of(cls.table, Grid)
        return [cls(*setting, of.rows) for setting in product(of.thresholds, of.dampenings, of.embeddings)]

    @property
    def words(self) -> str:
        """The setting in a few words: 'threshold 1, dampening 0.1, embedding kept'."""
        embedding = "too" if self.embeddings else "kept"
        return f"threshold {self.threshold:g}, dampening {self.dampening:g}, embedding {embedding}"

    def apply(self, lab: Lab) -> Edited:
        """The unedited model with dampened weights; the importances are taken once for all settings."""
        texts = (lab.model, lab.forget_rows[: self.rows], lab.retain_rows[: self.rows])
        course = lab.fingerprint([*texts, "importances"]), partial(both_importances, *texts)

        def make() -> dict[str, Tensor]:
            forget, retain = lab.latest(*course)
            return dampened(lab.model, forget, retain, self)

        return Edited(lab.model, weights=lab.trained(dampened_by_text, *texts, self, make=make))


def both_importances(model, forget_rows: Tensor, retain_rows: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The importances of all weights for forget text and for retain text."""
    return importances(model, forget_rows), importances(model, retain_rows)


def dampened_by_text(model, forget_rows: Tensor, retain_rows: Tensor, setting: SSD) -> dict[str, Tensor]:
    """The dampened weights of one setting, from both texts' rows (`dampened`)."""
    return dampened(model, *both_importances(model, forget_rows, retain_rows), setting)


def importances(model, rows: Tensor) -> dict[str, Tensor]:
    """Of every weight the mean squared gradient of a row's next-token loss (nats per token), float32 on the CPU.

    Args:
        rows: token ids [rows, row_length]; each is a batch of its own.
    """
    twin = clone(model, torch.float32)
    weights = dict(huggingface(twin).named_parameters())
    sums = {name: torch.zeros_like(weight, requires_grad=False) for name, weight in weights.items()}
    for row in rows:
        huggingface(twin).zero_grad()
        mean_nats(twin, packed_batch(row[None], twin.device)).backward()
        for name, weight in weights.items():
            if weight.grad is not None:
                sums[name] += weight.grad.square()
    return {name: (total / len(rows)).cpu() for name, total in sums.items()}


def dampened(model, forget: dict[str, Tensor], retain: dict[str, Tensor], setting: SSD) -> dict[str, Tensor]:
    """The model's weights, each multiplied by its factor (`factors`); those that change nowhere are left out."""
    embedding = huggingface(model).get_input_embeddings().weight
    found = {}
    for name, weight in huggingface(model).named_parameters():
        if weight is embedding and not setting.embeddings:
            continue
        by = factors(forget[name], retain[name], setting.threshold, setting.dampening)
        if (by < 1).any():
            found[name] = (weight.detach().cpu().float() * by).to(weight.dtype)
    return found


def factors(forget: Tensor, retain: Tensor, threshold: float, dampening: float) -> Tensor:
    """min(1, dampening * retain / forget) where forget > threshold * retain, else 1; importances of any one shape."""
    shrunk = (dampening * retain / forget).clamp(max=1)
    return torch.where(forget > threshold * retain, shrunk, torch.ones_like(shrunk))
