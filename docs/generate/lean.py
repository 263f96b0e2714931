"""A finished page without the bytes that say nothing: most of a listing's, and a tenth of every page's."""

import re

# Names, punctuation, operators and blanks of code, marked one by one, read as plain text; in signatures every word
# stands in another mark of its own besides.
PLAIN = re.compile(r'<span class="(?:[npow]|pre)">([^<]*)</span>')
# Where blanks at the beginning of a line say something; elsewhere a browser takes them and the line's end for one.
AS_IT_STANDS = re.compile(r"(<(pre|script|style|textarea)\b.*?</\2>)", re.DOTALL)


def lean(page: str) -> str:
    """A page of HTML that reads and looks the same."""
    page = PLAIN.sub(r"\1", PLAIN.sub(r"\1", page))  # one may stand in another
    parts = AS_IT_STANDS.split(page)  # between, what is left as it is, and its tag
    parts[::3] = [re.sub(r"\n\s+", "\n", part) for part in parts[::3]]
    del parts[2::3]
    return "".join(parts)
