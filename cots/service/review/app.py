"""Assembles the application in which people judge pairs."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Body, FastAPI, Response
from fastapi.responses import JSONResponse

from cots.data.verdicts import Verdict
from cots.errors import BadInput
from cots.service.app import secured_app
from cots.service.errors import RequestRefused
from cots.service.metrics import ServiceMetrics
from cots.service.middleware import RequestLimits
from cots.service.page import FILES, file_routes
from cots.service.review.judging import JudgingRound
from cots.service.schemas import RequestBody, RowNumber
from cots.service.server import BODY_SECONDS

LIMITS = RequestLimits(body=1000, pixels=0, in_flight=8, seconds=BODY_SECONDS)  # a request has a verdict, no image
PAGE = {
    "/": ("review.html", "text/html; charset=utf-8"),
    "/review.css": ("review.css", "text/css; charset=utf-8"),
    "/review.js": ("review.js", "text/javascript; charset=utf-8"),
}
SHARED = {path: FILES[path] for path in ("/page.css", "/api.js", "/icon.svg")}  # files of the search page


class VerdictRequest(RequestBody):
    """A verdict on a pair; None takes it back."""

    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Review:
    """The request handlers.

    Attributes:
        judging: the pairs.
    """

    judging: JudgingRound

    def progress(self) -> Response:
        """How far the round is."""
        return JSONResponse(self.judging.progress())

    def pair(self, number: RowNumber) -> Response:
        """A pair."""
        self._require(number)
        return JSONResponse(self.judging.pair(number))

    def judge(self, number: RowNumber, request: Annotated[VerdictRequest, Body()]) -> Response:
        """Write a verdict; answer how far the round is."""
        self._require(number)
        try:
            self.judging.judge(number, request.verdict)
        except (BadInput, OSError) as error:
            raise RequestRefused(503, f"the verdict is not written: {error}") from None
        return JSONResponse(self.judging.progress(after=number))

    def frame(self, number: RowNumber, frame: RowNumber) -> Response:
        """A frame of a pair's image or video."""
        self._require(number)
        try:
            jpeg = self.judging.frame(number, frame)
        except BadInput as error:
            raise RequestRefused(503, str(error)) from None
        if jpeg is None:
            raise RequestRefused(404, f"pair {number} has no frame {frame}")
        return Response(jpeg, media_type="image/jpeg")

    def _require(self, number: int) -> None:
        if number >= len(self.judging):
            raise RequestRefused(404, f"no pair {number}: there are {len(self.judging)}")


def create_review_app(judging: JudgingRound) -> FastAPI:
    """Create an application for this machine alone: no other host's page may use it."""
    review, routes = Review(judging), APIRouter()
    routes.get("/pairs")(review.progress)
    routes.get("/pairs/{number}")(review.pair)
    routes.post("/pairs/{number}")(review.judge)
    routes.get("/pairs/{number}/{frame}")(review.frame)
    return secured_app(
        [routes, file_routes(__package__, PAGE), file_routes("cots.service.page", SHARED)],
        title="COTS suspects",
        openapi_url=None,
        hosts=frozenset(),
        token=None,
        limits=LIMITS,
        metrics=ServiceMetrics(),
    )
