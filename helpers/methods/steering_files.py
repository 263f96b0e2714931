"""Steering files: the CSV of Khoriaty et al. read into our interventions, and tensors for lm-eval's `steered`."""

import csv
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from helpers.engine.columns import layer_of
from helpers.engine.interventions import Add, Clamp
from helpers.records.store import write_atomically

COLUMNS = ("latent_idx", "hook_action", "steering_coefficient", "sae_id", "sae_release")
# The actions of the authors' code that edit anything, each with the columns it needs beside COLUMNS.
ACTIONS = {
    "add": (),
    "clamp": (),
    "clamp_cond": ("clamp_value",),
    "clamp_refusal": ("clamp_value", "refuse_id"),
}


@dataclass(frozen=True)
class Steering:
    """A steering file's one action and the intervention it describes."""

    action: str
    clamp: Clamp


class _Row(NamedTuple):
    action: str
    latent: int
    coefficient: float
    sae: tuple[str, str]
    clamp_value: float | None
    refuse_id: int | None


def read_steering(path: Path, sae, bos: bool = False) -> Steering:
    """The intervention that a steering CSV of Khoriaty et al. describes, all its rows together.

    `add` adds each coefficient everywhere, `clamp` sets a latent to it where that fires, `clamp_cond` where it exceeds
    clamp_value, and `clamp_refusal` sets refuse_id to it where any of the latents exceeds clamp_value.

    Args:
        path: columns latent_idx, hook_action, steering_coefficient, sae_id, sae_release, by action also clamp_value and
            refuse_id; others (description) are passed over.
        sae: what sae_id must name the layer of, and the latents must lie in.
        bos: whether BOS is touched too, as by the authors' code.

    Raises:
        ValueError: a missing column, an unknown action, a cell that is no such number, another layer's SAE, a latent
            outside the SAE, or rows that make no single intervention; with the row, of which 1 is the first below the
            header.
    """
    cells = _cells(path)
    rows = [_parse(row, f"{path.name}, row {number}", sae) for number, row in enumerate(cells, start=1)]
    for field in ("action", "sae", "clamp_value", "refuse_id"):
        _check_same(path.name, rows, field)
    _check_no_repeats(path.name, [row.latent for row in rows])
    if rows[0].action == "clamp_refusal":
        _check_same(path.name, rows, "coefficient")
    return Steering(rows[0].action, _clamp(rows, sae, bos))


def _cells(path: Path) -> list[dict[str, str]]:
    # utf-8-sig: a spreadsheet puts a mark before the first column's name
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        rows, columns = list(reader), reader.fieldnames or []
    actions = {row["hook_action"] for row in rows} if "hook_action" in columns else set()
    wanted = dict.fromkeys([*COLUMNS, *(c for action in actions & set(ACTIONS) for c in ACTIONS[action])])
    missing = [column for column in wanted if column not in columns]
    if missing:
        raise ValueError(f"{path.name} lacks the column {', '.join(missing)}; it has {', '.join(columns) or 'none'}")
    if not rows:
        raise ValueError(f"{path.name} has no rows below its header")
    return rows


def _parse(cells: Mapping[str, str | None], place: str, sae) -> _Row:
    action = (cells["hook_action"] or "").strip()
    if action not in ACTIONS:
        raise ValueError(f"{place}: hook_action {action!r} is unknown, the known ones are {', '.join(ACTIONS)}")
    sae_name = ((cells["sae_release"] or "").strip(), (cells["sae_id"] or "").strip())
    _check_layer(sae_name[1], place, sae)
    row = _Row(
        action,
        _latent(cells, "latent_idx", place, sae),
        _number(cells, "steering_coefficient", place),
        sae_name,
        _number(cells, "clamp_value", place) if "clamp_value" in ACTIONS[action] else None,
        _latent(cells, "refuse_id", place, sae) if "refuse_id" in ACTIONS[action] else None,
    )
    if row.clamp_value is not None and row.clamp_value < 0:
        raise ValueError(f"{place}: clamp_value = {row.clamp_value:g} is below 0, where every feature would fire")
    return row


def _number(cells: Mapping[str, str | None], column: str, place: str, kind: Callable = float) -> float:
    try:
        number = float(cells[column] or "")
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number != kind(number):
        wanted = "a whole number" if kind is int else "a finite number"
        raise ValueError(f"{place}: {column} = {cells[column]!r} is not {wanted}")
    return kind(number)


