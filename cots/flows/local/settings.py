"""State folder, ports and log-in of the servers on this machine."""

import json
import os
import secrets
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from cots.errors import BadInput
from cots.private_files import open_private

HOST = "127.0.0.1"
FILE, LOGIN = "settings.json", "prefect-login"


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports on the loopback address."""

    mlflow: int
    prefect: int
    postgres: int


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one set of local servers.

    Attributes:
        folder: absolute; contains databases, artefacts, logs and passwords.
        ports: of the servers.
    """

    folder: Path
    ports: Ports

    @classmethod
    def load_or_create(cls, folder: Path, chosen: Ports | None = None) -> "Settings":
        """Load the settings of the folder's first start, so that later starts find the same servers, or store `chosen`.

        Raises:
            BadInput: the folder is not writable.
        """
        file = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if chosen and not file.is_file():
                file.write_text(json.dumps(asdict(chosen), indent=2) + "\n", encoding="utf8")
            if not (folder / LOGIN).is_file():
                with open_private(folder / LOGIN, "x") as login:
                    login.write(f"cots:{secrets.token_urlsafe(24)}")
        except OSError as error:
            raise BadInput(
                f"cannot write the servers' state to {folder} ({error.strerror}): choose another folder"
            ) from None
        return cls(folder.resolve(), Ports(**json.loads(file.read_text(encoding="utf8"))))

    @property
    def tracking_uri(self) -> str:
        """URI of the MLflow server."""
        return f"http://{HOST}:{self.ports.mlflow}"

    @property
    def runs_page(self) -> str:
        """MLflow's page of training runs; without the parameter it opens on traces of language models."""
        return f"{self.tracking_uri}/#/experiments?workflowType=machine_learning"

    @property
    def prefect_page(self) -> str:
        """Page of the Prefect server."""
        return f"http://{HOST}:{self.ports.prefect}"

    @property
    def api_url(self) -> str:
        """URL of the Prefect server's API."""
        return f"{self.prefect_page}/api"

    @property
    def password_file(self) -> Path:
        """Read by PostgreSQL's clients, so that the password appears in no URI, command line or log."""
        return self.folder / "pgpass"

    @property
    def login_file(self) -> Path:
        """Holds user and password of the Prefect server, `user:password`."""
        return self.folder / LOGIN

    def environment(self) -> dict[str, str]:
        """Environment of the servers, the worker and their clients."""
        return os.environ | {
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "PGPASSFILE": str(self.password_file),
            "PREFECT_API_AUTH_STRING": self.login_file.read_text(encoding="utf8"),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }


def require_free_port(port: int, name: str) -> None:
    """Raise `BadInput` if another program listens at the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(
                f"port {port} for {name} cannot be used ({error.strerror}): stop the program that uses it, "
                f"or choose another with --{name}-port"
            ) from None
