"""The command of every container that is ours, run with --help outside of a container."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.infra.test_files import INFRA, ROOT, SERVICES

VERBS = {"mlflow": 2, "prefect": 3, "cots": 2}  # words that name the command


def commands() -> Iterator[list[str]]:
    """Of the images, the compose file and the manifests."""
    for path in (INFRA / "docker").glob("Dockerfile.*"):
        yield from (
            yaml.safe_load(command) for command in re.findall(r"^CMD (\[.*\])$", path.read_text(), re.MULTILINE)
        )
    yield from (service["command"] for service in SERVICES.values() if "command" in service)
    for path in (INFRA / "kubernetes/base").glob("*.yaml"):
        for manifest in yaml.safe_load_all(path.read_text()):
            if manifest["kind"] == "Deployment":
                yield from (pod["command"] + pod["args"] for pod in manifest["spec"]["template"]["spec"]["containers"])


def ours() -> dict[str, set[str]]:
    """The options that are used of each command."""
    options_of: dict[str, set[str]] = {}
    for command in commands():
        if command[0] in VERBS:
            count = VERBS[command[0]]
            options = {argument.split("=")[0] for argument in command[count:] if str(argument).startswith("--")}
            options_of.setdefault(" ".join(command[:count]), set()).update(options)
    return options_of


def test_the_commands_are_those_that_are_known() -> None:
    assert set(ours()) == {"mlflow server", "prefect server start", "prefect worker start", "cots serve"}


@pytest.mark.slow
@pytest.mark.parametrize("command", sorted(ours()))
def test_a_command_knows_every_option_that_it_is_given(command: str, fork_python: str) -> None:
    program, *verbs = command.split()
    if program == "cots" and not (ROOT / "cots/cli/serve.py").is_file():
        pytest.skip("the search service is not part of this version")
    shown = subprocess.run([fork_python, "-m", program, *verbs, "--help"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert {option for option in ours()[command] if option not in shown.stdout} == set()


def test_scripts_that_containers_run_are_mounted_into_them() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert not source.startswith("./") or (INFRA / Path(source)).exists(), source
