"""A method in place: a model and an intervention on it, which is what everything that measures takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from helpers.engine.forward import with_weights
from helpers.engine.interventions import Add, Clamp, Gate, Scale


@dataclass(frozen=True, eq=False)
class Trained:
    """Weights by what makes them, so that naming them is cheap.

    Attributes:
        key: a fingerprint of all that they depend on.
        make: makes them, by their names in the model.
        keep: the same, kept on disk and read where they were made before; None where there is no such place.
    """

    key: str
    make: Callable[[], dict[str, Tensor]]
    keep: Callable[[], dict[str, Tensor]] | None = None


@dataclass(frozen=True, eq=False)
class Edited:
    """A model and an intervention on it, either of which may be the original.

    Attributes:
        original: the unedited model.
        intervention: acts while the model runs; None for none.
        weights: those that differ from the original's; None where none do.
    """

    original: Any
    intervention: Clamp | None = None
    weights: Trained | None = None

    @cached_property
    def model(self) -> Any:
        """The model to ask: the original, or a copy with the changed weights, which are made when it is first asked."""
        return self.original if self.weights is None else with_weights(self.original, self.weights.make())

    def is_of_other_weights(self, model: Any) -> bool:
        """Whether the model that is asked is another than `model`, so that what is kept of that one is of no use."""
        return self.weights is not None or self.original is not model

    def __fingerprint__(self) -> list:
        return [self.original, self.intervention, None if self.weights is None else self.weights.key]

    def facts(self) -> dict[str, Any]:
        """The intervention as JSON, everything but the SAE's weights; nothing where there is none."""
        return {} if self.intervention is None else clamp_facts(self.intervention)


def clamp_facts(clamp: Clamp) -> dict[str, Any]:
    """An intervention as JSON: everything but the SAE's weights."""
    return {
        "layer": clamp.layer,
        "features": _plain(clamp.features),
        "value": _plain(clamp.value),
        "where": clamp.where,
        "gate": None if clamp.gate is None else _gate_facts(clamp.gate),
        "decoders": _plain(clamp.decoders),
        "triggers": _plain(clamp.triggers),
        "fires_above": clamp.fires_above,
        "bos": clamp.bos,
        "keep_error": clamp.keep_error,
    }


def _gate_facts(gate: Gate) -> Any:
    """The threshold on rho; of other gates their kind and all that it is set by."""
    if type(gate) is Gate:
        return gate.threshold
    set_by = {name: _plain(value) for name, value in vars(gate).items() if name != "sae" and not name.startswith("_")}
    return {"kind": type(gate).__name__, **set_by}


def _plain(value: Any) -> Any:
    if isinstance(value, Gate):
        return _gate_facts(value)
    if isinstance(value, Add | Scale):
        return {type(value).__name__.lower(): _plain(next(iter(vars(value).values())))}
    if isinstance(value, Tensor | np.ndarray):
        return value.tolist()
    return list(value) if isinstance(value, Sequence) else value
