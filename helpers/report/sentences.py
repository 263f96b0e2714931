"""Sentences that read a table aloud: the words stand in the notebook, the numbers come from the rows."""

import math
import re
import string
from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import Markdown

MISSING = "*(missing)*"


def say(sentence: str, **numbers: object) -> Markdown:
    """The sentence with its numbers in place, as Markdown below the cell.

    A number that the rows do not have (a subject without known questions, a method that was left out) is said to be
    missing, so that no notebook stops at a sentence.

    Args:
        sentence: as for `str.format`, as in "RMU forgets {RMU:.2f}".
        numbers: what stands in the braces; those that the sentence does not name are left out.
    """
    return Markdown(_Filled().vformat(sentence, (), numbers))


class _Filled(string.Formatter):
    def get_value(self, key: int | str, args: Sequence, kwargs: Mapping[str, object]) -> object:
        return kwargs.get(key, math.nan) if isinstance(key, str) else super().get_value(key, args, kwargs)

    def format_field(self, value: object, format_spec: str) -> str:
        missing = isinstance(value, float) and math.isnan(value)
        return MISSING if missing else super().format_field(value, format_spec)


def numbers(table: pd.DataFrame, by: str | Sequence[str], value: str) -> dict[str, float]:
    """One column of a table by the words of others, to be named in a sentence: {'forget': 0.38, 'near_domain': 0.9}.

    Args:
        by: the columns whose words, joined by '_', name a number; what is no letter or digit becomes '_'.
        value: the column of the numbers.

    Raises:
        ValueError: two rows would have one name.
    """
    columns = [by] if isinstance(by, str) else list(by)
    names = [re.sub(r"\W+", "_", "_".join(map(str, words))) for words in table[columns].itertuples(index=False)]
    if len(set(names)) < len(names):
        raise ValueError(f"the columns {', '.join(columns)} do not tell the rows apart: {', '.join(names)}")
    return dict(zip(names, table[value].tolist(), strict=True))
