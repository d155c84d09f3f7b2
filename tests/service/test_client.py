"""The client: its methods are the operations of the service's OpenAPI, and its answers are the service's."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import HTMLResponse, RedirectResponse
from PIL import Image

from cots.service.client import Client, RequestFailed, _as_list

from .conftest import Served, encoded, in_base64, running, serving

pytestmark = pytest.mark.slow
SECRET = "a-secret-of-enough-characters"


@pytest.fixture
def client(served: Served) -> Any:
    with Client(served.url) as client:
        yield client


@pytest.fixture(scope="module")
def openapi(served: Served) -> dict[str, Any]:
    description: dict[str, Any] = served.client.get("/openapi.json").json()
    return description


def operations(openapi: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {operation["operationId"]: operation for path in openapi["paths"].values() for operation in path.values()}


def fields(operation: dict[str, Any], openapi: dict[str, Any]) -> dict[str, Any]:
    """Name and default of every field that the operation takes; `...` where there is no default."""
    found = {field["name"]: field["schema"].get("default", ...) for field in operation.get("parameters", [])}
    for media_type, content in operation.get("requestBody", {"content": {}})["content"].items():
        if media_type.startswith("image/"):
            found["image"] = ...
            continue
        for choice in content["schema"].get("oneOf", [content["schema"]]):
            body = openapi["components"]["schemas"][choice["$ref"].rpartition("/")[2]]
            found |= {name: field.get("default", ...) for name, field in body["properties"].items()}
    return found


def test_every_operation_is_a_method_with_the_same_fields_and_defaults(openapi: dict[str, Any]) -> None:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert public - {"close", "results"} == set(operations(openapi))
    for name, operation in operations(openapi).items():
        parameters = dict(inspect.signature(getattr(Client, name)).parameters)
        del parameters["self"]
        expected = fields(operation, openapi)
        assert set(parameters) == set(expected), name
        for field, default in expected.items():
            if default not in (..., None, [], {}):
                assert parameters[field].default == default, (name, field)


def test_methods_return_what_the_operations_do(openapi: dict[str, Any]) -> None:
    for name, operation in operations(openapi).items():
        content = operation["responses"]["200"]["content"]
        returned = inspect.signature(getattr(Client, name)).return_annotation
        if "application/json" in content:
            assert content["application/json"]["schema"]["$ref"].rpartition("/")[2] == returned.__name__, name
        else:
            assert returned in (str, bytes, Image.Image), name


def test_queries_of_every_kind_get_the_answers_of_the_service(client: Client, served: Served, tmp_path: Path) -> None:
    red = encoded("red")
    (tmp_path / "red.png").write_bytes(red)
    query: dict[str, Any] = {"k": 5, "media": "image", "where": {"split": ["val", "test"]}, "minus": ["green"]}
    by_text = client.search("a blue square", **query)
    assert by_text.model_dump()["results"] == served.search(text="a blue square", **query)["results"]
    expected = served.search(image=in_base64(red), text="at night", k=4)["results"]
    for image in (red, tmp_path / "red.png", Image.new("RGB", (40, 32), "red")):
        assert client.search("at night", image=image, k=4).model_dump()["results"] == expected
    assert client.search_image(red, k=3, min_score=-1).results == client.search(image=red, k=3).results
    assert [hit.rank for hit in client.results("a blue square", k=10)] == list(range(1, 28))


def test_a_text_in_place_of_a_list_is_one_text(client: Client) -> None:
    assert (
        client.search("a blue square", minus="green").results == client.search("a blue square", minus=["green"]).results
    )
    with pytest.raises(RequestFailed, match="this service changes no data"):
        client.withdraw("red", "because")
    assert _as_list("red") == _as_list(["red"]) == _as_list(("red",)) == ["red"]  # not r, e and d


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "F", "LA", "YCbCr"])
def test_an_image_of_any_mode_is_sent_as_it_is_seen(client: Client, tmp_path: Path, mode: str) -> None:
    upright = Image.linear_gradient("L").resize((48, 40)).convert("RGB")
    stored = upright.transpose(Image.Transpose.ROTATE_90).convert(mode)
    stored.getexif()[0x0112] = 6  # to be turned clockwise
    found, expected = (client.search(image=image, k=5).results for image in (stored, upright))
    assert [hit.id for hit in found] == [hit.id for hit in expected]
    assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected], abs=0.02)


def test_what_cannot_be_sent_is_told_in_one_line(client: Client) -> None:
    wrong: list[Any] = [
        ({"text": b"red"}, "this cannot be sent: "),
        ({"text": "\ud800"}, "this cannot be sent: "),
        ({"text": "red", "min_score": float("nan")}, "this cannot be sent: "),
        ({"image": 3}, "an image is int: give a path"),
        ({"image": "a\0b"}, "cannot read the image .*: embedded null"),
        ({"image": Image.new("HSV", (8, 8))}, "an image of mode HSV cannot be sent"),
    ]
    for query, message in wrong:
        with pytest.raises(RequestFailed, match=message) as refused:
            client.search(**query)
        assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(RequestFailed, match="an image is NoneType"):
        client.change_items([{"id": "a", "image": None}])  # type: ignore[typeddict-item]


def test_another_service_at_the_address_is_told(tmp_path: Path) -> None:
    """Such as a proxy that leads to its log-in."""
    other = FastAPI()
    other.get("/readyz")(lambda: RedirectResponse("/login"))
    other.get("/overview")(lambda: HTMLResponse("<h1>Log in</h1>"))
    other.get("/preview/1/2/3")(lambda: HTMLResponse("<h1>Log in</h1>"))
    with running(other) as served, Client(served.url) as client:
        for call, status in ((client.ready, 307), (client.overview, 200), (lambda: client.preview("1", 2, 3), 200)):
            message = f"answered with status {status}: is it the search service"
            with pytest.raises(RequestFailed, match=message) as refused:
                call()
            assert refused.value.status == status


def test_everything_that_a_result_leads_to_can_be_read(client: Client, served: Served) -> None:
    answer = client.search("a blue square", k=1)
    [hit], version = answer.results, answer.versions.index.version
    assert version
    assert client.preview(version, hit.row, hit.frame).size == (40, 32)
    assert client.item_lineage(version, hit.row).item.id == hit.id
    assert client.lineage(version).versions == answer.versions == client.ready().versions
    assert client.alive().alive
    assert client.overview().model_dump() == served.client.get("/overview").json()
    assert "cots_requests_total" in client.metrics()


def test_what_goes_wrong_is_told_in_the_services_words(client: Client, mixed_package: Path) -> None:
    with pytest.raises(RequestFailed, match="the items have no column 'colour': they have split") as refused:
        client.search("red", where={"colour": "red"})
    assert refused.value.status == 422
    with pytest.raises(RequestFailed, match="cannot read the image nowhere.png: No such file"):
        client.search(image=Path("nowhere.png"))
    with serving(mixed_package, token=SECRET) as guarded:
        with Client(guarded.url) as stranger, pytest.raises(RequestFailed, match="token required") as refused:
            stranger.search("red")
        assert refused.value.status == 401
        with Client(guarded.url, token=SECRET) as friend:
            assert friend.search("red").results
    with Client(guarded.url) as late, pytest.raises(RequestFailed, match=f"no answer from {guarded.url}") as refused:
        late.alive()
    assert refused.value.status is None
