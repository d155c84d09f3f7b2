"""Errors for the user: a message of one line and an exit code, without a traceback.

CotsError
├── BadInput   exit code 2: a file, a table, a parameter or an argument is wrong
└── RunFailed  exit code 1: the input was usable, but the run failed
    └── UnreadableFiles

A machine that refuses (a full or read-only disk, missing rights, no memory) ends a process like `RunFailed`. Any other
exception is a fault of this program: exit code 70, and the line names the file that holds the traceback.
"""

import atexit
import errno
import gc
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import NamedTemporaryFile

from cots.terminal import escape_controls

EXTRAS = {  # by package: what brings it, besides the requirements of every installation
    "dvc": "pipeline",
    "great_expectations": "pipeline",
    "prefect": "pipeline",
    "psycopg2": "platform",
    "ray": "cluster",
    "s3fs": "s3",
}
INTERRUPTED, INTERNAL_ERROR = 130, 70  # exit codes: of shells for SIGINT, of sysexits.h for a fault of the program
ADVICE = {  # what to do, by the machine's reason
    errno.ENOSPC: "free some space and run it again",
    errno.EDQUOT: "free some space and run it again",
    errno.EROFS: "run it where files can be written",
    errno.EACCES: "give this user the rights, or run it as another one",
    errno.EPERM: "give this user the rights, or run it as another one",
    errno.EMFILE: "raise the limit (`ulimit -n`) and run it again",
    errno.EIO: "check the disk",
    errno.EBUSY: "run it again later",
    errno.ENOMEM: "free some memory, or lower batch_size, and run it again",
}
BUCKET_ADVICE = {  # what to do, by botocore's words
    "Unable to locate credentials": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile in AWS_PROFILE",
    "Could not connect to the endpoint URL": "check the network and AWS_ENDPOINT_URL, and run it again",
    "timeout on endpoint URL": "check the network and AWS_ENDPOINT_URL, and run it again",
}


class CotsError(Exception):
    """An error whose message is written for the person at the keyboard: what, where, what to do."""

    exit_code = 1


class BadInput(CotsError):
    """A file, parameter or argument from the user cannot be used."""

    exit_code = 2


class RunFailed(CotsError):
    """The work itself failed: too many rejections, an expectation not met, a server that is down."""


class UnreadableFiles(RunFailed):
    """The files of one registered version are missing or damaged; other versions are not affected."""


@contextmanager
def exit_on_error() -> Iterator[None]:
    """The whole work of a process: if it fails, print one line to standard error and exit with a code of its own."""
    atexit.register(skip_last_collection)
    try:
        yield
        sys.stdout.flush()
    except CotsError as error:
        _exit(str(error), error.exit_code)
    except BrokenPipeError:  # who read the output has seen enough
        _exit("", 1)
    except KeyboardInterrupt:
        _exit("interrupted", INTERRUPTED)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and (package := (error.name or "").partition(".")[0]) in EXTRAS:
            _exit(f"this needs {package}: run `pip install 'cots[{EXTRAS[package]}]'`", BadInput.exit_code)
        if refusal := machine_refusal(error):
            _exit(refusal, RunFailed.exit_code)
        fault = "".join(traceback.format_exception_only(error)).strip()
        _exit(f"{fault} (a fault of this program: please report it with {_log(error)})", INTERNAL_ERROR)


def skip_last_collection() -> None:
    """Keep the last garbage collection of a process from going through all objects, which end anyway.

    With torch loaded it takes two CPU seconds. Triton from 3.9 on needs it: nanobind lists what is left of its types as
    leaks, on standard error.
    """
    compiler = sys.modules.get("triton._C.libtriton")
    builder = getattr(getattr(compiler, "ir", None), "builder", None)
    if type(builder).__module__ != "nanobind":
        gc.freeze()


def machine_refusal(error: BaseException) -> str | None:
    """What the machine refused and what to do, if that is why an exception was raised.

    Libraries wrap the system's errors in their own, so its words count wherever they stand in the chain of exceptions.
    """
    link: BaseException | None = error
    while link:
        number = errno.EACCES if isinstance(link, PermissionError) else getattr(link, "errno", None)
        for code, advice in ADVICE.items():
            if number == code or os.strerror(code) in str(link):
                return f"{link}: {advice}"
        for words, advice in BUCKET_ADVICE.items():
            if words in str(link):
                return f"{link}: {advice}"
        if isinstance(link, MemoryError) or "out of memory" in str(link):
            return f"{str(link) or 'out of memory'}: {ADVICE[errno.ENOMEM]}"
        if isinstance(link, RuntimeError) and "home directory" in str(link):  # of `~` or `~name` in a path
            return f"{str(link).rstrip('.')}: write the path without ~"
        link = link.__cause__ or link.__context__
    return None


def _log(error: BaseException) -> str:
    """Write the traceback to a new file; its path, or what replaces it if no folder can be written."""
    try:
        with NamedTemporaryFile(
            "w", prefix="cots-", suffix=".log", delete=False, encoding="utf8", errors="backslashreplace"
        ) as file:
            traceback.print_exception(error, file=file)
        return file.name
    except OSError:
        traceback.print_exception(error)
        return "the traceback above"


def _exit(message: str, code: int) -> None:
    if message:
        print("error:", escape_controls(" ".join(message.splitlines())), file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # the interpreter would try again and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
