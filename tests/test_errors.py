"""How a process that fails ends: one line, an exit code by kind, and a traceback only in a file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

WORK = (
    "import sys; from cots.errors import *\nwith exit_on_error():\n    print('half of the output'); exec(sys.argv[1])"
)


def failed(work: str, tmp_path: Path) -> tuple[int, str]:
    """Exit code and the only line of standard error."""
    command, environment = [sys.executable, "-c", WORK, work], os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "half of the output\n"
    [line] = done.stderr.splitlines()
    return done.returncode, line


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        ("raise BadInput('no such file a:\\nwrite one')", 2, "error: no such file a: write one"),
        ("raise RunFailed('too many')", 1, "error: too many"),
        ("with open('/dev/full', 'w') as file: file.write('a')", 1, "No space left on device: free some space"),
        ("raise OSError(30, 'Read-only file system', 'a/b')", 1, "'a/b': run it where files can be written"),
        ("raise PermissionError(13, 'Permission denied', 'a/b')", 1, "'a/b': give this user the rights"),
        ("raise PermissionError('Access Denied')", 1, "Access Denied: give this user the rights"),  # as s3fs has it
        ("raise KeyboardInterrupt", 130, "error: interrupted"),
        ("b'a' * 10**15", 1, "lower batch_size"),
        (
            "try: raise OSError(28, 'No space left on device', 'a')\nexcept OSError: raise RuntimeError('position')",
            1,
            "'a': free some space",
        ),
        ("from pathlib import Path; Path('~no-such-user/a').expanduser()", 1, "write the path without ~"),
        ("raise RuntimeError('write error in a.faiss: 5 != 9 (No space left on device)')", 1, "a.faiss"),
    ],
)
def test_a_failure_that_can_be_foreseen_is_one_line_with_the_way_out(
    tmp_path: Path, work: str, code: int, said: str
) -> None:
    ended, line = failed(work, tmp_path)
    assert (ended, list(tmp_path.iterdir())) == (code, [])
    assert said in line


def test_a_fault_of_the_program_has_its_own_code_and_a_file_with_the_traceback(tmp_path: Path) -> None:
    code, line = failed("{}['a']", tmp_path)
    assert code == 70
    [file] = tmp_path.iterdir()
    assert line.startswith("error: KeyError: 'a'")
    assert str(file) in line
    text = file.read_text()
    assert text.startswith("Traceback")
    assert text.endswith("KeyError: 'a'\n")


def test_without_a_folder_for_the_file_the_traceback_is_printed() -> None:
    work = f"import tempfile; tempfile.tempdir = '/nowhere'\n{WORK}"
    done = subprocess.run([sys.executable, "-c", work, "1/0"], capture_output=True, text=True, check=False)
    assert done.returncode == 70
    *trace, last = done.stderr.splitlines()
    assert "ZeroDivisionError: division by zero" in trace
    assert "the traceback above" in last


def test_output_that_cannot_be_written_is_an_error_of_one_line() -> None:
    command = [sys.executable, "-m", "cots", "--help"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["error: [Errno 28] No space left on device: free some space and run it again"]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-c", WORK, "[print('more') for _ in range(100_000)]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""


def test_letters_that_the_terminal_lacks_do_not_end_a_command() -> None:
    code = (
        "import sys, typer; sys.argv = ['cots', 'x']; from cots import cli\n"
        "cli.app.command()(lambda: print('MMD²')); cli.app.registered_commands[-1].name = 'x'; cli.main()"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout == "MMD\\xb2\n"
