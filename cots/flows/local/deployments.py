"""The work pool, its queue and the deployments of prefect.yaml.

`python -m cots.flows.local.deployments` makes those of the working folder, at the server that `PREFECT_API_URL` names.
"""

import base64
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cots.errors import RunFailed, exit_on_error

POOL = "cots"
QUEUE = {"name": "folder", "concurrency_limit": 1}  # flows that write to the project folder run one at a time
ANSWER_SECONDS = 10


def deploy(environment: Mapping[str, str], project: Path) -> None:
    """Create the work pool and its queue if they are missing, and apply the deployments of prefect.yaml.

    Args:
        environment: with `PREFECT_API_URL` and `PREFECT_API_AUTH_STRING`.
        project: the folder of prefect.yaml, in which the runs will work.

    Raises:
        RunFailed: Prefect refuses; the message says why.
    """
    _create(environment, "/work_pools/", {"name": POOL, "type": "process"})
    _create(environment, f"/work_pools/{POOL}/queues", QUEUE)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise RunFailed(f"`prefect deploy --all` failed: {(done.stdout + done.stderr).strip()}")


def ask_prefect(environment: Mapping[str, str], path: str, body: object) -> Any:  # noqa: ANN401  any JSON value
    """The answer of the Prefect server to a POST request.

    Args:
        environment: as in `deploy`.
        path: below the API's address.
        body: JSON-serializable.
    """
    login = base64.b64encode(environment["PREFECT_API_AUTH_STRING"].encode()).decode()
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}"}
    request = urllib.request.Request(f"{environment['PREFECT_API_URL']}{path}", json.dumps(body).encode(), headers)  # noqa: S310  our own server's
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as response:  # noqa: S310
        return json.load(response)


def _create(environment: Mapping[str, str], path: str, body: object) -> None:
    try:
        ask_prefect(environment, path, body)
    except urllib.error.HTTPError as error:
        if error.code != 409:  # it exists already
            raise RunFailed(f"Prefect refuses {body}: {error.read().decode()[:300]}") from None


if __name__ == "__main__":
    with exit_on_error():
        deploy(os.environ, Path.cwd())
