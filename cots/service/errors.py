"""Error responses of the service, each one sentence: `{"error": "..."}`."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

QUERY_FIELDS = (
    "a query is a text, an image or both, optionally with k, media, min_score, where, minus and text_weight, "
    "or a cursor, optionally with k"
)


FIELDS = {  # of bodies, by address
    "/items": "a change is a list of items, each an id with an image in base64, captions and metadata, or some of them",
    "/items/withdraw": "a withdrawal is a list of ids and a reason",
}


ALTERNATIVES = ("text", "image", "cursor")  # kinds of queries, which pydantic puts before the names of their fields
FIRST_OF_UNION = "constrained-str"  # pydantic's name for a text, the first of several types that a value may have


class RequestRefused(HTTPException):
    """A request that is refused, with an HTTP status and a reason."""

    def __init__(self, status: int, reason: str, **headers: str) -> None:
        super().__init__(status, reason, {name.replace("_", "-"): value for name, value in headers.items()})


def error_response(error: HTTPException) -> JSONResponse:
    """Convert an exception to a JSON response."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def add_error_handlers(app: FastAPI) -> None:
    """Make `app` answer every error in this form."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return error_response(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = FIELDS.get(request.url.path, QUERY_FIELDS)
    return error_response(RequestRefused(422, describe_validation_error(error.errors(), fields)))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return error_response(RequestRefused(500, "the service failed to answer this request: see its log"))


def describe_validation_error(errors: Sequence[dict[str, Any]], fields: str) -> str:
    """One sentence on the first of pydantic's errors, for the person who sent the request.

    Args:
        errors: at least one.
        fields: what the body should be.
    """
    error = errors[0]
    place, kind, message = _place(error["loc"]), error["type"], str(error["msg"])
    if error["loc"][-1] == FIRST_OF_UNION:
        union = [other["msg"] for other in errors if other["loc"][:-1] == error["loc"][:-1]]
        message = f"input should be {' or '.join(text.removeprefix('Input should be ') for text in union)}"
    field = place.rpartition(".")[2]
    known = {
        "json_invalid": f"the body is not JSON: {error.get('ctx', {}).get('error', '')}",
        "model_attributes_type": f"the body is not a JSON object with Content-Type application/json: {fields}",
        "extra_forbidden": f"unexpected field {field[:40]}: {fields}",
        "missing": f"no {field}: {fields}",
        "string_pattern_mismatch": f"{place}: it is blank or malformed",
    }
    return known.get(kind) or f"{place}: {message[:1].lower()}{message[1:]}"


def _place(location: Sequence[str | int]) -> str:
    """Where an error is, such as `items.0.id`, without the parts that name the body and the alternatives of a type."""
    parts = [part for part in location[:-1] if part not in (*ALTERNATIVES, "body")]
    last = [] if parts and location[-1] in (FIRST_OF_UNION, "[key]") else [location[-1]]
    return ".".join(map(str, [*parts, *last]))
