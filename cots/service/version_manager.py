"""Which version answers now: the alias is followed, a new version is loaded beside the old one, then they change."""

import logging
import threading
import time

from cots.errors import CotsError
from cots.service.loaded_version import LoadedVersion, VersionView, follows, resolve
from cots.service.metrics import ServiceMetrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0  # before a version that could not be loaded is tried again
JOIN_SECONDS = 5.0  # that stopping waits for a load in progress


class VersionManager:
    """The version that answers, kept in step with an address by a thread of its own.

    A request reads `current` once and makes its whole answer of that version.

    Args:
        uri: the address; see `resolve`.
        poll: seconds between looks at the alias.
        meters: told of switches and failures.
    """

    def __init__(self, uri: str, *, poll: float, meters: ServiceMetrics) -> None:
        self.uri, self._poll, self._meters = uri, poll, meters
        self.current: LoadedVersion | None = None
        self.trouble: str | None = None
        self._previous: VersionView | None = None
        self._refused: tuple[str, float] = ("", 0.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="cots-switching", daemon=True)

    def start(self) -> None:
        """Load in the background, and go on following where the address is an alias."""
        self._thread.start()

    def stop(self) -> None:
        """Follow no longer."""
        self._stop.set()
        self._thread.join(JOIN_SECONDS)

    def view(self, version: str) -> VersionView | None:
        """Items and previews of the version that answers, or of the one before."""
        current = self.current
        for shelf in (current and current.view, self._previous):
            if shelf and shelf.target.version == version:
                return shelf
        return None

    def refresh(self) -> None:
        """Look once where the address points, and load that version if it is another one.

        Raises:
            CotsError: the registry does not answer, or the version cannot be loaded; the old one goes on answering.
        """
        target = resolve(self.uri)
        current = self.current
        if current and target.version == current.view.target.version:
            self.trouble = None
            return
        if self._refused[0] == target.version and time.monotonic() < self._refused[1]:
            return
        try:
            loaded = LoadedVersion.load(target)
        except Exception:
            self._refused = (target.version, time.monotonic() + RETRY_SECONDS)
            self._meters.failed_loads.inc()
            raise
        self._change(loaded)

    def _change(self, loaded: LoadedVersion) -> None:
        before = self.current
        if before:
            self._previous = before.view.beside(loaded.view)
            self._meters.switches.inc()
        self.current = loaded
        self.trouble = None
        self._meters.answering(loaded.view.versions)
        old = f", instead of version {before.view.target.version}" if before else ""
        log.info("%s version %s answers%s", loaded.view.target.name, loaded.view.target.version, old)

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except CotsError as error:
                self._tell(str(error))
            except Exception as error:  # whatever a version's files make a library raise, the old one goes on
                self._tell(f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            if self.current and not follows(self.uri):
                return
            self._stop.wait(self._poll)

    def _tell(self, trouble: str) -> None:
        """Once for each trouble, not at every look."""
        if trouble != self.trouble:
            log.warning("%s%s", trouble, "; the version before goes on answering" if self.current else "")
        self.trouble = trouble
