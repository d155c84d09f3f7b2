"""`make up`, `make down`, `make status` where no containers run: the servers as plain processes on this machine."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from cots.errors import BadInput, exit_on_error
from cots.flows.local.postgres import Postgres
from cots.flows.local.processes import Processes, Service
from cots.flows.local.servers import deploy, end_lost_runs, mlflow_server, prefect_server, worker
from cots.flows.local.settings import FILE, Ports, Settings

app = typer.Typer(no_args_is_help=True, add_completion=False)
State = Annotated[Path, typer.Option("--state", help="The folder that holds databases, artefacts, logs and passwords.")]
Port = Annotated[int, typer.Option(help="On 127.0.0.1; kept from the first start on.")]


@app.command()
def up(
    state: State = Path(".platform"), mlflow_port: Port = 5000, prefect_port: Port = 4200, postgres_port: Port = 5433
) -> None:
    """Start what is down: PostgreSQL, MLflow, Prefect, the deployments of this folder, a worker."""
    settings = Settings.kept(state, Ports(mlflow_port, prefect_port, postgres_port))
    postgres, processes = Postgres(settings), Processes(settings.folder)
    _tell("PostgreSQL", postgres.start())
    servers = [mlflow_server(settings, postgres), prefect_server(settings, postgres)]
    for server in servers:
        _tell(server.name, processes.start(server, cwd=settings.folder))
    for server in servers:
        processes.wait(server)
    deploy(settings, Path.cwd())
    _start_worker(processes, worker(settings), settings)
    typer.echo(f"\nexport MLFLOW_TRACKING_URI={settings.tracking_uri}\nexport PREFECT_API_URL={settings.api_url}")


@app.command()
def down(
    state: State = Path(".platform"),
    purge: Annotated[bool, typer.Option(help="Also delete databases, artefacts and logs.")] = False,
) -> None:
    """Stop what `up` started, the worker first; the data stay."""
    settings = _known(state)
    postgres, processes = Postgres(settings), Processes(settings.folder)
    for service in _services(settings, postgres):
        typer.echo(f"{service.name}: {'stopped' if processes.stop(service) else 'was not running'}")
    typer.echo(f"PostgreSQL: {'stopped' if postgres.stop() else 'was not running'}")
    if purge:
        shutil.rmtree(settings.folder)
        typer.echo(f"{settings.folder}: deleted")


@app.command()
def status(state: State = Path(".platform")) -> None:
    """What runs and does its work; exit code 1 where something does not."""
    settings = _known(state)
    postgres, processes = Postgres(settings), Processes(settings.folder)
    well = {"PostgreSQL": postgres.running()}
    for service in reversed(_services(settings, postgres)):
        well[service.name] = bool(processes.running(service.name)) and service.healthy()
    for name, fine in well.items():
        typer.echo(f"{name}: {'up' if fine else 'down'}")
    raise typer.Exit(0 if all(well.values()) else 1)


def _known(state: Path) -> Settings:
    if not (state / FILE).is_file():
        raise BadInput(f"{state} holds no servers: `make up` starts them")
    return Settings.kept(state)


def _services(settings: Settings, postgres: Postgres) -> list[Service]:
    """In the order in which they are stopped: no one loses what it still needs."""
    return [worker(settings), prefect_server(settings, postgres), mlflow_server(settings, postgres)]


def _start_worker(processes: Processes, service: Service, settings: Settings) -> None:
    if not processes.running(service.name):
        for name in end_lost_runs(settings):
            typer.echo(f"run {name}: its process was gone, it counts as crashed")
    _tell(service.name, processes.start(service, cwd=Path.cwd()))
    processes.wait(service)


def _tell(name: str, started: bool) -> None:
    typer.echo(f"{name}: {'started' if started else 'runs already'}")


if __name__ == "__main__":
    with exit_on_error():
        app()
