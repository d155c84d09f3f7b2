"""What the service does not do, told in one sentence: `{"error": "..."}`."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

log = logging.getLogger(__name__)

QUERY_FIELDS = "a query is a text or an image, with k and media if wanted"


class RequestRefused(HTTPException):
    """A request that is not answered, and why."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(status, sentence, {name.replace("_", "-"): value for name, value in headers.items()})


def refusal(error: HTTPException) -> JSONResponse:
    """The answer that tells it."""
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def tell_refusals(app: FastAPI) -> None:
    """Let everything that goes wrong in `app` be told in this form."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _failed)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return refusal(error)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return refusal(RequestRefused(422, sentence(error.errors())))


async def _failed(request: Request, error: Exception) -> JSONResponse:
    return refusal(RequestRefused(500, "the service failed at this request; its log says why"))


def sentence(errors: Sequence[dict[str, Any]]) -> str:
    """The first of pydantic's errors, for the person who sent the request."""
    error = errors[0]
    field, kind = str(error["loc"][-1]), error["type"]
    known = {
        "json_invalid": f"the body is not JSON: {error.get('ctx', {}).get('error', '')}",
        "model_attributes_type": f"the body is no JSON object with Content-Type application/json: {QUERY_FIELDS}",
        "extra_forbidden": f"unexpected field {field[:40]}: {QUERY_FIELDS}",
        "missing": f"no {field}: {QUERY_FIELDS}",
        "string_pattern_mismatch": f"{field}: it is blank, or no name of this kind",
    }
    message = str(error["msg"])
    return known.get(kind) or f"{field}: {message[:1].lower()}{message[1:]}"
