"""Training in one, two and four processes gives the same losses, weights, queues and filter on every rank."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

from cots.curves import KEEP_RATE
from tests.training.worker import OBJECTIVES, STEPS

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RankResults = list[dict[str, Any]]


def torchrun(python: str, count: int, module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return subprocess.run(
        [*command, "-m", module, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


@pytest.fixture(scope="module")
def results(
    annotated_data: Path, tokenized: Path, tmp_path_factory: pytest.TempPathFactory, fork_python: str
) -> dict[int, RankResults]:
    """Final results of each rank, by the number of processes."""
    by_count = {}
    for count in (1, 2, 4):
        out = tmp_path_factory.mktemp(f"processes{count}")
        done = torchrun(fork_python, count, "tests.training.worker", annotated_data, tokenized, out)
        assert done.returncode == 0, done.stderr
        by_count[count] = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(count)]
    return by_count


@pytest.mark.parametrize("name", ["dvae", *sorted(OBJECTIVES.keys() - {"sharded and dropped"})])
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_have_the_losses_and_weights_of_one(
    name: str, count: int, results: dict[int, RankResults]
) -> None:
    alone, together = results[1][0][name], results[count][0][name]
    for mine, theirs in zip(together["rows"], alone["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    for key, value in alone["state"].items():
        torch.testing.assert_close(together["state"][key], value, rtol=1e-6, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", ["dvae", *OBJECTIVES])
@pytest.mark.parametrize("count", [2, 4])
def test_every_process_ends_with_the_same_weights_queue_and_filter(
    name: str, count: int, results: dict[int, RankResults]
) -> None:
    first, *others = [rank_results[name]["state"] for rank_results in results[count]]
    for other in others:
        shared = {key for key, value in other.items() if value is None}
        assert all(torch.equal(other[key], first[key]) for key in other.keys() - shared)
        assert bool(shared) == name.startswith("sharded")
        assert not any(key.startswith(("queue", "noise_filter")) for key in shared)


def test_a_rank_lost_all_its_pairs_to_the_filter_in_what_was_compared(results: dict[int, RankResults]) -> None:
    assert min(min(rank_results["within modalities"]["kept"]) for rank_results in results[4]) == 0


def test_a_rank_whose_pairs_are_all_noise_keeps_the_most_similar_if_weights_are_sharded(
    results: dict[int, RankResults],
) -> None:
    keep_rates = {
        count: [row[KEEP_RATE] for row in ranks[0]["sharded and dropped"]["rows"]] for count, ranks in results.items()
    }
    assert min(keep_rates[1]) < min(keep_rates[4]) < 1


def test_a_batch_that_does_not_divide_is_shared_as_evenly_as_it_can_be(results: dict[int, RankResults]) -> None:
    assert [rank_results["keys"]["sizes"] for rank_results in results[4]] == [
        [1] * STEPS,
        [2] * STEPS,
        [2] * STEPS,
        [2] * STEPS,
    ]


def test_the_filter_dropped_pairs_and_queues_were_filled_in_what_was_compared(results: dict[int, RankResults]) -> None:
    result = results[1][0]["keys"]
    assert min(row[KEEP_RATE] for row in result["rows"]) < 1
    assert int(result["state"]["queue.count"]) == 12
