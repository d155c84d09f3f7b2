"""`make up`, `make down` and `make status` without containers: the servers run as plain processes on this machine."""

import shlex
import shutil
from pathlib import Path
from typing import Annotated

import typer

from cots.errors import BadInput, exit_on_error
from cots.flows.local.deployments import deploy
from cots.flows.local.postgres import Postgres
from cots.flows.local.processes import ManagedProcess, Processes
from cots.flows.local.servers import end_lost_runs, mlflow_server, prefect_server, worker
from cots.flows.local.settings import FILE, Ports, Settings

app = typer.Typer(no_args_is_help=True, add_completion=False)
State = Annotated[Path, typer.Option("--state", help="Folder of databases, artefacts, logs and passwords.")]
Port = Annotated[int, typer.Option(help="Port on 127.0.0.1; later starts reuse the port of the first start.")]


@app.command()
def up(
    state: State = Path(".platform"), mlflow_port: Port = 5000, prefect_port: Port = 4200, postgres_port: Port = 5433
) -> None:
    """Start PostgreSQL, MLflow, Prefect, the deployments of this folder and a worker, unless they are up."""
    settings = Settings.load_or_create(state, Ports(mlflow_port, prefect_port, postgres_port))
    postgres, processes = Postgres(settings), Processes(settings.folder)
    _print_started("PostgreSQL", postgres.start())
    servers = [mlflow_server(settings, postgres), prefect_server(settings, postgres)]
    for server in servers:
        _print_started(server.name, processes.start(server, cwd=settings.folder))
    for server in servers:
        processes.wait(server)
    deploy(settings.environment(), Path.cwd())
    _start_worker(processes, worker(settings), settings)
    typer.echo(f"\nin a browser: {settings.runs_page} (MLflow), {settings.prefect_page} (Prefect)")
    typer.echo(f"\nexport MLFLOW_TRACKING_URI={settings.tracking_uri}\nexport PREFECT_API_URL={settings.api_url}")
    typer.echo(f'export PREFECT_API_AUTH_STRING="$(cat {shlex.quote(str(settings.login_file))})"')


@app.command()
def down(
    state: State = Path(".platform"),
    purge: Annotated[bool, typer.Option(help="Also delete databases, artefacts and logs.")] = False,
) -> None:
    """Stop everything that `up` started, the worker first; data are kept."""
    settings = _load_settings(state)
    postgres, processes = Postgres(settings), Processes(settings.folder)
    for service in _services(settings, postgres):
        typer.echo(f"{service.name}: {'stopped' if processes.stop(service) else 'was not running'}")
    typer.echo(f"PostgreSQL: {'stopped' if postgres.stop() else 'was not running'}")
    if purge:
        shutil.rmtree(settings.folder)
        typer.echo(f"{settings.folder}: deleted")


@app.command()
def status(state: State = Path(".platform")) -> None:
    """Show which services are healthy; exit code 1 unless all are."""
    settings = _load_settings(state)
    postgres, processes = Postgres(settings), Processes(settings.folder)
    healthy = {"PostgreSQL": postgres.is_running()}
    for service in reversed(_services(settings, postgres)):
        healthy[service.name] = bool(processes.find_running(service.name)) and service.is_healthy()
    for name, up in healthy.items():
        typer.echo(f"{name}: {'up' if up else 'down'}")
    raise typer.Exit(0 if all(healthy.values()) else 1)


def _load_settings(state: Path) -> Settings:
    if not (state / FILE).is_file():
        raise BadInput(f"{state} contains no servers: start them with `make up`")
    return Settings.load_or_create(state)


def _services(settings: Settings, postgres: Postgres) -> list[ManagedProcess]:
    """Services in stopping order: each is stopped before the services that it needs."""
    return [worker(settings), prefect_server(settings, postgres), mlflow_server(settings, postgres)]


def _start_worker(processes: Processes, service: ManagedProcess, settings: Settings) -> None:
    if not processes.find_running(service.name):
        for name in end_lost_runs(settings):
            typer.echo(f"run {name}: its process is gone, marked as crashed")
    _print_started(service.name, processes.start(service, cwd=Path.cwd()))
    processes.wait(service)


def _print_started(name: str, started: bool) -> None:
    typer.echo(f"{name}: {'started' if started else 'already running'}")


if __name__ == "__main__":
    with exit_on_error():
        app()
