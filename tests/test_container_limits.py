import os
from pathlib import Path

import psutil
import pytest

from cots.container_limits import available_cores, available_memory
from cots.decode_threads import BYTES_PER_PIXEL, num_untrusted_threads

CORES, MEMORY = len(os.sched_getaffinity(0)), psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, CORES),
        ({"cpu.max": "max 100000"}, CORES),
        ({"cpu.max": "100000 100000"}, 1),
        ({"cpu.max": "10000 100000"}, 1),
        ({"cpu.max": "9900000 100000"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "50000", "cpu/cpu.cfs_period_us": "100000"}, 1),
    ],
)
def test_a_container_has_the_cores_of_its_quota(files: dict[str, str], cores: int, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_cores(tmp_path) == cores


def test_a_process_has_the_cores_of_its_affinity(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert available_cores(tmp_path) == num_untrusted_threads(1) == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("files", "memory"),
    [
        ({}, MEMORY),
        ({"memory.max": "max"}, MEMORY),
        ({"memory.max": str(2**28)}, 2**28),
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096)}, MEMORY),
        ({"memory/memory.limit_in_bytes": str(2**28)}, 2**28),
    ],
)
def test_a_container_has_the_memory_of_its_limit(files: dict[str, str], memory: int, tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content + "\n")
    assert available_memory(tmp_path) == memory


def test_as_many_threads_decode_as_images_fit_in_half_of_the_memory() -> None:
    assert num_untrusted_threads(available_memory() // BYTES_PER_PIXEL) == 1
    assert num_untrusted_threads(1) == available_cores()
