"""HTTP routes that add, change and withdraw samples of a project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

from fastapi import APIRouter, Body, Depends
from fastapi.security import HTTPBearer

from cots.data.pipeline_lists import require_lists
from cots.errors import BadInput
from cots.service import schemas
from cots.service.errors import RequestRefused
from cots.service.images import ImageReader
from cots.service.index_refresher import IndexRefresher
from cots.service.item_changes import ItemChanges
from cots.service.metrics import ServiceMetrics
from cots.service.middleware import RequestLimits
from cots.service.routes import error_responses
from cots.service.version_manager import VersionManager
from cots.service.withdrawal import Withdrawal

NO_PROJECT = "this service changes no data: start it with --project and COTS_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectItems:
    """What changes the samples of a project.

    Attributes:
        project: the folder.
        withdrawal: withdraws samples.
        changes: stores added and changed samples.
        refresher: indexes them.
    """

    project: Path
    withdrawal: Withdrawal
    changes: ItemChanges
    refresher: IndexRefresher

    @classmethod
    def of(
        cls,
        project: Path,
        *,
        version_manager: VersionManager,
        image_reader: ImageReader,
        limits: RequestLimits,
        metrics: ServiceMetrics,
    ) -> Self:
        """The parts for a project; the arguments are those of `ItemChanges` and `IndexRefresher`."""
        changes = ItemChanges(
            project, version_manager=version_manager, image_reader=image_reader, limits=limits, metrics=metrics
        )
        return cls(
            project=project,
            withdrawal=Withdrawal(project),
            changes=changes,
            refresher=IndexRefresher(project, metrics),
        )

    def require_list(self) -> None:
        """Check that the project reads a list of changes.

        Raises:
            RequestRefused: it does not.
        """
        try:
            require_lists(self.project)
        except BadInput as error:
            raise RequestRefused(403, str(error)) from None


@dataclass(frozen=True, slots=True)
class ItemHandlers:
    """The request handlers; `items` is None if this service may change nothing."""

    items: ProjectItems | None

    async def change_items(self, request: Annotated[schemas.ChangeRequest, Body()]) -> schemas.Changed:
        """Store new samples and changes of samples; a refresh of the index, which starts at once, makes them found."""
        items = self._require_items()
        items.require_list()
        changed = await items.changes(request.items)
        items.refresher.notify()
        return changed

    async def changes(self) -> schemas.ChangesStatus:
        """Which changes are stored, and in which version they are found."""
        try:
            return await self._require_items().refresher.status()
        except BadInput as error:
            raise RequestRefused(503, str(error)) from None

    async def withdraw(self, request: Annotated[schemas.WithdrawRequest, Body()]) -> schemas.Withdrawn:
        """Take samples out of the deployed index at once, as `cots data withdraw` does."""
        return schemas.Withdrawn(report=await self._require_items().withdrawal(request.ids, request.reason))

    def _require_items(self) -> ProjectItems:
        if self.items is None:
            raise RequestRefused(403, NO_PROJECT)
        return self.items


def item_router(items: ProjectItems | None, *, token: bool) -> APIRouter:
    """The routes.

    Args:
        items: of the project; None answers every request with 403.
        token: whether OpenAPI declares a bearer token.
    """
    routes, handlers = APIRouter(), ItemHandlers(items)
    options: dict[str, Any] = {
        "responses": error_responses(408, 413, 422, 429, 503),
        "dependencies": [Depends(HTTPBearer(auto_error=False))] if token else [],
    }
    routes.post("/items", **options)(handlers.change_items)
    routes.post("/items/withdraw", **options)(handlers.withdraw)
    routes.get("/items/changes", **options | {"responses": error_responses(503)})(handlers.changes)
    return routes
