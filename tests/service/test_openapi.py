"""The service conforms to its OpenAPI: schemathesis sends valid and invalid requests and checks the answers."""

from typing import Any

import pytest
import schemathesis
from hypothesis import given, strategies
from schemathesis import GenerationMode

from cots.data.image_decoding import FORMATS
from cots.service.schemas import COLUMN_FORMAT, CURSOR_FORMAT, IMAGE_FORMAT
from tests.drawn import drawn

from .conftest import Served, encoded, in_base64

pytestmark = pytest.mark.slow

IMAGES = strategies.builds(encoded, strategies.sampled_from(["red", "blue"]), strategies.sampled_from([*FORMATS]))
OPERATIONS = [
    ("/search", "POST"),
    ("/search/image", "POST"),
    ("/items", "POST"),
    ("/items/changes", "GET"),
    ("/items/withdraw", "POST"),
    ("/overview", "GET"),
    ("/lineage/{version}", "GET"),
    ("/lineage/{version}/{row}", "GET"),
    ("/preview/{version}/{row}/{frame}", "GET"),
    ("/original/{version}/{row}", "GET"),
    ("/healthz", "GET"),
    ("/readyz", "GET"),
    ("/metrics", "GET"),
]
NOTHING_TO_GET_WRONG = {"/items/changes", "/overview", "/healthz", "/readyz", "/metrics"}
CASES = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in GenerationMode
    if mode.is_positive or path not in NOTHING_TO_GET_WRONG
]


@pytest.fixture(scope="module")
def described(served: Served) -> Any:
    schemathesis.openapi.format(IMAGE_FORMAT, IMAGES.map(in_base64))
    cursors = [served.search(text="red", k=k, media=media)["next"] for k in (1, 8) for media in ("any", "text")]
    schemathesis.openapi.format(CURSOR_FORMAT, strategies.sampled_from(cursors))
    schemathesis.openapi.format(COLUMN_FORMAT, strategies.just("split"))
    for media_type in FORMATS.values():
        schemathesis.openapi.media_type(media_type, IMAGES)
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_every_operation_is_tried(described: Any) -> None:
    operations = {(operation.ok().path, operation.ok().method.upper()) for operation in described.get_all_operations()}
    assert operations == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_answers_are_as_the_openapi_says(described: Any, path: str, method: str, mode: GenerationMode) -> None:
    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @drawn(25)
    def holds(case: Any) -> None:
        case.call_and_validate()

    holds()
