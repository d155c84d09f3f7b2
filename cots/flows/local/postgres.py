"""A PostgreSQL cluster of this folder alone: made once, on the loopback address, with a password that no one types."""

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
from cots.flows.local.settings import HOST, Settings, free_or_told

USER = "cots"  # of the database
DATABASES = ("mlflow", "prefect")
UNPRIVILEGED = ("postgres", "nobody")  # PostgreSQL refuses to run as root
LEFT_SECONDS = 30


class Postgres:
    """The cluster.

    Raises:
        BadInput: PostgreSQL is not installed, or cannot be run by this user in this folder.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._home = settings.folder / "postgres"
        self._data = self._home / "data"

    @property
    def log(self) -> Path:
        """Where the server writes to."""
        return self._home / "server.log"

    def address(self, driver: str, database: str) -> str:
        """For SQLAlchemy; the password comes from `PGPASSFILE`."""
        return f"{driver}://{USER}@{HOST}:{self._settings.ports.postgres}/{database}"

    def running(self) -> bool:
        """Whether the server lives."""
        server = self._server()
        return server is not None and _stands_in(server, self._data)

    def start(self) -> bool:
        """Make the cluster and its databases where they are missing, and start the server; whether it was down."""
        if self.running():
            return False
        psutil.wait_procs(self._left(), LEFT_SECONDS)
        free_or_told(self._settings.ports.postgres, "postgres")
        if not self._data.is_dir():
            self._make()
        self._told("pg_ctl", "start", "-w", "-D", str(self._data), "-l", str(self.log))
        self._make_databases()
        return True

    def stop(self) -> bool:
        """Stop the server after its open transactions were rolled back; whether it ran."""
        running = self.running()
        if running:
            self._told("pg_ctl", "stop", "-w", "-m", "fast", "-D", str(self._data))
        return running

    def _left(self) -> list[psutil.Process]:
        """What a killed server has left: itself until it is reaped, and children that hold its port and memory."""
        server = self._server()
        reaped_soon = [server] if server and server.status() == psutil.STATUS_ZOMBIE else []
        return reaped_soon + [process for process in psutil.process_iter() if _stands_in(process, self._data)]

    def _server(self) -> psutil.Process | None:
        """The process that bears the number which the server has written down."""
        try:
            return psutil.Process(int((self._data / "postmaster.pid").read_text(encoding="utf8").split()[0]))
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None

    def _make(self) -> None:
        """Aside, then renamed, so that a cluster that is there is complete."""
        self._home.mkdir(exist_ok=True, mode=0o700)
        self._give(self._home)
        self._enter_or_told()
        made, file, port = self._home / "data.partial", self._home / "password", self._settings.ports.postgres
        shutil.rmtree(made, ignore_errors=True)
        password = secrets.token_urlsafe(24)
        _write_secret(file, password)
        self._give(file)
        access = ("--auth", "scram-sha-256", "--username", USER, "--pwfile", str(file))
        self._told("initdb", "-D", str(made), "--encoding", "UTF8", "--locale", "C.UTF-8", *access)
        file.unlink()
        with (made / "postgresql.conf").open("a", encoding="utf8") as configuration:
            configuration.write(f"listen_addresses = '{HOST}'\nunix_socket_directories = ''\nport = {port}\n")
            configuration.write("max_connections = 200\n")  # the pools of both servers, and people's
        _write_secret(self._settings.password_file, f"{HOST}:{port}:*:{USER}:{password}\n")
        made.rename(self._data)

    def _make_databases(self) -> None:
        place = {"host": HOST, "port": self._settings.ports.postgres, "user": USER, "dbname": "postgres"}
        with closing(psycopg2.connect(**place, passfile=str(self._settings.password_file))) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("SELECT datname FROM pg_database")
            there = {name for (name,) in cursor.fetchall()}
            for name in set(DATABASES) - there:
                cursor.execute(f"CREATE DATABASE {name}")

    def _enter_or_told(self) -> None:
        done = subprocess.run(["test", "-w", str(self._home)], check=False, **_as_user())  # noqa: S603, S607
        if done.returncode:
            raise BadInput(
                f"PostgreSQL does not run as root, and user {_user()} cannot reach {self._home}: "
                "choose a folder that every user may pass through (--state), or run this as another user"
            )

    def _give(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, _user(), pwd.getpwnam(_user()).pw_gid)

    def _told(self, program: str, *arguments: str) -> None:
        done = self._call(program, *arguments)
        if done.returncode:
            raise RunFailed(f"{program} ended with exit code {done.returncode}: {done.stderr.strip() or self.log}")

    def _call(self, program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [_program(program), *arguments]
        # What pg_ctl starts would hold its error output open for ever.
        errors = subprocess.DEVNULL if program == "pg_ctl" else subprocess.PIPE
        done = subprocess.run(  # noqa: S603
            command, stdout=subprocess.DEVNULL, stderr=errors, text=True, check=False, **_as_user()
        )
        return subprocess.CompletedProcess(command, done.returncode, "", done.stderr or "")


def installed() -> bool:
    """Whether this machine has a PostgreSQL server."""
    return bool(_found("initdb"))


def _stands_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return bool(process.cwd() == str(folder))
    except psutil.Error:
        return False


def _program(name: str) -> str:
    if not (found := _found(name)):
        raise BadInput(f"{name} is not installed: install PostgreSQL's server (Debian: apt install postgresql)")
    return found


def _found(name: str) -> str | None:
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda place: int(place.parent.name), reverse=True)
    return shutil.which(name) or next((str(place / name) for place in places if (place / name).is_file()), None)


def _user() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in names)


def _as_user() -> Mapping[str, Any]:
    """Arguments of `subprocess` that give up root."""
    if os.geteuid() != 0:
        return {}
    return {"user": _user(), "group": pwd.getpwnam(_user()).pw_gid, "extra_groups": [], "cwd": "/"}


def _write_secret(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf8") as file:  # noqa: PTH123
        file.write(text)
