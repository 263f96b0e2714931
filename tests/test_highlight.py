"""The shaded text is static and escaped."""

from helpers.report.highlight import highlight


def test_tokens_are_escaped_and_shaded_by_activation():
    html = highlight(["<script>", "a & b", "\n"], [1.0, 2.0, 0.0])
    assert "<script>" not in html and "&lt;script&gt;" in html and "a &amp; b" in html
    assert "rgba(213, 94, 0, 0.40)" in html and "rgba(213, 94, 0, 0.80)" in html and "rgba(213, 94, 0, 0.00)" in html
    assert "&crarr;<br>" in html


def test_nothing_fires_and_nothing_is_shaded():
    assert "0.00)" in highlight(["a"], [0.0])
    assert "span" not in highlight([], [])
