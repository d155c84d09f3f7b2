"""Answers of the service: every direction, batched and alone, with their lineage."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cots.models.dual_encoder import DualEncoder
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import Query, encode_queries

from .conftest import Served, encoded, in_base64, serving

pytestmark = pytest.mark.slow
IMAGES, VIDEOS, CAPTIONS = 18, 9, 27
JSON = {"Content-Type": "application/json"}


def media(answer: dict[str, Any]) -> list[str]:
    return [hit["media"] for hit in answer["results"]]


@pytest.mark.parametrize(
    ("media_kind", "count", "kinds"),
    [
        ("image", IMAGES, {"image"}),
        ("video", VIDEOS, {"video"}),
        ("any", IMAGES + VIDEOS, {"image", "video"}),
        ("text", CAPTIONS, {"text"}),
    ],
)
@pytest.mark.parametrize("query_kind", ["text", "image"])
def test_every_kind_is_found_whole_by_texts_and_by_images(
    served: Served, query_kind: str, media_kind: str, count: int, kinds: set[str]
) -> None:
    content = "a blue square" if query_kind == "text" else in_base64(encoded("blue"))
    answer = served.search(**{query_kind: content}, k=100, media=media_kind)
    assert len(answer["results"]) == count
    assert set(media(answer)) == kinds
    scores = [hit["score"] for hit in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert [hit["rank"] for hit in answer["results"]] == list(range(1, count + 1))


def test_an_indexed_image_finds_itself_and_a_caption_finds_itself(served: Served) -> None:
    [first] = served.search(image=in_base64(encoded("blue")), k=1, media="image")["results"]
    assert first["id"].endswith("image-blue")
    assert first["score"] == pytest.approx(1, abs=1e-3)
    [first] = served.search(text="a blue square in val", k=1, media="text")["results"]
    assert first["captions"] == ["a blue square in val"]
    assert first["id"].startswith("val-")
    assert first["score"] == pytest.approx(1, abs=1e-3)


def test_scores_are_the_cosines_of_the_encoders_vectors(served: Served, search: SearchEngine) -> None:
    model = search.model
    assert isinstance(model, DualEncoder)
    texts = search.captions.texts
    [query] = model.encode_images([Image.new("RGB", (40, 32), "red")], batch_size=1)
    expected = dict(zip(texts, (model.encode_texts(texts, batch_size=9) @ query).tolist(), strict=True))
    results = served.search(image=in_base64(encoded("red")), k=100, media="text")["results"]
    assert {hit["captions"][0]: hit["score"] for hit in results} == pytest.approx(expected, abs=0.01)


def test_an_image_as_the_body_gets_the_answer_of_the_same_in_base64(served: Served) -> None:
    image = encoded("green", "WEBP")
    raw = served.client.post("/search/image?k=5&media=any", content=image).json()
    assert raw["results"] == served.search(image=in_base64(image), k=5)["results"]


def test_an_image_that_was_reduced_for_the_queue_scores_as_the_whole_one(served: Served, search: SearchEngine) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (130, 210, 3), dtype=np.uint8))
    file = io.BytesIO()
    image.save(file, "PNG")
    results = served.client.post("/search/image?k=27", content=file.getvalue()).json()["results"]
    [expected] = search([Query(image, 27)], batch_size=1)
    assert {hit["id"]: hit["score"] for hit in results} == pytest.approx(
        {hit["id"]: hit["score"] for hit in expected}, abs=1e-5
    )


def test_queries_that_come_together_are_answered_as_those_that_come_alone(served: Served) -> None:
    colours = ["red", "green", "blue", "yellow", "white", "black"]
    queries: list[dict[str, object]] = [
        {"text": f"a {colour} square in {split}", "k": 3 + place, "media": kind}
        for place, colour in enumerate(colours)
        for split in ("train", "val", "test")
        for kind in ("image", "text")
    ]
    queries += [{"image": in_base64(encoded(colour)), "k": 4, "media": "video"} for colour in colours]
    alone = [served.search(**query)["results"] for query in queries]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda query: served.search(**query)["results"], queries))
    for single, batched in zip(alone, together, strict=True):
        assert len(single) == len(batched)
        np.testing.assert_allclose([hit["score"] for hit in single], [hit["score"] for hit in batched], atol=0.01)
    batches = served.client.get("/metrics").text
    sizes = {line.split()[0]: float(line.split()[1]) for line in batches.splitlines() if line.startswith("cots_batch")}
    assert sizes["cots_batch_queries_sum"] > sizes["cots_batch_queries_count"]  # some were encoded together


def test_an_answer_names_its_versions_and_leads_to_image_and_lineage(served: Served, search: SearchEngine) -> None:
    answer = served.search(text="a red square", k=27)
    version = answer["versions"]["index"]["version"]
    assert version.startswith("folder-")
    assert answer["versions"]["encoders"]["digest"] == search.model.digest
    assert answer["milliseconds"] > 0
    for hit in answer["results"]:
        preview = served.client.get(hit["preview"])
        assert (preview.status_code, preview.headers["content-type"]) == (200, "image/jpeg")
        assert hit["preview"] == f"/preview/{version}/{hit['row']}/{hit['frame']}"
    lineage = served.client.get(answer["results"][0]["lineage"]).json()
    assert lineage["versions"] == answer["versions"]
    assert lineage["item"]["id"] == answer["results"][0]["id"]
    assert lineage["item"]["origin"]
    whole = served.client.get(f"/lineage/{version}").json()
    assert whole == {name: value for name, value in lineage.items() if name != "item"}


def test_metrics_count_by_route_and_status_and_name_the_version(served: Served) -> None:
    served.search(text="a red square")
    served.client.post("/search", json={"text": ""})
    served.client.get("/nowhere/at/all")
    text = served.client.get("/metrics").text
    assert 'cots_requests_total{method="POST",route="/search",status="200"}' in text
    assert 'cots_requests_total{method="POST",route="/search",status="422"}' in text
    assert 'cots_requests_total{method="GET",route="other",status="404"}' in text
    assert "cots_queries_in_flight 0.0" in text
    assert 'cots_version_info{encoders_digest="' in text
    assert "nowhere" not in text


def test_methods_that_senders_invent_share_one_time_series(served: Served) -> None:
    for number in range(5):
        assert served.client.request(f"MADE{number}UP", "/search").status_code == 405
        assert served.client.request(f"MADE{number}UP", "/nowhere").status_code == 404
    text = served.client.get("/metrics").text
    assert 'cots_requests_total{method="other",route="/search",status="405"}' in text
    assert "MADE" not in text


def test_head_is_answered_as_get_without_the_body(served: Served) -> None:
    preview = served.search(text="a red square", k=1)["results"][0]["preview"]
    for path in ("/", "/page.js", "/healthz", "/readyz", "/openapi.json", preview):
        head, get = (served.client.request(method, path) for method in ("HEAD", "GET"))
        assert (head.status_code, head.content) == (200, b""), path
        assert head.headers["content-length"] == str(len(get.content)), path
    assert served.client.head("/search").status_code == 405
    assert served.client.head("/nowhere").status_code == 404


def test_queries_are_logged_where_that_is_asked_for(mixed_package: Path, tmp_path: Path, search: SearchEngine) -> None:
    with serving(mixed_package, log_queries=tmp_path / "queries") as logging:
        versions = logging.search(text="a réd square")["versions"]
        logging.search(image=in_base64(encoded("red")))
        logging.client.post("/search", json={"text": ""})
    [file] = (tmp_path / "queries").iterdir()
    first, second = map(json.loads, file.read_text(encoding="utf8").splitlines())
    assert set(first) == {"when", "kind", "text", "index_version", "encoders_digest", "vector"}
    assert (first["kind"], first["text"]) == ("text", "a réd square")
    assert (second["kind"], second["text"]) == ("image", None)
    assert first["when"].startswith(file.stem)
    assert first["when"].endswith("+00:00")
    assert first["index_version"] == versions["index"]["version"]
    assert first["encoders_digest"] == search.model.digest
    vector = np.frombuffer(base64.b64decode(second["vector"]), "<f2")
    [expected] = encode_queries(search.model, [Query(Image.new("RGB", (40, 32), "red"), 1)], batch_size=1)
    np.testing.assert_allclose(vector, expected, atol=0.01)


def test_other_accounts_cannot_read_what_people_search_for(mixed_package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "queries"
    with serving(mixed_package, log_queries=folder) as logging:
        logging.search(text="a red square")
        logging.until(lambda: any(folder.iterdir()))
        [file] = folder.iterdir()
        assert (folder.stat().st_mode & 0o777, file.stat().st_mode & 0o777) == (0o700, 0o600)
        file.chmod(0o644)  # as earlier releases made it
        logging.search(text="a red square")
        logging.until(lambda: file.stat().st_mode & 0o777 == 0o600)


def test_texts_in_any_script_are_answered_and_logged_as_they_were_sent(mixed_package: Path, tmp_path: Path) -> None:
    texts = ["🐶 im Schnee", "كلب في الثلج", "a\u202eb", "\u0000", "红色的圆", "x" * 1000]
    with serving(mixed_package, log_queries=tmp_path) as logging:
        for text in texts:
            assert logging.search(text=text, k=1)["results"], text
        with_mark = logging.client.post("/search", content=b'\xef\xbb\xbf{"text": "red"}', headers=JSON)
        assert with_mark.status_code == 200
        for refused in (b'{"text": "\\ud800"}', '{"text": "\u3000"}'.encode(), b'{"text": "caf\xe9"}'):
            assert logging.client.post("/search", content=refused, headers=JSON).status_code in (400, 422), refused
        assert 'status="500"' not in logging.client.get("/metrics").text
    [file] = tmp_path.iterdir()
    lines = file.read_text(encoding="utf8").split("\n")[:-1]
    assert [json.loads(line)["text"] for line in lines] == [*texts, "red"]


def test_a_log_that_cannot_be_written_does_not_cost_an_answer(mixed_package: Path, tmp_path: Path) -> None:
    folder = tmp_path / "queries"
    with serving(mixed_package, log_queries=folder) as logging:
        folder.rmdir()
        assert logging.search(text="a red square")["results"]
        logging.until(lambda: "cots_unlogged_queries_total 1.0" in logging.client.get("/metrics").text)
