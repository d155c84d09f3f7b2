"""How a fork of `tests.fork_server` becomes the requested process, from open files to exit code."""

import atexit
import fcntl
import os
import runpy
import signal
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

INTERRUPTED = -signal.SIGINT
IGNORED = ("-u", "-B")  # options that say only when output is written, and whether bytecode is


@dataclass(frozen=True)
class Request:
    """The start of a process, as its stand-in received it.

    Attributes:
        received: the open files that it passes on, in this process.
        arguments: after the interpreter's name.
        environment: all of it.
        folder: its working folder.
        files: numbers of the open files in the stand-in.
        ignored: signals that it ignores.
    """

    received: list[int]
    arguments: list[str]
    environment: dict[bytes, bytes]
    folder: str
    files: list[int]
    ignored: list[int]


def become(request: Request, python: Path) -> None:
    """Make this process the requested one."""
    for number in request.ignored:
        signal.signal(number, signal.SIG_IGN)
    duplicates = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 500) for number in request.received]
    for number in request.received:
        os.close(number)
    for number, target in zip(duplicates, request.files, strict=True):
        os.dup2(number, target)
        os.close(number)
    os.chdir(request.folder)
    os.environ.clear()
    os.environb.update(request.environment)
    os.environ["PATH"] = os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath)])
    sys.executable = str(python)
    _forget_the_start()


def _forget_the_start() -> None:
    """Repeat what libraries derive from the environment when they are imported."""
    import numpy as np
    import torch
    from prefect.context import refresh_global_settings_context

    np.random.seed()  # every fork would draw the same
    if threads := os.environ.get("OMP_NUM_THREADS"):
        torch.set_num_threads(int(threads))
    if {"PREFECT_HOME", "PREFECT_API_URL"} & os.environ.keys():
        refresh_global_settings_context()


def use_real_interpreter() -> None:
    """In a fork, start programs as a process of the real interpreter does: a worker of pytest calls it."""
    if "tests.fork_server" in sys.orig_argv:
        sys.executable = sys.orig_argv[0]
        os.environ["PATH"] = os.environ["PATH"].partition(os.pathsep)[2]


def run(arguments: list[str], paths: list[str]) -> None:
    """Run `-c CODE` or `-m MODULE` as the interpreter does.

    Args:
        arguments: of the interpreter.
        paths: where installed modules lie.
    """
    options = list(takewhile(IGNORED.__contains__, arguments))
    if "-u" in options or "PYTHONUNBUFFERED" in os.environ:
        sys.stdout.reconfigure(write_through=True)  # type: ignore[union-attr]
    kind, what, *rest = arguments[len(options) :]
    added = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:] = [str(Path.cwd()) if kind == "-m" else "", *added, *paths]
    sys.argv = ["-m" if kind == "-m" else "-c", *rest]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    if kind == "-c":
        exec(compile(what, "<string>", "exec"), main.__dict__)
    else:
        if not hasattr(sys.modules.get(what), "__path__"):  # runpy warns where a module is imported already
            sys.modules.pop(what, None)
        runpy._run_module_as_main(what)  # type: ignore[attr-defined]


def ended(program: Callable[[], None]) -> NoReturn:
    """Run a program and end this process as the interpreter would, but for taking all its modules apart."""
    code = _exit_code(program)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError, ValueError):
            stream.flush()
    if code == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 255)


def _exit_code(program: Callable[[], None]) -> int:
    try:
        program()
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        return INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1
    return 0
