"""Two pictures to move, from committed rows: specifications by Altair, drawn in the browser without a server."""

import json
from html import escape
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from generate.place import Place
from helpers.measures.metrics import CHANCE, SIDE_EFFECT_FLOOR
from helpers.report.plots.style import BLUE, FORGET_AXIS, GREEN, NEAR_AXIS, ORANGE, PURPLE, SIDE_AXIS, looks_of

# matplotlib's markers by their nearest relations here
SHAPES = {
    "o": "circle",
    "s": "square",
    "^": "triangle-up",
    "v": "triangle-down",
    "D": "diamond",
    "X": "cross",
    "P": "cross",
    "*": "M0,-1.6L0.38,-0.52L1.52,-0.49L0.61,0.2L0.94,1.29L0,0.64L-0.94,1.29L-0.61,0.2L-1.52,-0.49L-0.38,-0.52Z",
}
LETTERS = {"A": BLUE, "B": ORANGE, "C": GREEN, "D": PURPLE}
ROLES = {"forget": "forget", "side": "side effects", "near": "near domain"}
# the corner in which most settings lie
CORNER = "[0.93, 1.004]"


def stage(place: Place) -> dict[str, str]:
    """The two pictures as HTML, by the word that stands for each in docs/move-it.md."""
    return {
        "trade-off": _picture(place, "05_pareto", trade_off, TRADE_OFF),
        "clamp-curve": _picture(place, "02_clamp_curve", clamp_curve, CLAMP_CURVE),
    }


