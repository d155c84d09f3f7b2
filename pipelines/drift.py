"""Entry point of the deployment `daily`."""

from cots.flows.drift import check_drift

__all__ = ["check_drift"]