def _latent(cells: Mapping[str, str | None], column: str, place: str, sae) -> int:
    latent = int(_number(cells, column, place, int))
    if not 0 <= latent < sae.cfg.d_sae:
        raise ValueError(f"{place}: {column} = {latent} is outside this SAE, which has 0 to {sae.cfg.d_sae - 1}")
    return latent


def _check_layer(sae_id: str, place: str, sae) -> None:
    match = re.search(r"layer_(\d+)", sae_id)
    if match is None:
        raise ValueError(f"{place}: sae_id {sae_id!r} names no layer, expected one as 'layer_7/width_16k/canonical'")
    if int(match[1]) != layer_of(sae):
        raise ValueError(f"{place}: sae_id {sae_id!r} is of layer {match[1]}, this SAE is of layer {layer_of(sae)}")


def _check_same(name: str, rows: Sequence[_Row], field: str) -> None:
    first = getattr(rows[0], field)
    for number, row in enumerate(rows, start=1):
        if getattr(row, field) != first:
            raise ValueError(
                f"{name}, row {number}: {field} {getattr(row, field)!r} differs from row 1's {first!r}; "
                "all rows of a file make one intervention, so put the others into a file of their own"
            )


def _check_no_repeats(name: str, latents: Sequence[int]) -> None:
    for number, latent in enumerate(latents, start=1):
        if latent in latents[: number - 1]:
            raise ValueError(f"{name}, row {number}: latent_idx {latent} is in row {latents.index(latent) + 1} already")


def _clamp(rows: Sequence[_Row], sae, bos: bool) -> Clamp:
    latents, coefficients, first = [row.latent for row in rows], [row.coefficient for row in rows], rows[0]
    match first.action:
        case "add":
            return Clamp(sae, latents, Add(coefficients), "always", bos=bos)
        case "clamp_refusal":
            firing: dict[str, Any] = {"triggers": latents, "fires_above": first.clamp_value}
            # `_parse` reads a refuse_id for this action
            return Clamp(sae, [cast(int, first.refuse_id)], first.coefficient, "any", bos=bos, **firing)
        case _:
            return Clamp(sae, latents, coefficients, "own", bos=bos, fires_above=first.clamp_value or 0.0)


def write_steered(path: Path, clamps: Sequence[Clamp]) -> None:
    """Write interventions as the `.pt` file that lm-eval's `steered` model reads, by `steer_path=...`.

    Of all our interventions that model can express one: a fixed vector added at every token of one layer, BOS included.

    Args:
        path: ends in .pt, for lm-eval goes by the ending.
        clamps: one a layer.

    Raises:
        ValueError: an intervention that `steered` cannot express, with the reason; two after one layer; another ending.
    """
    if path.suffix != ".pt":
        raise ValueError(f"lm-eval reads tensors from a .pt file only, got {path.name!r}")
    layers = [clamp.layer for clamp in clamps]
    if not layers or len(set(layers)) != len(layers):
        raise ValueError(f"lm-eval's `steered` takes one direction a layer, got interventions after layers {layers}")
    config = {f"layers.{clamp.layer}": _direction(clamp) for clamp in clamps}
    write_atomically(path, lambda file: torch.save(config, file))


def _direction(clamp: Clamp) -> dict[str, Any]:
    for cannot, reason in (
        (clamp.where != "always", f"it cannot see whether a feature fires (where={clamp.where!r})"),
        (not isinstance(clamp.value, Add), f"it cannot set an activation to {clamp.value!r}, for it never encodes"),
        (clamp.gate is not None, "it has no gate"),
        (not clamp.bos, "it touches BOS too, so say bos=True"),
        (not clamp.keep_error, "it has no SAE, so what is not reconstructed stays"),
        (not len(clamp.features), "no feature is chosen, so there is no direction"),
    ):
        if cannot:
            raise ValueError(f"lm-eval's `steered` cannot express this intervention: {reason}")
    amounts = torch.as_tensor(cast(Add, clamp.value).amount, dtype=torch.float32).expand(len(clamp.features))
    vector = clamp.columns.decode(amounts.to(clamp.columns.decoder.device)).cpu().clone()
    return {"steering_vector": vector, "steering_coefficient": 1.0, "action": "add"}
