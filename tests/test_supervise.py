"""A supervised command ends with its parent, and with its supervisor."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.servers import waited_for

ROOT = Path(__file__).parents[1]
SLEEPER = """
import os, signal
from pathlib import Path
Path("partial").write_text(str(os.getpid()))
Path("partial").rename("pid")
signal.pause()
"""


@pytest.mark.slow
@pytest.mark.parametrize("end", ["parent", "supervisor"])
def test_a_command_ends_with_its_parent_and_with_a_supervisor_that_is_killed(tmp_path: Path, end: str) -> None:
    if end == "supervisor" and sys.platform != "linux":
        pytest.skip("only Linux ends a process with its parent")
    (tmp_path / "sleeper.py").write_text(SLEEPER)
    command = [sys.executable, "-m", "cots.supervise", "sleeper"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    supervisor = subprocess.Popen(command, cwd=tmp_path, env=environment, stdin=subprocess.PIPE)
    waited_for((tmp_path / "pid").is_file)
    sleeper = psutil.Process(int((tmp_path / "pid").read_text()))
    assert supervisor.stdin
    if end == "parent":
        supervisor.stdin.close()
    else:
        supervisor.kill()
    assert psutil.wait_procs([sleeper], timeout=60)[1] == []
    assert supervisor.wait(60) == (128 + 15 if end == "parent" else -9)
    supervisor.stdin.close()
