"""Charts as inline SVG."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from cots.report.plots import POINTS, curves

STEPS = np.arange(5.0)


def points(svg: str) -> list[int]:
    """How many points each drawn curve has; ticks and boxes are shorter than three."""
    counts = [len(re.findall(r"[ML] ", path)) for path in re.findall(r'<path d="([^"]*)"', svg)]
    return [count for count in counts if count > 2]


def test_a_chart_is_well_formed_and_named() -> None:
    chart = curves("Losses <&>", "run", STEPS, {"total": STEPS, "task": STEPS**2}, caption="Nats.")
    root = ET.fromstring(chart.svg)
    assert root.get("role") == "img"
    assert root.get("aria-label") == "Losses <&>, run: total, task over steps"
    assert chart.caption == "Nats."


def test_a_chart_takes_its_ink_from_the_page() -> None:
    svg = str(curves("Losses", "run", STEPS, {"total": STEPS}, caption="")).lower()
    assert "currentcolor" in svg
    assert "#000000" not in svg
    assert "#ffffff" not in svg


def test_two_charts_share_no_id() -> None:
    ids = [
        set(re.findall(r'\bid="([^"]*)"', curves(title, of, STEPS, {"total": STEPS}, caption="").svg))
        for title, of in (("Losses", "first"), ("Losses", "second"))
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_every_reference_within_a_chart_has_its_target() -> None:
    svg = curves("Losses", "run", STEPS, {"total": STEPS, "task": STEPS}, caption="").svg
    targets = set(re.findall(r'href="#([^"]*)"', svg)) | set(re.findall(r"url\(#([^)]*)\)", svg))
    assert targets
    assert targets <= set(re.findall(r'\bid="([^"]*)"', svg))


def test_the_same_values_give_the_same_bytes() -> None:
    first, second = (curves("Losses", "run", STEPS, {"total": STEPS}, caption="") for _ in range(2))
    assert first == second


def test_a_line_without_a_number_is_left_out_of_the_legend() -> None:
    lines = {"total": STEPS, "token": np.full(5, np.nan), "task": STEPS}
    svg = curves("Losses", "run", STEPS, lines, caption="").svg
    assert "token" not in svg
    assert "task" in svg


def test_a_line_keeps_its_colour_when_another_is_left_out() -> None:
    def colour(other: float) -> str:
        lines = {"total": STEPS * other, "task": STEPS}
        return str(re.findall(r"stroke: (#\w{6})", curves("Losses", "run", STEPS, lines, caption="").svg)[-1])

    assert colour(1.0) == colour(float("nan"))


@pytest.mark.parametrize("length", [1, 2, POINTS, POINTS + 1, 10 * POINTS + 7])
def test_long_curves_are_drawn_with_few_points(length: int) -> None:
    values = np.sin(np.arange(float(length)))
    svg = curves("Losses", "run", np.arange(float(length)), {"total": values}, caption="").svg
    assert len(svg) < 60_000
    assert max(points(svg), default=0) <= POINTS


def test_the_first_and_last_steps_survive_the_binning() -> None:
    steps = np.arange(4.0 * POINTS)
    svg = curves("Losses", "run", steps, {"total": np.where(steps < 8, 900.0, 0.0)}, caption="").svg
    assert "900" in svg or "800" in svg
