"""Charts as inline SVG."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cots.report.plots import MAX_POINTS, draw_curves

STEPS = np.arange(5.0)


def count_points(svg: str) -> list[int]:
    """Number of points of each curve; ticks and boxes, which have fewer than three, are left out."""
    counts = [len(re.findall(r"[ML] ", path)) for path in re.findall(r'<path d="([^"]*)"', svg)]
    return [count for count in counts if count > 2]


def test_a_chart_is_well_formed_and_named() -> None:
    chart = draw_curves("Losses <&>", "run", STEPS, {"total": STEPS, "task": STEPS**2}, caption="Nats.")
    root = ET.fromstring(chart.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Losses <&>, run: total, task over steps"
    assert chart.caption == "Nats."


def test_a_chart_has_the_text_colour_of_the_page() -> None:
    svg = str(draw_curves("Losses", "run", STEPS, {"total": STEPS}, caption="")).lower()
    assert "currentcolor" in svg
    assert "#000000" not in svg
    assert "#ffffff" not in svg


def test_two_charts_share_no_id() -> None:
    ids = [
        set(re.findall(r'\bid="([^"]*)"', draw_curves(title, run, STEPS, {"total": STEPS}, caption="").svg))
        for title, run in (("Losses", "first"), ("Losses", "second"))
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_within_a_chart_has_its_target() -> None:
    svg = draw_curves("Losses", "run", STEPS, {"total": STEPS, "task": STEPS}, caption="").svg
    targets = set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r"url\(#([^)]*)\)", svg))
    assert targets
    assert targets <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (draw_curves("Losses", "run", STEPS, {"total": STEPS}, caption="") for _ in range(2))
    assert first == second


def test_a_line_of_nan_is_not_in_the_legend() -> None:
    lines = {"total": STEPS, "token": np.full(5, np.nan), "task": STEPS}
    svg = draw_curves("Losses", "run", STEPS, lines, caption="").svg
    assert "token" not in svg
    assert "task" in svg


def test_a_line_keeps_its_colour_if_another_is_not_drawn() -> None:
    def colour(other: float) -> str:
        lines = {"total": STEPS * other, "task": STEPS}
        return str(re.findall(r"stroke: (#\w{6})", draw_curves("Losses", "run", STEPS, lines, caption="").svg)[-1])

    assert colour(1.0) == colour(float("nan"))


@pytest.mark.parametrize("length", [1, 2, MAX_POINTS, MAX_POINTS + 1, 10 * MAX_POINTS + 7])
def test_long_curves_have_a_limited_number_of_points(length: int) -> None:
    values = np.sin(np.arange(float(length)))
    svg = draw_curves("Losses", "run", np.arange(float(length)), {"total": values}, caption="").svg
    assert len(svg) < 60_000
    assert max(count_points(svg), default=0) <= MAX_POINTS


def test_the_first_and_last_steps_survive_the_binning() -> None:
    steps = np.arange(4.0 * MAX_POINTS)
    svg = draw_curves("Losses", "run", steps, {"total": np.where(steps < 8, 900.0, 0.0)}, caption="").svg
    assert "900" in svg or "800" in svg
