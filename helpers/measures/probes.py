"""Linear probes: can the right letter be read off a residual by somebody who may fit a classifier to it?

A control task (Hewitt and Liang 2019) says what fitting alone gives: the same probe, fitted to shuffled labels and
judged by them. The difference is the probe's selectivity.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

# A strong penalty, for there are about as many dimensions as examples.
INVERSE_PENALTY = 0.01
MOST_STEPS = 1000


def read_off(residuals: np.ndarray, labels: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Whether each label is read off by a probe that was fitted on the other group, [examples] bool.

    A logistic regression on standardised dimensions, once fitted on each group.

    Args:
        residuals: [examples, d_model].
        labels: [examples].
        group: [examples] of 0 and 1; what one group is about, the other must not be about.

    Raises:
        ValueError: a group has no examples, or its labels are all the same.
    """
    for number in (0, 1):
        of = labels[group == number]
        if len(set(of)) < 2:
            raise ValueError(
                f"a probe needs two groups of at least two labels each: group {number} has {len(of)} examples of "
                f"{len(set(of))} labels"
            )
    found = np.zeros(len(labels), dtype=bool)
    for judged in (0, 1):
        fitted, asked = group != judged, group == judged
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=INVERSE_PENALTY, max_iter=MOST_STEPS))
        probe.fit(residuals[fitted], labels[fitted])
        found[asked] = probe.predict(residuals[asked]) == labels[asked]
    return found


def shuffled(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels of the control task: the same ones, at other examples."""
    return np.random.default_rng(seed).permutation(labels)
