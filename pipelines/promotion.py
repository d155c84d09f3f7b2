"""Entry points of the deployments `promote` and `rollback`."""

from cots.flows.promotion import promote, rollback

__all__ = ["promote", "rollback"]
