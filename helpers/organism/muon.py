"""The Muon optimiser (Jordan et al. 2024) in float32: momentum whose singular values are all set near one.

It learns the world's facts in about half the steps AdamW needs. PyTorch's own Muon works in bfloat16, which is slow on
processors without hardware for it.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch

# The quintic iteration's coefficients, published with the method.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalize(matrices: torch.Tensor) -> torch.Tensor:
    """The nearest matrices with singular values near one, by Newton-Schulz iteration, [n, rows, columns]."""
    a, b, c = COEFFICIENTS
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    x = wide / (wide.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide is matrices else x.mT


class Muon(torch.optim.Optimizer):
    """Muon for matrices only; `lr` is the spectral norm of one update of a square matrix."""

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float, weight_decay: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # nobody here gives a closure
        """One update of every matrix that has a gradient; matrices of one shape are handled together."""
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for (rows, columns), matrices in by_shape.items():
                updates = orthogonalize(torch.stack([self._momentum(p, group["momentum"]) for p in matrices]))
                rate = group["lr"] * max(1.0, rows / columns) ** 0.5
                for p, update in zip(matrices, updates, strict=True):
                    p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=rate)

    def _momentum(self, p: torch.nn.Parameter, momentum: float) -> torch.Tensor:
        """Nesterov momentum of the gradient."""
        assert p.grad is not None  # `step` asks for no other
        average = self.state[p].setdefault("average", torch.zeros_like(p))
        average.lerp_(p.grad, 1 - momentum)
        return p.grad.lerp(average, momentum)
