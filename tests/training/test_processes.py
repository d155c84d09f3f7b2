"""The same work in one, two and four processes: the same losses, weights, queues and filter, on every one of them."""

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

Found = list[dict[str, Any]]


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
def found(
    tiny_data: Path, tokenized: Path, tmp_path_factory: pytest.TempPathFactory, fork_python: str
) -> dict[int, Found]:
    """What each process had in the end, by how many there were."""
    results = {}
    for count in (1, 2, 4):
        out = tmp_path_factory.mktemp(f"processes{count}")
        done = torchrun(fork_python, count, "tests.training.worker", tiny_data, tokenized, out)
        assert done.returncode == 0, done.stderr
        results[count] = [torch.load(out / f"{rank}.pt", weights_only=True) for rank in range(count)]
    return results


@pytest.mark.parametrize("name", sorted(OBJECTIVES.keys() - {"sharded and dropped"}))
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_have_the_losses_and_weights_of_one(name: str, count: int, found: dict[int, Found]) -> None:
    alone, together = found[1][0][name], found[count][0][name]
    for mine, theirs in zip(together["rows"], alone["rows"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-6)
    for key, value in alone["state"].items():
        torch.testing.assert_close(together["state"][key], value, rtol=1e-6, atol=1e-7, msg=key)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("count", [2, 4])
def test_every_process_ends_with_the_same_weights_queue_and_filter(
    name: str, count: int, found: dict[int, Found]
) -> None:
    first, *others = [one[name]["state"] for one in found[count]]
    for other in others:
        shared = {key for key, value in other.items() if value is None}
        assert all(torch.equal(other[key], first[key]) for key in other.keys() - shared)
        assert bool(shared) == name.startswith("sharded")
        assert not any(key.startswith(("queue", "noise_filter")) for key in shared)


def test_a_process_whose_pairs_are_all_noise_keeps_its_likeliest_where_weights_are_sharded(
    found: dict[int, Found],
) -> None:
    kept = {count: [row[KEEP_RATE] for row in one[0]["sharded and dropped"]["rows"]] for count, one in found.items()}
    assert min(kept[1]) < min(kept[4]) < 1


def test_a_batch_that_does_not_divide_is_shared_as_evenly_as_it_can_be(found: dict[int, Found]) -> None:
    assert [one["keys"]["sizes"] for one in found[4]] == [[1] * STEPS, [2] * STEPS, [2] * STEPS, [2] * STEPS]


def test_the_filter_dropped_pairs_and_queues_were_filled_in_what_was_compared(found: dict[int, Found]) -> None:
    one = found[1][0]["keys"]
    assert min(row[KEEP_RATE] for row in one["rows"]) < 1
    assert int(one["state"]["queue.count"]) == 20
