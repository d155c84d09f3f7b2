"""Utilisation of the machine while a run works."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

VARIABLE = "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING"  # MLflow's own, by default false


@contextmanager
def log_system_metrics(run: str) -> Iterator[None]:
    """Log processor, memory, disk, network and GPU to an open run, every ten seconds and from a thread.

    `MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING=false` switches it off, `MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL` sets the
    seconds. A server that fails costs nothing but these metrics.
    """
    if os.environ.get(VARIABLE, "true").lower() in ("false", "0"):
        yield
        return
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)  # its start and end, and a missing GPU
    monitor: Any = SystemMetricsMonitor(run, resume_logging=True)  # type: ignore[no-untyped-call]
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
