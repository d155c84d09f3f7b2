"""Where the servers of this machine keep their state, and at which ports they answer."""

import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from cots.errors import BadInput

HOST = "127.0.0.1"
FILE = "settings.json"


@dataclass(frozen=True, slots=True)
class Ports:
    """On the loopback address."""

    mlflow: int
    prefect: int
    postgres: int


@dataclass(frozen=True, slots=True)
class Settings:
    """One platform on this machine.

    Attributes:
        folder: absolute; databases, artefacts, logs and the password, all in it.
        ports: of the servers.
    """

    folder: Path
    ports: Ports

    @classmethod
    def kept(cls, folder: Path, chosen: Ports | None = None) -> "Settings":
        """Those of the folder's first start, for a later one must find the same servers; else the chosen ones.

        Raises:
            BadInput: the folder cannot be written to.
        """
        file = folder / FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if chosen and not file.is_file():
                file.write_text(json.dumps(asdict(chosen), indent=2) + "\n", encoding="utf8")
        except OSError as error:
            raise BadInput(f"{folder} cannot hold the servers' state ({error.strerror}): choose another") from None
        return cls(folder.resolve(), Ports(**json.loads(file.read_text(encoding="utf8"))))

    @property
    def tracking_uri(self) -> str:
        """Of the MLflow server."""
        return f"http://{HOST}:{self.ports.mlflow}"

    @property
    def api_url(self) -> str:
        """Of the Prefect server."""
        return f"http://{HOST}:{self.ports.prefect}/api"

    @property
    def password_file(self) -> Path:
        """PostgreSQL's clients read it; so the password is in no address, command line or log."""
        return self.folder / "pgpass"

    def environment(self) -> dict[str, str]:
        """For the servers, the worker and whatever uses them."""
        return os.environ | {
            "DO_NOT_TRACK": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "PGPASSFILE": str(self.password_file),
            "PREFECT_API_URL": self.api_url,
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        }


def free_or_told(port: int, name: str) -> None:
    """Raise `BadInput` where another program listens at the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise BadInput(
                f"port {port} for {name} cannot be used ({error.strerror}): stop what listens there, "
                f"or choose another with --{name}-port"
            ) from None