def scripts() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script that asks nobody for anything."""
    # in a function of its own, for it has names at the top that Sphinx's scripts have too
    about = "/* Vega, Vega-Lite, Vega-Embed, BSD-3-Clause, https://vega.github.io */"
    return f"{about}\n(() => {{\n{vl_convert.javascript_bundle()}\n}})();\n"


def _picture(place: Place, name: str, drawn: Any, controls: str) -> str:
    path = place.pictures / f"{name}.csv"
    if not path.is_file():
        lacking = place.lacks(
            f"Figure {name} is not there", f"python -m helpers.reproduce --profile {place.profile} --only {name[:2]}"
        )
        return f":::{{warning}}\n{lacking}\n:::\n"
    still = f"figures/{place.profile}/{name}.png"
    words = escape(f"{name}, as a still picture")
    spec = json.dumps(drawn(pd.read_csv(path)).to_dict()).replace("</", "<\\/")
    return (
        f'```{{raw}} html\n<div class="moving" id="{drawn.__name__}" data-still="{still}">\n'
        f"{controls}"
        '<div class="chart"></div>\n<p class="reading" aria-live="polite"></p>\n'
        f'<noscript><img src="{still}" alt="{words}"></noscript>\n'
        f'<script type="application/json">{spec}</script>\n</div>\n```\n'
    )


# --- the trade-off ----------------------------------------------------------------------------------------------------

TRADE_OFF = """<form class="controls" hidden>
<label><input type="checkbox" name="zoom"> only the corner from 0.93 to 1</label>
<button type="button" name="clear">Clear the region</button>
</form>
"""


def trade_off(table: pd.DataFrame) -> alt.ConcatChart:
    """Forget accuracy against side effects and the near domain; methods are picked, points hovered, regions brushed."""
    rows = table.dropna(subset=["forget_accuracy", "side_accuracy", "near_accuracy"]).copy()
    for role in ROLES:
        rows[role] = [
            f"{value:.2f} [{low:.2f}, {high:.2f}]"
            for value, low, high in zip(
                rows[f"{role}_accuracy"], rows[f"{role}_low"], rows[f"{role}_high"], strict=True
            )
        ]
    columns = ["method", "setting", *ROLES, "loss_added"]
    columns += [f"{role}_{end}" for role in ROLES for end in ("accuracy", "low", "high")]
    picked = alt.selection_point(name="picked", fields=["method"], bind="legend", toggle="true")
    # one a panel, of which either lights its setting in both
    over = {"fields": ["method", "setting"], "on": "pointerover", "clear": "pointerout", "empty": False}
    hovered = [alt.selection_point(name=f"hovered_{role}", **over) for role in ("side", "near")]
    region = alt.selection_interval(name="region")
    zoom = alt.param(name="zoom", value=False)
    charts = [
        _panel(rows[columns], "side", SIDE_AXIS, hovered, picked).add_params(picked, hovered[0], region),
        _panel(rows[columns], "near", NEAR_AXIS, hovered, picked & region).add_params(hovered[1]),
    ]
    return (
        alt.concat(*charts, columns=2)
        .add_params(zoom)
        .resolve_scale(color="shared", shape="shared")
        .configure_view(stroke=None)
    )


def _panel(rows: pd.DataFrame, role: str, words: str, hovered: list[Any], lit: Any) -> alt.LayerChart:
    looks = looks_of(rows["method"])
    names, markers = list(looks), [SHAPES.get(marker, "circle") for _, marker in looks.values()]
    lowest = min(rows[f"{role}_low"].min(), 0.9) - 0.02
    across = alt.Scale(domain=alt.ExprRef(f"zoom ? {CORNER} : [{lowest:.2f}, 1.02]"), nice=False)
    down = alt.Scale(domain=[min(0.2, rows["forget_low"].min()), 1.02], nice=False)
    x = alt.X(f"{role}_accuracy:Q", scale=across, title=words, axis=alt.Axis(tickCount=6))
    y = alt.Y("forget_accuracy:Q", scale=down, title=FORGET_AXIS)
    colour = alt.Color("method:N", scale=alt.Scale(domain=names, range=[colour for colour, _ in looks.values()]))
    legend = alt.Legend(title=None, orient="top", symbolOpacity=1, labelLimit=0)
    base = alt.Chart(rows)
    points = base.mark_point(filled=True, size=70, clip=True).encode(
        x, y, colour.legend(legend),
        alt.Shape("method:N", scale=alt.Scale(domain=names, range=markers)).legend(legend),
        opacity=alt.condition(lit, alt.value(0.85), alt.value(0.08)),
        tooltip=["method:N", "setting:N", *[alt.Tooltip(f"{r}:N", title=w) for r, w in ROLES.items()],
                 alt.Tooltip("loss_added:Q", title="loss added", format="+.3f")],
    )  # fmt: skip
    of = base.transform_filter(hovered[0] | hovered[1])
    bars = [
        of.mark_rule(clip=True, strokeWidth=1.5).encode(alt.X(f"{role}_low:Q"), y, colour, x2=f"{role}_high:Q"),
        of.mark_rule(clip=True, strokeWidth=1.5).encode(x, alt.Y("forget_low:Q"), colour, y2="forget_high:Q"),
    ]
    marks = [_line("y", CHANCE, [2, 3])] + ([_line("x", SIDE_EFFECT_FLOOR, [6, 4])] if role == "side" else [])
    return alt.layer(points, *bars, *marks).properties(width=360, height=340)


def _line(axis: str, at: float, dash: list[int]) -> alt.Chart:
    return (
        alt.Chart(pd.DataFrame({"at": [at]}))
        .mark_rule(strokeDash=dash, color="#8C8C8C", clip=True)
        .encode(**{axis: "at:Q"})
    )


# --- the clamp curve --------------------------------------------------------------------------------------------------

CLAMP_CURVE = """<form class="controls" hidden>
<label>whose <select name="world"></select></label>
<label class="wide">c <input type="range" name="c" min="0" max="1" value="0" step="1"> <output></output></label>
</form>
"""


def clamp_curve(table: pd.DataFrame) -> alt.ConcatChart:
    """The four letters along the clamp, and as bars at one strength: 'world' and 'c' are set from outside."""
    rows = table.assign(
        name=[
            f"{letter} (right)" if right else letter
            for letter, right in zip(table["letter"], table["right"], strict=True)
        ]
    )
    world = alt.param(name="world", value=rows["world"].iloc[0])
    at = alt.param(name="c", value=float(rows["strength"].iloc[0]))
    colour = alt.Color("letter:N", scale=alt.Scale(domain=list(LETTERS), range=list(LETTERS.values())))
    base = alt.Chart(rows).transform_filter("datum.world === world")
    strengths = alt.Axis(labelExpr="datum.value < 0 ? 'no edit' : datum.label", labelAngle=0, labelOverlap=True)
    x = alt.X("strength:O", title="strength c (0 is zero ablation)", axis=strengths)
    log = alt.Scale(type="log", domain=[1e-8, 1.5], nice=False)
    axis = alt.Axis(values=[10.0**e for e in range(-8, 1)], format=".0e")
    lines = base.mark_line(point=True).encode(
        x,
        alt.Y("probability:Q", scale=log, axis=axis, title="probability of the letter"),
        colour.legend(alt.Legend(title=None, orient="top")),
        strokeWidth=alt.condition("datum.right", alt.value(3), alt.value(1.2)),
    )
    here = base.transform_filter("datum.strength === c")
    rule = here.mark_rule(strokeDash=[4, 3], color="#8C8C8C").encode(x)
    bars = here.mark_bar().encode(
        alt.X("name:N", title="letter", axis=alt.Axis(labelAngle=0)),
        alt.Y(
            "probability:Q", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5), title="probability at this c"
        ),
        colour.legend(None),
        tooltip=["name:N", alt.Tooltip("probability:Q", format=".4f")],
    )
    left, right = alt.layer(rule, lines), bars
    charts = [chart.properties(width=360, height=320) for chart in (left, right)]
    return (
        alt.concat(*charts, columns=2)
        .add_params(world, at)
        .resolve_scale(color="independent", x="independent", y="independent")
        .configure_view(stroke=None)
    )
