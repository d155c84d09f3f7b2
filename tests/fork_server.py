"""Python processes that start in a moment: a server that has imported everything forks one for each request.

A test that starts programs asks for the fixture `fork_python`, the path of a stand-in for `python`, and uses it where
it would use `sys.executable`:

    subprocess.run([fork_python, "-m", "cots", "registry", "list"], cwd=..., env=..., capture_output=True)

Product code that a test calls in its own process starts programs by `sys.executable`; there
`monkeypatch.setattr(sys, "executable", fork_python)` does it. A forked process has the stand-in as `sys.executable` and
first in its PATH (`python`, `dvc`, `cots`), so all that it starts in turn, also through a shell, is forked too.

What a process gets is its own: arguments, environment, working folder, open files, `sys.path`, process group; its exit
code, what kills it and the end of the stand-in are passed on. What differs from a real start, so that a test of it
takes `sys.executable`:

- the process number: `Popen.pid` is the stand-in's, `os.getpid()` the fork's; each is gone when the other is, and a
  signal to the stand-in reaches the fork's whole group;
- the parent: a fork is the server's child, not its starter's (a walk over `psutil` children does not find it);
- what is imported, how long that takes, how much memory it holds; the hash seed; allocator tunables (GLIBC_TUNABLES);
- at its end, what modules do that were imported before the fork: torch tells nothing and takes nothing apart;
- `cots` and `pipelines` are this checkout's, whatever lies in the working folder.

The server leaves to the real interpreter what it does not know: other options than -c, -m, -u and -B, scripts, PYTHON*
variables other than PYTHONPATH and PYTHONUNBUFFERED. It starts with the first request, serves all workers of a test
session, which it has forked themselves, and ends with it.
"""

import atexit
import ctypes
import fcntl
import gc
import importlib
import inspect
import marshal
import os
import selectors
import signal
import socket
import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from tests.fork_client import REAL
from tests.forked import IGNORED, Request, become, ended, run

ROOT = Path(__file__).parents[1]
PRELOADED = (
    *("torch", "torchvision", "timm", "transformers", "mlflow.pyfunc", "great_expectations", "prefect.main"),
    *("torch.distributed.run", "matplotlib.pyplot", "dvc.repo", "dvc.cli.parser", "dulwich.repo", "uvicorn"),
    *("mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "alembic.command"),
    *("cots.flows.retrain", "cots.flows.refresh_index", "cots.flows.drift", "cots.flows.promotion", "cots.cli"),
    # what these import when they are used
    *("torch.distributed.fsdp", "torch.distributed.checkpoint", "transformers.models.bert.modeling_bert"),
    *("dvc.cachemgr", "dvc.data_cloud", "dvc.rwlock", "dvc.ui.table", "scmrepo.git", "dulwich.worktree", "networkx"),
    *("dvc.repo.artifacts", "dvc.repo.datasets", "dvc.repo.graph", "dvc.repo.index", "dvc.repo.init", "dvc.repo.stage"),
    *("dvc.repo.params", "dvc.repo.plots", "dvc.repo.metrics", "pyarrow.dataset", "anyio._backends._asyncio"),
    *("mlflow.store.tracking.sqlalchemy_workspace_store", "mlflow.store.model_registry.sqlalchemy_workspace_store"),
    *("mlflow.system_metrics.system_metrics_monitor", "mlflow.tracing.processor.otel", "cots.registry.publishing"),
    *("prefect.server.api.server", "prefect.cli.server", "prefect.cli.deploy", "prefect.cli.worker", "prefect.engine"),
    *(f"cots.stages.{stage.stem}" for stage in sorted((ROOT / "cots" / "stages").glob("[a-z]*.py"))),
)
COLLAPSE = 25  # MADV_COLLAPSE of Linux 6.1
COMMANDS = {"dvc": "dvc", "cots": "cots"}  # installed commands, by the module that they run


def start(folder: Path, owner: int, preloaded: Sequence[str] = PRELOADED) -> str:
    """Start a server unless it runs; the path of the stand-in for `python`.

    Args:
        folder: of the session, for all its workers.
        owner: the process with which the server ends.
        preloaded: modules, which a fork need not import.
    """
    python = folder / "python"
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not python.exists():
            _start(folder, owner, preloaded)
            _write_commands(folder)
    return str(python)


def _start(folder: Path, owner: int, preloaded: Sequence[str]) -> None:
    with socket.socket(socket.AF_UNIX) as listener, (folder / "log").open("wb") as log:
        listener.bind(str(folder / "socket"))
        listener.listen(128)  # who asks before all is imported waits
        os.posix_spawn(  # not Popen, which wants to see the end
            sys.executable,
            [sys.executable, "-m", "tests.fork_server", str(folder), str(owner), *preloaded],
            os.environ | {"PREFECT_HOME": str(folder / "prefect"), "PYTHONPATH": _with_root()},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, number, target)
                for target, number in enumerate((listener.fileno(), log.fileno(), log.fileno()))
            ],
            setsid=True,
        )


def _with_root() -> str:
    return os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])


def _write_commands(folder: Path) -> None:
    source = (ROOT / "tests" / "fork_client.py").read_text(encoding="utf8")
    for name, module in COMMANDS.items():
        (folder / name).write_text(f'#!/bin/sh\nexec "{folder}/python" -m {module} "$@"\n', encoding="utf8")
        (folder / name).chmod(0o755)
    (folder / "new").write_text(f"#!{sys.executable} -IS\n{source}", encoding="utf8")
    (folder / "new").chmod(0o755)
    (folder / "new").rename(folder / "python")


