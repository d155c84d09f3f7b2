"""A PostgreSQL cluster for one state folder: created once, on the loopback address, with a generated password."""

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import psycopg2

from cots.errors import BadInput, RunFailed
from cots.flows.local.settings import HOST, Settings, require_free_port
from cots.private_files import open_private

USER = "cots"  # database user
DATABASES = ("mlflow", "prefect")
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root
LEFTOVER_SECONDS = 30


class Postgres:
    """Creates, starts and stops the cluster.

    Raises:
        BadInput: PostgreSQL is not installed, or this user cannot run it in this folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.folder / "postgres"
        self._data = self._home / "data"

    @property
    def log(self) -> Path:
        """Path of the server's log."""
        return self._home / "server.log"

    def address(self, driver: str, database: str) -> str:
        """SQLAlchemy URL without the password, which comes from `PGPASSFILE`."""
        return f"{driver}://{USER}@{HOST}:{self._settings.ports.postgres}/{database}"

    def is_running(self) -> bool:
        """Whether the server process exists."""
        server = self._server()
        return server is not None and _runs_in(server, self._data)

    def start(self) -> bool:
        """Create cluster and databases if they are missing and start the server; return whether it was down."""
        if self.is_running():
            return False
        psutil.wait_procs(self._leftover_processes(), LEFTOVER_SECONDS)
        require_free_port(self._settings.ports.postgres, "postgres")
        if not self._data.is_dir():
            self._create_cluster()
        self._run("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self.log))
        self._create_databases()
        return True

    def stop(self) -> bool:
        """Roll back open transactions and stop the server; return whether it was running."""
        running = self.is_running()
        if running:
            self._run("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._data))
        return running

    def _leftover_processes(self) -> list[psutil.Process]:
        """Processes of a killed server: itself until it is reaped, and children that still hold port and memory."""
        server = self._server()
        zombies = [server] if server and server.status() == psutil.STATUS_ZOMBIE else []
        return zombies + [process for process in psutil.process_iter() if _runs_in(process, self._data)]

    def _server(self) -> psutil.Process | None:
        """The process with the pid in the server's pid file, or None."""
        try:
            return psutil.Process(int((self._data / "postmaster.pid").read_text(encoding="utf8").split()[0]))
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def _create_cluster(self) -> None:
        """Create the cluster in a temporary folder and rename it, so that an existing cluster is always complete."""
        self._home.mkdir(exist_ok=True, mode=0o700)
        self._chown(self._home)
        self._require_access()
        partial, file, port = self._home / "data.partial", self._home / "password", self._settings.ports.postgres
        shutil.rmtree(partial, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        _write_secret(file, password)
        self._chown(file)
        access = ("--auth", "scram-sha-256", "--username", USER, "--pwfile", str(file))
        self._run("initdb", "-D", str(partial), "--encoding", "UTF8", "--locale", "C.UTF-8", *access)
        file.unlink()
        with (partial / "postgresql.conf").open("a", encoding="utf8") as configuration:
            configuration.write(f"listen_addresses = '{HOST}'\nunix_socket_directories = ''\nport = {port}\n")
            configuration.write("max_connections = 200\n")  # connection pools of both servers, and interactive clients
        _write_secret(self._settings.password_file, f"{HOST}:{port}:*:{USER}:{password}\n")
        partial.rename(self._data)

    def _create_databases(self) -> None:
        connect_args = {"host": HOST, "port": self._settings.ports.postgres, "user": USER, "dbname": "postgres"}
        with closing(psycopg2.connect(**connect_args, passfile=str(self._settings.password_file))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT datname FROM pg_database")
            existing = {name for (name,) in cursor.fetchall()}
            for name in set(DATABASES) - existing:
                cursor.execute(f"CREATE DATABASE {name}")

    def _require_access(self) -> None:
        done = subprocess.run(["test", "-w", str(self._home)], check=False, **_as_user())  # noqa: S603, S607
        if done.returncode:
            raise BadInput(
                f"PostgreSQL does not run as root, and user {_user()} cannot reach {self._home}: "
                "choose a folder that every user can access (--state), or run this as another user"
            )

    def _chown(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, _user(), pwd.getpwnam(_user()).pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        if done.returncode:
            raise RunFailed(f"{program} ended with exit code {done.returncode}: {done.stderr.strip() or self.log}")

    def _call(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [_require_program(program), *arguments]
        # The server that pg_ctl starts would inherit a pipe and keep it open for ever.
        errors = subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE
        done = subprocess.run(  # noqa: S603
            command, stdout=subprocess.DEVNULL, stderr=errors, text=True, check=False, **_as_user()
        )
        return subprocess.CompletedProcess(command, done.returncode, "", done.stderr or "")


def is_installed() -> bool:
    """Whether a PostgreSQL server is installed on this machine."""
    return bool(_find_program("initdb"))


def _runs_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.cwd() == str(folder))
    except psutil.Error:
        return False


def _require_program(name: str) -> str:
    if not (path := _find_program(name)):
        raise BadInput(f"{name} is not installed: install PostgreSQL's server (Debian: apt install postgresql)")
    return path


def _find_program(name: str) -> str | None:
    folders = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: int(folder.parent.name), reverse=True
    )
    return shutil.which(name) or next((str(folder / name) for folder in folders if (folder / name).is_file()), None)


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in names)


def _as_user() -> Mapping[str, Any]:
    """Arguments of `subprocess.run` that drop root privileges; empty for other users."""
    if os.geteuid() != 0:
        return {}
    return {"user": _user(), "group": pwd.getpwnam(_user()).pw_gid, "extra_groups": [], "cwd": "/"}


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open_private(path, "x") as file:
        file.write(text)
