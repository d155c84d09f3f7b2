import pytest

from cots.serving.gate import MARGIN, gate


@pytest.mark.parametrize(
    ("before", "after", "promote"),
    [
        (300.0, 360.0, True),
        (300.0, 300.0, True),
        (300.0, 300.0 - 6 * (MARGIN - 0.01), True),
        (300.0, 300.0 - 6 * MARGIN, False),
        (300.0, 0.0, False),
        (0.0, 0.0, True),
    ],
)
def test_a_version_passes_unless_its_mean_recall_is_lower_by_the_margin(
    before: float, after: float, promote: bool
) -> None:
    decision = gate({"rsum": before}, {"rsum": after})
    assert decision.promote is promote
    assert f"{after / 6:.2f} %" in decision.reasons[0]
    assert f"{before / 6:.2f} %" in decision.reasons[0]
