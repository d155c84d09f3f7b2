"""Retraining: when and where it happens and what follows. What is stale, DVC knows; what is deployed, the registry."""

from prefect import flow, task

from pipelines.commands import has_remote, run


@task(retries=3, retry_delay_seconds=[2, 10, 30])  # the network is worth trying again
def pull() -> None:
    """Fetch what other machines have made; the first run finds nothing."""
    run("dvc", "pull", "--allow-missing")


@task  # a stage that failed would fail again
def repro(stage: str) -> None:
    """Bring a stage and everything it needs up to date."""
    run("dvc", "repro", stage)


@task
def publish() -> None:
    """Register the package; the gate decides whether it is deployed."""
    run("cots.cli", "registry", "publish")


@task(retries=3, retry_delay_seconds=[2, 10, 30])
def push() -> None:
    """Keep what was made where other machines find it."""
    run("dvc", "push")


@flow
def retrain() -> None:
    """Train on the current data; deploy the result if it is not worse than what is deployed."""
    shared = has_remote()
    if shared:
        pull()
    repro("package")
    publish()
    if shared:
        push()


if __name__ == "__main__":
    retrain()
