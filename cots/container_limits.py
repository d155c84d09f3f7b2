"""What this process may use of the machine: cores and memory, within the limits of its container."""

import math
import os
from pathlib import Path

import psutil

CGROUPS = Path(
    "/sys/fs/cgroup"
)  # of the container, where there is one; the files of version 2, or folders of version 1


def available_cores(cgroups: Path = CGROUPS) -> int:
    """Cores that this process may use: those of its affinity, or fewer if its container's processor time is limited."""
    cores = len(os.sched_getaffinity(0))
    version_1 = _read(cgroups / "cpu/cpu.cfs_quota_us") + _read(cgroups / "cpu/cpu.cfs_period_us")
    for limit in (_read(cgroups / "cpu.max"), version_1):
        if len(limit) == 2 and limit[0] > 0:  # microseconds of processor time in so many microseconds
            cores = min(cores, math.ceil(limit[0] / limit[1]))
    return cores


def available_memory(cgroups: Path = CGROUPS) -> int:
    """Bytes of memory that this process may use: those of its container, or of the machine if they are not limited."""
    limits = _read(cgroups / "memory.max") + _read(cgroups / "memory/memory.limit_in_bytes")
    installed: int = psutil.virtual_memory().total
    return min([installed, *limits])


def _read(file: Path) -> list[int]:
    """The numbers in a file of the kernel; none if there is no such file. The word for no limit, `max`, is left out."""
    try:
        return [int(word) for word in file.read_text(encoding="ascii").split() if word != "max"]
    except OSError:
        return []
