"""Indexes what requests have stored, by the command `cots registry refresh` itself."""

import asyncio
import json
import logging
from contextlib import suppress
from pathlib import Path

from cots.data.changes import last_number, read_optional_changes
from cots.errors import CotsError
from cots.file_names import CHANGES_PATH
from cots.service.metrics import ServiceMetrics
from cots.service.project_command import CommandFailed, run_cots
from cots.service.schemas import ChangesStatus

FAILED_SECONDS = 300.0  # until another try after a refresh that failed, such as while another run uses the folder
REFUSED_SECONDS = 600.0  # after one whose version the gate refused, such as for a sample that was withdrawn meanwhile

log = logging.getLogger(__name__)


class IndexRefresher:
    """Refreshes the index of a project whenever its list of changes has new ones, one refresh at a time.

    The list is on the disk, so a service that was ended in the middle goes on with it when it starts again, and so does
    any other refresh of the project.

    Args:
        project: the folder.
        metrics: counts refreshes that failed.
    """

    def __init__(self, project: Path, metrics: ServiceMetrics) -> None:
        self._project, self._metrics = project, metrics
        self._stored = asyncio.Event()
        self._indexed = 0
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
        stored = await asyncio.to_thread(self._count)
        return ChangesStatus(stored=stored, indexed=self._indexed, version=self._version, trouble=self._trouble)

    async def run(self) -> None:
        """Refresh at the start, if there are changes, and after each notice, until it is cancelled."""
        while True:
            self._stored.clear()
            seconds = await self._refresh()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stored.wait(), seconds)

    async def _refresh(self) -> float | None:
        """Index the changes that are stored by now; seconds until another try, None if all are found."""
        try:
            stored = await asyncio.to_thread(self._count)
            if stored <= self._indexed:
                return None
            output = await run_cots(self._project, "registry", "refresh", "--json")
        except (CotsError, CommandFailed) as error:
            self._metrics.failed_refreshes.inc()
            self._report(f"stored changes are not indexed yet: {error}")
            return FAILED_SECONDS
        outcome = json.loads(output)
        if not outcome["champion"]:
            self._report(outcome["report"])
            return REFUSED_SECONDS
        self._indexed, self._version, self._trouble = stored, str(outcome["version"]), None
        log.info("changes up to %d are found in version %s", stored, self._version)
        return None

    def _report(self, trouble: str) -> None:
        if trouble != self._trouble:
            log.warning("%s", trouble)
        self._trouble = trouble

    def _count(self) -> int:
        return last_number(read_optional_changes(self._project / CHANGES_PATH))
