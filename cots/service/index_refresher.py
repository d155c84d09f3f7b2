"""Indexes what requests have stored, by the command `cots registry refresh` itself."""

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path

from cots.data.changes import Change, last_number, read_optional_changes
from cots.file_names import CHANGES_PATH
from cots.service.metrics import ServiceMetrics
from cots.service.project_command import run_cots
from cots.service.schemas import ChangesStatus

FAILED_SECONDS = 300.0  # until another try after a refresh that failed, such as while another run uses the folder
REFUSED_SECONDS = 600.0  # after one whose version the gate refused, such as for a sample that was withdrawn meanwhile

log = logging.getLogger(__name__)


class IndexRefresher:
    """Refreshes the index of a project whenever requests have changed its list, one refresh at a time.

    The list is on the disk, so a service that was ended in the middle goes on with it when it starts again, and so does
    any other refresh of the project.

    Args:
        project: the folder.
        metrics: counts refreshes that failed.
    """

    def __init__(self, project: Path, metrics: ServiceMetrics) -> None:
        self._project, self._metrics = project, metrics
        self._stored = asyncio.Event()
        self._indexed: dict[str, Change] = {}  # the list that the deployed index has been made with
        self._version: str | None = None
        self._trouble: str | None = None

    def notify(self) -> None:
        """Tell it that the list has new changes."""
        self._stored.set()

    async def status(self) -> ChangesStatus:
        """Which changes are stored, and which of them are found.

        Raises:
            BadInput: the list cannot be read.
        """
        listed = await asyncio.to_thread(self._read)
        waiting = [change.number for name, change in listed.items() if self._indexed.get(name) != change]
        indexed = min([last_number(self._indexed), *(number - 1 for number in waiting)])
        return ChangesStatus(stored=last_number(listed), indexed=indexed, version=self._version, trouble=self._trouble)

    async def run(self) -> None:
        """Refresh at the start, if there are changes, and after each notice, until it is cancelled."""
        while True:
            self._stored.clear()
            try:
                seconds = await self._refresh()
            except Exception as error:  # whatever it is, the service goes on and tries again
                self._metrics.failed_refreshes.inc()
                self._report(f"stored changes are not indexed yet: {str(error) or type(error).__name__}")
                seconds = FAILED_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stored.wait(), seconds)

    async def _refresh(self) -> float | None:
        """Index the changes that are stored by now; seconds until another try, None if all are found."""
        listed = await asyncio.to_thread(self._read)
        if listed == self._indexed:
            return None
        outcome = json.loads(await run_cots(self._project, "registry", "refresh", "--json"))
        if not outcome["champion"]:
            self._report(outcome["report"])
            return REFUSED_SECONDS
        self._indexed, self._version, self._trouble = listed, str(outcome["version"]), None
        log.info("changes up to %d are found in version %s", last_number(listed), self._version)
        return None

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def _read(self) -> dict[str, Change]:
        return read_optional_changes(self._project / CHANGES_PATH)
