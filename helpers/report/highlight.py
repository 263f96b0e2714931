"""Tokens shaded by a number, as static HTML: no script, everything escaped, the same in a gallery."""

from collections.abc import Iterable
from html import escape


def highlight(tokens: Iterable[str], activations: Iterable[float]) -> str:
    """Each token on a red ground as deep as its activation is large, with the number as a tooltip.

    Args:
        tokens: texts, escaped here; a newline is shown as a sign and breaks the line.
        activations: one a token, 0 or more; the largest has the deepest shade.
    """
    pairs = list(zip(tokens, activations, strict=True))
    top = max((a for _, a in pairs), default=0) or 1.0
    spans = [
        f'<span title="{activation:.2f}" style="background: rgba(213, 94, 0, {0.8 * activation / top:.2f})">'
        f"{escape(token).replace(chr(10), '&crarr;<br>')}</span>"
        for token, activation in pairs
    ]
    return f'<div style="font-family: monospace; white-space: pre-wrap; line-height: 1.7">{"".join(spans)}</div>'
