"""Keeps the served version up to date: follows the alias, loads a new version beside the old one, then switches."""

import logging
import threading
import time

from cots.errors import CotsError
from cots.service.loaded_version import LoadedVersion, VersionView, is_alias, resolve
from cots.service.metrics import ServiceMetrics
from cots.tracking.store import without_credentials

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # before loading a failed version is tried again
JOIN_SECONDS = 5.0  # how long stopping waits for a load in progress


class VersionManager:
    """Holds the version that answers; a background thread keeps it in step with the URI.

    A request reads `current` once and builds its whole answer from that version.

    Args:
        uri: see `resolve`.
        poll: seconds between checks of the alias.
        metrics: counts switches and failed loads.
    """

    def __init__(self, uri: str, *, poll: float, metrics: ServiceMetrics) -> None:
        self.uri, self._poll, self._metrics = uri, poll, metrics
        self.current: LoadedVersion | None = None
        self.last_error: str | None = None
        self._previous: VersionView | None = None
        self._failed_target: tuple[str, float] = ("", 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="cots-switching", daemon=True)

    def start(self) -> None:
        """Load in the background, and keep following the URI if it is an alias."""
        self._thread.start()

    def stop(self) -> None:
        """Stop following the alias."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def find_view(self, version: str) -> VersionView | None:
        """The view of the current or the previous version by its number, else None."""
        current = self.current
        for view in (current and current.view, self._previous):
            if view and view.target.version == version:
                return view
        return None

    def refresh(self) -> None:
        """Resolve the URI once and load the version if it has changed.

        Raises:
            CotsError: the registry does not answer, or the version cannot be loaded; the old version keeps answering.
        """
        target = resolve(self.uri)
        current = self.current
        if current and target.version == current.view.target.version:
            self.last_error = None
            return
        if self._failed_target[0] == target.version and time.monotonic() < self._failed_target[1]:
            return
        try:
            loaded = LoadedVersion.load(target)
        except Exception:
            self._failed_target = (target.version, time.monotonic() + RETRY_SECONDS)
            self._metrics.failed_loads.inc()
            raise
        self._switch(loaded)

    def _switch(self, loaded: LoadedVersion) -> None:
        before = self.current
        if before:
            self._previous = before.view.hide_removed(loaded.view)
            self._metrics.switches.inc()
        self.current = loaded
        self.last_error = None
        self._metrics.set_version(loaded.view.versions)
        old = f", instead of version {before.view.target.version}" if before else ""
        log.info("%s version %s answers%s", loaded.view.target.name, loaded.view.target.version, old)

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except CotsError as error:
                self._report_error(str(error))
            except Exception as error:  # any error of a library on a version's files: the old version keeps answering
                self._report_error(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            if self.current and not is_alias(self.uri):
                return
            self._stop.wait(self._poll)

    def _report_error(self, message: str) -> None:
        """Log an error once, not at every check, and keep it for `/readyz`, which strangers read."""
        message = without_credentials(message)
        if message != self.last_error:
            log.warning("%s%s", message, "; the previous version keeps answering" if self.current else "")
        self.last_error = message
