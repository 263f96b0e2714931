"""The residual after a layer, computed once for many interventions and kept within bounds."""

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from helpers.engine.forward import residual_after
from helpers.profiles import CacheSettings
from helpers.text.batches import Batch

log = logging.getLogger(__name__)

MEGABYTE = 1 << 20


class Residuals:
    """The residual after a layer of every batch: kept in memory, then on disk, and past both bounds computed anew.

    All three give the same numbers. Files lie in a temporary folder that goes with this object; one that is missing or
    broken is computed again, with a warning.

    Args:
        model: the model, of which only the layers up to `layer` run.
        batches: what to run; kept as a list of token ids.
        layer: the layer after which the residual is taken.
        bounds: how much is kept where.
    """

    def __init__(self, model, batches: Iterable[Batch], layer: int, bounds: CacheSettings) -> None:
        self.batches, self.layer = list(batches), layer
        self._model = model
        self._left = {"memory": bounds.memory_mb * MEGABYTE, "disk": bounds.disk_mb * MEGABYTE}
        self._memory: dict[int, Tensor] = {}
        self._files: dict[int, Path] = {}
        self._folder: tempfile.TemporaryDirectory | None = None

    def __getitem__(self, i: int) -> Tensor:
        """The residual [batch, seq, d_model] of batch i."""
        if i in self._memory:
            return self._memory[i]
        if i in self._files:
            try:
                return load_file(self._files[i], device=str(self.batches[i].ids.device))["residual"]
            except (OSError, SafetensorError) as fault:
                log.warning("residuals of batch %d cannot be read back (%s), computing again", i, fault)
                del self._files[i]
        residual = residual_after(self._model, self.batches[i], self.layer)
        self._keep(i, residual)
        return residual

    def _keep(self, i: int, residual: Tensor) -> None:
        size = residual.numel() * residual.element_size()
        place = next((place for place, left in self._left.items() if size <= left), None)
        if place is None:
            return
        self._left[place] -= size
        if place == "memory":
            self._memory[i] = residual
            return
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="residuals-")
        path = Path(self._folder.name) / f"{i}.safetensors"
        save_file({"residual": residual.contiguous()}, path)
        self._files[i] = path
