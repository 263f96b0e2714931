"""The retrained reference: a model of the same recipe that never saw the forget text, in the place of the edited one.

It is no method of unlearning, for it costs the training that an edit is to spare: it is what forgetting would look like
if it were real, and so what the methods are measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, Self

from helpers.engine.edited import Edited, Trained
from helpers.engine.forward import huggingface
from helpers.methods.look import Look
from helpers.methods.method import ONLY_SETTING, Method
from helpers.profiles import Profile, settings_table
from helpers.records.store import file_sha256

if TYPE_CHECKING:
    from helpers.lab.lab import Lab


@settings_table
class Grid:
    """The method's table in a profile: `source` is where its weights come from, '' where nobody has such a model.

    'organism' is embedded, 'finetuned' has been made by `helpers.finetune` on the retain text.
    """

    source: Literal["organism", "finetuned", ""]


@dataclass(frozen=True)
class Retrained(Method):
    """Every weight is that of a model of the same recipe which was trained without the forget text.

    Paper: none of the three has one, for Gemma cannot be trained anew; but what it was fine-tuned on can be left out.
    """

    name, look = "retrained", Look("#CC79A7", "*", reference=True)
    source = "the exact answer: trained anew without the forget text"
    # trained apart, it differs from the original on single questions, which a floor of side effects would call harm
    chosen_by = ONLY_SETTING
    table = "retrained"

    @classmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """The one setting, where the profile has such a model."""
        return [cls()] if profile.grid_of(cls.table, Grid).source else []

    @property
    def words(self) -> str:
        """What stands for the setting in figures: 'never saw the forget text'."""
        return "never saw the forget text"

    def apply(self, lab: Lab) -> Edited:
        """The unedited model with the weights of the other; they are read when the model is asked for.

        Raises:
            FileNotFoundError: the weights are missing.
            ValueError: they were fine-tuned with other settings than the profile's.
        """
        # here, for pictures know the looks of methods and are to be drawn without what loads models
        from helpers.loading.finetuned import REFERENCE, finetuned
        from helpers.loading.models import finetuned_weights, retrained_file, retrained_weights

        if lab.profile.grid_of(self.table, Grid).source == "organism":
            made = Trained(file_sha256(retrained_file()), partial(retrained_weights, lab.model))
            return Edited(lab.model, weights=made)
        weights = partial(finetuned_weights, lab.profile, REFERENCE, huggingface(lab.model))
        return Edited(lab.model, weights=Trained(finetuned(lab.profile, REFERENCE).sha256, weights))
