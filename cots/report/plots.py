"""Charts as inline SVG in the text colour of the page, legible on light and dark backgrounds."""

import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

INK = "#010203"  # placeholder for the text colour of the page
COLOURS = (
    "#4285c8",
    "#d97b29",
    "#3d9b6e",
    "#b25597",
    "#9a7d2e",
    "#7a6fd0",
    "#c95d63",
    "#4a9aa5",
)  # legible on white and on near-black
MAX_POINTS = 300  # of a curve; longer curves are averaged in bins

Curve = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart.

    Attributes:
        svg: the element, with its title.
        caption: a sentence below it.
    """

    svg: Markup
    caption: str


def draw_curves(
    title: str, run: str, steps: Curve, lines: Mapping[str, Curve], *, caption: str, threshold: str | None = None
) -> Chart:
    """Draw values over steps.

    Args:
        title: above the axes.
        run: the training run; title and run name the chart for screen readers, so both together are unique in a page.
        steps: (S,)
        lines: values (S,) by name; NaN leaves a gap, and a line of NaN only is not drawn.
        caption: a sentence below the chart.
        threshold: name of a line that is drawn dashed, because it is a threshold.
    """
    figure = Figure(figsize=(4.6, 2.5), layout="constrained")
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "cots", "font.size": 9}):
        axes = figure.add_subplot()
        curves = {
            name: colour for name, colour in zip(lines, cycle(COLOURS), strict=False) if not np.isnan(lines[name]).all()
        }
        for name, colour in curves.items():
            style, values = "--" if name == threshold else "-", lines[name]
            axes.plot(_bin(steps), _bin(values), style, color=colour, linewidth=1.4, label=name)
        axes.set_title(title, loc="left", fontsize=9.5, color=INK)
        axes.set_xlabel("step", color=INK)
        axes.tick_params(colors=INK, width=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(INK)
        axes.grid(alpha=0.15, color=INK, linewidth=0.6)
        axes.margins(x=0.01)
        if len(curves) > 1:
            axes.legend(frameon=False, labelcolor=INK, ncols=2, fontsize=8)
        return Chart(_svg(figure, f"{title}, {run}: {', '.join(curves)} over steps"), caption)


def _bin(values: Curve) -> Curve:
    """At most `MAX_POINTS` means of consecutive values; a bin of NaN only is NaN."""
    size = -(-len(values) // MAX_POINTS)
    bins = (values[start : start + size] for start in range(0, len(values), size))
    return np.array([np.mean(chunk[~np.isnan(chunk)]) if not np.isnan(chunk).all() else np.nan for chunk in bins])


def _svg(figure: Figure, name: str) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = re.sub(r"\W+", "-", name.lower())  # makes ids unique in the page
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    label = Markup('<svg role="img" aria-label="{}"').format(name)
    return Markup(svg.replace("<svg", str(label), 1))  # noqa: S704  matplotlib escapes its texts
