"""Prompts grown long by harmless text: before a question, after it, or around it."""

from collections.abc import Sequence

PLACES = ("before", "after", "around")


def filler(tokenizer, texts: Sequence[str], tokens: int) -> str:
    """The texts, joined by spaces, up to that many tokens.

    Raises:
        ValueError: the texts are too short.
    """
    if tokens == 0:
        return ""
    joined = " ".join(texts)
    how = {"add_special_tokens": False, "truncation": True, "max_length": tokens, "return_offsets_mapping": True}
    ends = [end for _, end in tokenizer(joined, **how).offset_mapping]
    if len(ends) < tokens:
        raise ValueError(f"the filler holds {len(ends)} tokens, {tokens} are wanted: give more text")
    return joined[: ends[-1]]


def diluted(text: str, filling: str, place: str) -> str:
    """`text` with `filling` before it, after it, or half of its words before and half after.

    An empty line stands between them; an empty filling leaves the text as it is.

    Raises:
        ValueError: there is no such place.
    """
    if place not in PLACES:
        raise ValueError(f"filler {place!r} the question: allowed are {', '.join(PLACES)}")
    words = filling.split(" ")
    first = {"before": len(words), "after": 0, "around": len(words) // 2}[place]
    before, after = " ".join(words[:first]), " ".join(words[first:])
    return "\n\n".join(part for part in (before, text, after) if part)
