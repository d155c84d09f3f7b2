"""Adds samples to a project and changes them over HTTP, through the checks of stage `prepare`."""

import asyncio
import base64
import binascii
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cots.config.stages.prepare import PrepareParams
from cots.data.changes import Change, add_changes, added_sample, read_changes
from cots.data.ingest.ingestor import Ingestor, Rejected
from cots.data.ingest.metadata import metadata_json
from cots.data.withdrawn import read_withdrawn
from cots.digests import bytes_digest
from cots.errors import CotsError
from cots.file_names import CHANGES_PATH, MANIFEST_PATH, WITHDRAWN_PATH
from cots.project_files import PARAMS_FILE
from cots.service.errors import RequestRefused
from cots.service.images import ImageReader
from cots.service.metrics import ServiceMetrics
from cots.service.middleware import RequestLimits
from cots.service.schemas import Changed, ItemChange, Rejection
from cots.service.version_manager import VersionManager


@dataclass(frozen=True, slots=True)
class Accepted:
    """A change that may be stored, with the image's file, if it has one."""

    change: Change
    content: bytes | None


@dataclass(frozen=True, slots=True)
class ItemCheck:
    """Checks the changes of one request.

    Attributes:
        ingestor: what stage `prepare` accepts, within the limits of requests.
        known: ids of samples that can be changed without a new image.
    """

    ingestor: Ingestor
    known: Collection[str]

    @classmethod
    def load(cls, project: Path, limits: RequestLimits, served: Iterable[str]) -> "ItemCheck":
        """Read a project's parameters and lists.

        Args:
            project: its folder.
            limits: of requests.
            served: ids in the index that answers; they stand for those of the data where there is no manifest, such as
                while stage `prepare` writes a new one.

        Raises:
            BadInput: one of them cannot be read.
        """
        settings = PrepareParams.load(project / PARAMS_FILE).prepare
        own_limits = {
            "max_pixels": min(settings.max_pixels, limits.pixels),
            "max_bytes": min(settings.max_bytes, limits.body),
        }
        ingestor = Ingestor(
            root=project,
            withdrawn=read_withdrawn(project / WITHDRAWN_PATH),
            **settings.dump_limits() | own_limits,
        )
        try:
            prepared: Iterable[str] = pd.read_parquet(project / MANIFEST_PATH, columns=["id"])["id"]
        except (OSError, ValueError):  # missing or damaged
            prepared = served
        return cls(ingestor, {*prepared, *read_changes(project / CHANGES_PATH)})

    def __call__(self, item: ItemChange) -> Accepted | Rejection:
        """Check a change, and open its image."""
        limit = self.ingestor.max_caption_chars
        if item.id in self.ingestor.withdrawn:
            return Rejection(id=item.id, reason="withdrawn", detail=self.ingestor.withdrawn[item.id])
        if item.image is None and item.id not in self.known:
            return Rejection(
                id=item.id, reason="no image", detail="no sample has this id, and a new one needs an image"
            )
        if item.image is None and item.captions is None and item.metadata is None:
            return Rejection(id=item.id, reason="nothing to change", detail="give an image, captions or metadata")
        if long := [text for text in item.captions or () if len(text.strip()) > limit]:
            detail = f"{len(long[0])} characters, at most {limit} are stored"
            return Rejection(id=item.id, reason="caption too long", detail=detail)
        if item.metadata and len(json.loads(metadata_json(item.metadata) or "{}")) < len(item.metadata):
            return Rejection(
                id=item.id, reason="too much metadata", detail="a column does not fit in 10,000 characters"
            )
        captions = None if item.captions is None else tuple(item.captions)
        change = Change(id=item.id, captions=captions, metadata=item.metadata)
        return Accepted(change, None) if item.image is None else self._open(change, item.image)

    def _open(self, change: Change, image: str) -> Accepted | Rejection:
        try:
            content = base64.b64decode(image, validate=True)
        except (binascii.Error, ValueError):
            return Rejection(id=change.id, reason="not a picture", detail="the image is not base64")
        digest = bytes_digest(content)
        outcome = self.ingestor(added_sample(change.id, origin=digest, content=content))
        if isinstance(outcome, Rejected):
            return Rejection(id=change.id, reason=outcome.reason, detail=outcome.detail)
        return Accepted(Change(id=change.id, image=digest, captions=change.captions, metadata=change.metadata), content)


class ItemChanges:
    """Stores changes of samples in a project's list.

    Args:
        project: the folder.
        version_manager: holds the version that answers.
        image_reader: in whose threads images are decoded.
        limits: of requests; those of the project apply as well.
        metrics: counts what is accepted and rejected.
    """

    def __init__(
        self,
        project: Path,
        *,
        version_manager: VersionManager,
        image_reader: ImageReader,
        limits: RequestLimits,
        metrics: ServiceMetrics,
    ) -> None:
        self._project, self._version_manager, self._image_reader = project, version_manager, image_reader
        self._limits, self._metrics = limits, metrics

    async def __call__(self, items: Sequence[ItemChange]) -> Changed:
        """Store the changes that stage `prepare` would accept; each item is accepted or rejected.

        Raises:
            RequestRefused: a file of the project cannot be read or written; nothing is stored.
        """
        accepted: dict[str, Accepted] = {}
        rejected: list[Rejection] = []
        try:
            version = self._version_manager.current
            served = version.view.items["id"] if version else ()
            check = await asyncio.to_thread(ItemCheck.load, self._project, self._limits, served)
            for item in items:  # one after the other, so that queries by image get their turn
                outcome = await self._image_reader.run(partial(check, item))
                if isinstance(outcome, Rejection):
                    rejected.append(outcome)
                elif item.id in accepted:
                    detail = "an earlier item of the request has it"
                    rejected.append(Rejection(id=item.id, reason="duplicate id", detail=detail))
                else:
                    accepted[item.id] = outcome
            number = await asyncio.to_thread(self._store, list(accepted.values())) if accepted else None
        except (CotsError, OSError) as error:
            raise RequestRefused(503, f"nothing is stored: {error}") from None
        self._metrics.item_changes.labels("accepted").inc(len(accepted))
        self._metrics.item_changes.labels("rejected").inc(len(rejected))
        return Changed(accepted=list(accepted), rejected=rejected, change=number)

    def _store(self, accepted: Sequence[Accepted]) -> int:
        images = {entry.change.image: entry.content for entry in accepted if entry.change.image and entry.content}
        return add_changes(self._project / CHANGES_PATH, [entry.change for entry in accepted], images)
