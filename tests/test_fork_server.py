"""Forked processes start, receive signals and end like processes of the real interpreter."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.fork_server import start
from tests.servers import waited_for

pytestmark = pytest.mark.slow

Ended = tuple[int, str, str]

TELLS_ITS_START = """
    import os, sys
    print(sys.argv[1:], os.getcwd(), os.environ["NEW"], os.environ.get("OLD"), __name__, sys.path[0] == "")
    print(open(int(sys.argv[1])).read(), sys.stdin.read(), os.umask(0))
    print("to people", file=sys.stderr)
    sys.exit(3)
"""


@pytest.fixture(params=["real", "forked"])
def python(request: pytest.FixtureRequest, fork_python: str) -> str:
    """The real interpreter, by which the expectation is shown to hold, and the stand-in."""
    return sys.executable if request.param == "real" else fork_python


def ran(python: str, *arguments: str, **options: object) -> Ended:
    done = subprocess.run([python, *arguments], capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    return done.returncode, done.stdout, done.stderr


def test_arguments_environment_folder_files_and_exit_code_are_those_of_the_request(
    python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OLD", raising=False)
    (tmp_path / "file").write_text("content")
    with (tmp_path / "file").open() as file:
        done = ran(
            python,
            *("-c", textwrap.dedent(TELLS_ITS_START), number := str(file.fileno()), "an ärgument", ""),
            cwd=tmp_path,
            env=os.environ | {"NEW": "è"},
            pass_fds=[file.fileno()],
            input="from a pipe",
        )
    output = f"{[number, 'an ärgument', '']} {tmp_path} è None __main__ True\ncontent from a pipe 18\n"
    assert done == (3, output, "to people\n")


def test_a_module_of_the_working_folder_and_of_pythonpath_is_found(python: str, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.py").write_text(
            "import sys, there; print(sys.argv, sys.modules['__main__'].__file__)"
        )
    (tmp_path / "there/there.py").write_text("")
    code, output, errors = ran(
        python, "-m", "here", "x", cwd=tmp_path / "here", env=os.environ | {"PYTHONPATH": str(tmp_path / "there")}
    )
    file = tmp_path / "here" / "here.py"
    assert (code, output, errors) == (0, f"{[str(file), 'x']} {file}\n", "")


def test_an_uncaught_exception_is_printed_and_gives_exit_code_1(python: str) -> None:
    code, output, errors = ran(python, "-c", "print('before'); import atexit; atexit.register(print, 'at exit'); 1 / 0")
    assert (code, output, errors.splitlines()[-1]) == (1, "before\nat exit\n", "ZeroDivisionError: division by zero")


def test_what_is_started_in_turn_is_python_too_also_through_a_shell_and_by_exec(python: str) -> None:
    code = "import os, subprocess, sys; subprocess.run('python -c \"print(1)\"', shell=True, check=True)\n"
    code += "os.execv(sys.executable, [sys.executable, '-c', 'raise SystemExit(7)'])"
    assert ran(python, "-c", code) == (7, "1\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_the_work_and_the_process_dies_of_it(python: str, tmp_path: Path, number: signal.Signals) -> None:
    code = "import os, time\n"
    code += "open('pid.new', 'w').write(str(os.getpid())); os.rename('pid.new', 'pid'); time.sleep(600)"
    process = subprocess.Popen([python, "-c", code], cwd=tmp_path, stderr=subprocess.DEVNULL)
    waited_for((tmp_path / "pid").is_file)
    process.send_signal(number)
    assert process.wait(60) == -number
    work = int((tmp_path / "pid").read_text())
    waited_for(lambda: not Path(f"/proc/{work}").exists())


def test_a_handler_of_the_program_decides_what_a_signal_does(python: str) -> None:
    code = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(9))\nprint('ready', flush=True)\nsignal.pause()"
    with subprocess.Popen([python, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 9


def test_other_options_and_other_hash_seeds_are_left_to_the_real_interpreter(fork_python: str) -> None:
    assert ran(fork_python, "-X", "dev", "-c", "import sys; print(sys.flags.dev_mode)") == (0, "True\n", "")
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    forked, real = (ran(python, "-c", "print(hash('a'))", env=environment) for python in (fork_python, sys.executable))
    assert forked == real


def test_numbers_of_threads_and_random_numbers_are_each_forks_own(fork_python: str) -> None:
    code = "import random, numpy, torch; print(torch.get_num_threads(), random.random(), numpy.random.rand())"
    outputs = [ran(fork_python, "-c", code, env=os.environ | {"OMP_NUM_THREADS": n})[1].split() for n in "11"]
    assert [output[0] for output in outputs] == ["1", "1"]
    assert not set(outputs[0][1:]) & set(outputs[1][1:])


def test_a_server_whose_session_is_over_ends_with_what_it_left_running(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as session:
        python = start(tmp_path / "server", session.pid, preloaded=["torch", "prefect.context"])
        with subprocess.Popen(
            [python, "-c", "print('on', flush=True); import time; time.sleep(600)"], stdout=subprocess.PIPE
        ) as child:
            assert child.stdout
            assert child.stdout.readline() == b"on\n"
            session.kill()
            assert child.wait(60) == 125
            assert child.stdout.read() == b""
