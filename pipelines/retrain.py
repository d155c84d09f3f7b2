"""Entry point of the deployment `nightly`."""

from cots.flows.retrain import retrain

__all__ = ["retrain"]
