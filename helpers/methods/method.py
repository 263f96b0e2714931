"""What a method is: a frozen dataclass of which an instance is one setting, with all that is particular to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from helpers.engine.edited import Edited
from helpers.methods.look import Look
from helpers.profiles import Profile

if TYPE_CHECKING:  # a lab applies methods, so at run time methods know nothing of labs
    from helpers.lab.lab import Lab

# Ends a label where the features are those that a paper published, for want of forget text.
PUBLISHED_FEATURES = ", published features"
LOWEST_FORGET, HIGHEST_ALIGNMENT = "lowest forget accuracy", "highest alignment"
# Not chosen at all: the method has one setting, which is reported whatever it costs.
ONLY_SETTING = "its only setting"


class Method(ABC):
    """One setting of a method: a frozen dataclass whose fields are what can be set.

    Attributes:
        name: what figures call the method.
        look: its colour and marker in every figure.
        source: paper and section.
        from_text: whether its features are chosen on forget text, so that published ones stand in where there is none.
        trains: whether its settings are weights, each of which takes minutes, so that it is a piece of work of its own.
        chosen_by: the rule by which a setting is chosen where one is wanted (`lab.choosing.choose`).
        actions: what the method is called in steering files of Khoriaty et al., where it is in any.
        without: fields that mean nothing to the method, so that nobody sets them by hand.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # says to a type checker what every heir is
    name: ClassVar[str]
    look: ClassVar[Look]
    source: ClassVar[str]
    from_text: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    chosen_by: ClassVar[str] = LOWEST_FORGET
    actions: ClassVar[tuple[str, ...]] = ()
    without: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def grid(cls, profile: Profile) -> list[Self]:
        """The settings that a profile sweeps over."""

    @classmethod
    def narrowed(cls, profile: Profile, given: Mapping[str, Any]) -> list[Self]:
        """The grid with some fields set by hand, every setting that is left once.

        Raises:
            ValueError: two of the fields contradict each other.
        """
        return list(dict.fromkeys(replace(setting, **given) for setting in cls.grid(profile)))

    @abstractmethod
    def apply(self, lab: Lab) -> Edited:
        """The setting in place. Cheap: what is dear (`lab.trained`) is put off until the model is asked for."""

    @property
    def course(self) -> Method:
        """The training that the setting is a stop of; settings of one course are computed together, in their order."""
        return self

    @property
    def label(self) -> str:
        """What figures call this setting's method; variants of a method may have labels of their own."""
        return self.name

    @property
    def words(self) -> str:
        """The setting in a few words, as '20 features x5'."""
        return ", ".join(f"{field.name} {getattr(self, field.name)}" for field in fields(self))

    @classmethod
    def looks(cls) -> dict[str, Look]:
        """How each of its labels looks."""
        return {cls.name: cls.look}


def looks() -> dict[str, Look]:
    """How the settings of every method look that Python knows of, ours and one's own, by label.

    Of one's own with the same label the latest counts, as where a cell is run again; those of this folder keep theirs,
    even from a namesake that `own.load_own` has refused, which is still a class.
    """
    heirs = [*_heirs(Method)]  # type: ignore[type-abstract]  # it is asked for its heirs, not made
    heirs.sort(key=lambda method: method.__module__.startswith(f"{__package__}."))
    return {label: look for method in heirs for label, look in method.looks().items()}


def _heirs(method: type[Method]) -> Iterator[type[Method]]:
    for heir in method.__subclasses__():
        yield from _heirs(heir)
        if hasattr(heir, "look"):  # what several methods share has none
            yield heir