class Server:
    """Forks a process per connection, passes signals on to it and tells its end."""

    def __init__(self, listener: socket.socket, owner: int) -> None:
        self._selector = selectors.DefaultSelector()
        self._owner = os.pidfd_open(owner)
        self._listener = listener
        self._children: set[int] = set()
        self._forks = 0
        self._own_files: set[int] = {self._owner, listener.fileno(), self._selector.fileno()}
        self._selector.register(self._owner, selectors.EVENT_READ, self._stop)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> Request:
        """Serve for ever; returns in each forked process, with what it is to do."""
        while True:
            for key, _ in self._selector.select():
                if isinstance(request := key.data(), Request):
                    return request

    def _stop(self) -> NoReturn:
        """The session is over: end with all that it left running, and tell in the log what that cost."""
        for child in self._children:
            _signal(child, signal.SIGKILL)
        own, forks = (sum(os.times()[which : which + 2]) for which in (0, 2))
        print(f"CPU seconds: {own:.0f}, {forks:.0f} in {self._forks} forks")
        sys.stdout.flush()
        os._exit(0)

    def _accept(self) -> Request | None:
        connection, _ = self._listener.accept()
        request = received(connection)
        if not _can(request):
            _answer(connection, REAL)
        elif child := os.fork():
            self._watch(child, connection)
        else:
            connection.detach()
            for number in self._own_files | {connection.fileno()} - {-1}:
                with suppress(OSError):
                    os.close(number)
            return request
        for number in request.received:
            os.close(number)
        return None

    def _watch(self, child: int, connection: socket.socket) -> None:
        with suppress(PermissionError):  # it has begun another program, after it did this itself
            os.setpgid(child, child)  # here too, so that no signal comes before it
        process = os.pidfd_open(child)
        self._children.add(child)
        self._forks += 1
        self._own_files |= {process, connection.fileno()}
        self._selector.register(connection, selectors.EVENT_READ, partial(self._signalled, child, connection))
        self._selector.register(process, selectors.EVENT_READ, partial(self._ended, child, process, connection))

    def _signalled(self, child: int, connection: socket.socket) -> None:
        """Pass signals on; a stand-in that was killed takes its work with it."""
        try:
            numbers = connection.recv(16)
        except ConnectionResetError:
            numbers = b""
        for number in numbers or [signal.SIGKILL]:
            _signal(child, number)
        if not numbers:
            self._selector.unregister(connection)

    def _ended(self, child: int, process: int, connection: socket.socket) -> None:
        self._selector.unregister(process)
        with suppress(KeyError):
            self._selector.unregister(connection)
        self._children.remove(child)
        self._own_files -= {process, connection.fileno()}
        os.close(process)
        _answer(connection, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _signal(child: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child, number)


def _answer(connection: socket.socket, status: int) -> None:
    with connection, suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(status.to_bytes(8, "big", signed=True))


def received(connection: socket.socket) -> Request:
    """Read one request."""
    head, rights, *_ = socket.recv_fds(connection, 8, 250)
    size, body = int.from_bytes(head, "big"), b""
    while len(body) < size:
        body += connection.recv(size - len(body))
    return Request(rights, *marshal.loads(body))


def _can(request: Request) -> bool:
    """Whether a fork does what the real interpreter would."""
    arguments = [argument for argument in request.arguments if argument not in IGNORED]
    changed = request.environment.items() ^ os.environb.items()
    own = {name for name, _ in changed if name.startswith(b"PYTHON")} - {b"PYTHONPATH", b"PYTHONUNBUFFERED"}
    return len(arguments) > 1 and arguments[0] in ("-c", "-m") and not own


def _end_soon() -> None:
    """Leave out of each fork's end what torch does there in 0.1 s of a core: tell its times, take operators apart."""
    from torch._dynamo.utils import dump_compile_times

    atexit.unregister(dump_compile_times)
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False


def _prepare_mlflow() -> None:
    """Look once for MLflow's newest migration, and for plugins.

    It reads 66 files of migrations with each new store, in 35 ms, and the metadata of all packages in each process that
    uses its registry, in 30 ms.
    """
    if database := sys.modules.get("mlflow.store.db.utils"):
        revision = database._get_latest_schema_revision()
        database._get_latest_schema_revision = lambda: revision  # type: ignore[attr-defined]
    if registry := sys.modules.get("mlflow.tracking._model_registry.utils"):
        registry._get_store_registry()


def _note_files() -> None:
    """Note which module comes from which file, for `inspect.stack`.

    For a file of no module it goes through all modules, each time anew; torchrun calls it so often that this took 3 s.
    """
    inspect.stack()
    inspect.modulesbyfile |= {"<frozen runpy>": "runpy", __file__: "tests.fork_server"}


def _use_huge_pages() -> None:
    """Put what was imported into huge pages, if the kernel can: a fork then takes 0.04 s of a core instead of 0.1."""
    madvise = ctypes.CDLL(None).madvise
    for line in Path("/proc/self/maps").read_text(encoding="utf8").splitlines():
        addresses, access, _, _, inode, *name = line.split()
        if (access, inode) == ("rw-p", "0") and name in ([], ["[heap]"]):
            start, end = (int(address, 16) for address in addresses.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), COLLAPSE)


def main(folder: str, owner: str, *preloaded: str) -> None:
    """Import these modules, then serve the socket that is standard input."""
    listener = socket.socket(fileno=os.dup(0))
    paths = [path for path in sys.path[1:] if path not in os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    for name in preloaded:
        importlib.import_module(name)
    _note_files()
    _prepare_mlflow()
    _end_soon()
    gc.collect()
    gc.freeze()
    _use_huge_pages()
    server = Server(listener, int(owner))  # kept: its end in a fork would close files anew
    request = server.serve()
    os.setpgid(0, 0)

    def program() -> None:
        become(request, Path(folder) / "python")
        run(request.arguments, paths)

    ended(program)


if __name__ == "__main__":
    main(*sys.argv[1:])
