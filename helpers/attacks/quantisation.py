"""Quantised weights: an edit smaller than half a bucket is rounded away, and what it hid comes back.

Source: Zhang et al. 2025 (2410.16454; code: zzwjames/FailureLLMUnlearning), who load edited models in 8 and 4 bits by
bitsandbytes. Here round to nearest, symmetric, a scale a group of inputs, so that the buckets can be counted.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from helpers.engine.internals import layer_matrices


@dataclass(frozen=True)
class Quantisation:
    """Every matrix of every layer rounded to a few bits and back; embedding and norms stay, as is usual.

    Attributes:
        bits: of a code, sign included: codes run from -(2^(bits-1) - 1) to 2^(bits-1) - 1.
        group: so many neighbouring inputs of one output share a scale, the largest of them over the largest code.
    """

    bits: int
    group: int

    @property
    def words(self) -> str:
        """The setting in a few words: '4 bits, groups of 64'."""
        return f"{self.bits} bits, groups of {self.group}"

    def weights(self, model) -> dict[str, Tensor]:
        """The rounded matrices, by the names that the model has for them."""
        return {name: self.rounded(weight) for name, weight in layer_matrices(model).items()}

    def rounded(self, weight: Tensor) -> Tensor:
        """A matrix [out, in] rounded: codes times scales."""
        parts = [self._codes(part) for part in weight.split(self.group, dim=1)]
        return torch.cat([codes * scale for codes, scale in parts], dim=1).to(weight.dtype)

    def codes(self, weight: Tensor) -> Tensor:
        """The bucket of every weight of a matrix [out, in], a whole number each."""
        return torch.cat([self._codes(part)[0] for part in weight.split(self.group, dim=1)], dim=1)

    def _codes(self, part: Tensor) -> tuple[Tensor, Tensor]:
        largest = 2 ** (self.bits - 1) - 1
        # a group of zeros has the scale 1, or nothing could be divided by it
        scale = part.float().abs().amax(dim=1, keepdim=True) / largest
        scale = torch.where(scale > 0, scale, 1.0)
        return torch.round(part.float() / scale), scale

    def moved_buckets(self, edited: Any, original: Any) -> float:
        """The share of weights whose bucket is another than the original model's, over the matrices that were edited.

        Each model's buckets are its own: a group whose largest weight has changed has another scale. Not a number where
        no matrix was edited.
        """
        moved, count = 0, 0
        before = layer_matrices(original)
        for name, after in layer_matrices(edited).items():
            if not torch.equal(after, before[name]):
                moved += int((self.codes(after) != self.codes(before[name])).sum())
                count += after.numel()
        return moved / count if count else float("nan")
