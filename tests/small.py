"""The profile tiny made small: few texts, questions and settings, all computed in this process."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from helpers.profiles import Profile, load_profile

SMALL: dict[str, Any] = {
    "texts.forget_rows": 8, "texts.retain_rows": 16, "texts.neutral_rows": 4, "texts.framed_documents": 16,
    "questions.limit": 3, "selection.n_features": 4, "selection.attribution_candidates": 12, "compute.jobs": 1,
    "method.static_clamp.n_features": [2, 4], "method.static_clamp.strengths": [2.0, 8.0],
    "method.clamp_prime.n_features": [2, 4], "method.clamp_prime.strengths": [2.0, 8.0],
    "method.refusal_clamp.n_features": [2, 4], "method.refusal_clamp.strengths": [2.0, 8.0],
    "method.unconditional.n_features": [2, 4], "method.unconditional.strengths": [1.0],
    "method.dsg.n_features": [3, 5], "method.dsg.strengths": [2.0, 8.0],
    "method.rmu.layers": [2], "method.rmu.steering": [10.0], "method.rmu.alphas": [3.0, 30.0],
    "method.rmu.steps": [2], "method.rmu.batch_rows": 2,
}  # fmt: skip


@contextmanager
def small_tiny(**changed: Any) -> Iterator[None]:
    """Inside, the profile tiny is small wherever it is opened; `changed` are further settings, with __ for a dot."""
    settings = SMALL | {key.replace("__", "."): value for key, value in changed.items()}

    def load(name: str, overrides: Mapping[str, Any] | None = None, notebook: str | None = None) -> Profile:
        return load_profile(name, settings | dict(overrides or {}), notebook)

    with pytest.MonkeyPatch.context() as patch:
        for module in ("helpers.lab.run", "helpers.evaluate"):
            patch.setattr(f"{module}.load_profile", load)
        yield
