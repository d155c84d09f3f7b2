"""Entry point of the deployment `hourly`."""

from cots.flows.refresh_index import refresh_index

__all__ = ["refresh_index"]
