"""Progress lines of long work."""

import pytest

from cots.progress import Progress


def test_a_resumed_run_reckons_its_rate_from_its_own_steps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("cots.progress.time.monotonic", lambda: now)
    with Progress("pretrain", total=1000, unit="steps") as progress:
        for step in range(900, 940):
            now += 1.0
            progress.log_step({"step": step, "loss/total": 2.0})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "pretrain: 916/1000 steps, 1.0/s, 84 s left loss/total 2.000"
    assert lines[-1] == "pretrain: 40 of 940 steps in 40 s"


def test_a_run_from_the_start_counts_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("prepare", total=None, unit="samples") as progress:
        progress.advance(3)
    assert capsys.readouterr().err == "prepare: 3 samples in 0 s\n"
