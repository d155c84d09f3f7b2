"""Pages of results, thresholds, filters, and queries that are put together from several parts."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import MINUS_WEIGHT, Query, encode_queries
from cots.service.cursor import MAX_RESULTS, Cursor
from cots.service.schemas import MAX_FILTERS
from tests.conftest import Cots
from tests.hits import up_to_rounding

from .conftest import Champion, Served, encoded, in_base64, serving
from .test_answers import CAPTIONS, IMAGES, VIDEOS

pytestmark = pytest.mark.slow


def all_pages(served: Served, k: int, **query: object) -> list[dict[str, object]]:
    """The results of a query, page by page."""
    answer = served.search(k=k, **query)
    results = list(answer["results"])
    while answer["next"]:
        assert len(answer["results"]) == k
        answer = served.search(cursor=answer["next"], k=k)
        results += answer["results"]
    return results


@pytest.mark.parametrize(("media", "count"), [("any", IMAGES + VIDEOS), ("video", VIDEOS), ("text", CAPTIONS)])
@pytest.mark.parametrize("k", [1, 4, 9])
def test_pages_together_are_what_one_query_finds(served: Served, media: str, count: int, k: int) -> None:
    whole = served.search(text="a blue square", k=100, media=media)
    assert whole["next"] is None
    assert len(whole["results"]) == count
    pages = all_pages(served, k, text="a blue square", media=media)
    for paged, hit in zip(pages, whole["results"], strict=True):
        assert paged == hit | {"score": pytest.approx(hit["score"], abs=1e-6)}


def test_items_of_equal_scores_are_on_one_page_each(served: Served) -> None:
    """The same colours are in all splits, so that three items have every score."""
    whole = served.search(image=in_base64(encoded("red")), k=100, media="image")["results"]
    assert len({round(hit["score"], 5) for hit in whole}) == IMAGES / 3
    for k in (1, 2, 4, 5, 7):
        rows = [hit["row"] for hit in all_pages(served, k, image=in_base64(encoded("red")), media="image")]
        assert rows == [hit["row"] for hit in whole], k


def test_a_page_of_images_goes_on_too(served: Served) -> None:
    first = served.client.post("/search/image?k=5", content=encoded("red")).json()
    second = served.search(cursor=first["next"], k=5)
    whole = served.search(image=in_base64(encoded("red")), k=10)
    assert [hit["rank"] for hit in second["results"]] == [6, 7, 8, 9, 10]
    assert [hit["id"] for hit in first["results"] + second["results"]] == [hit["id"] for hit in whole["results"]]


def test_results_below_a_score_are_left_out_on_every_page(served: Served) -> None:
    whole = served.search(text="a blue square", k=100)["results"]
    least = whole[11]["score"] - 1e-4
    right = [hit["id"] for hit in whole if hit["score"] >= least]
    assert 0 < len(right) < len(whole)
    assert [hit["id"] for hit in all_pages(served, 5, text="a blue square", min_score=least)] == right
    assert served.search(text="a blue square", min_score=1)["results"] == []
    raw = served.client.post("/search/image?min_score=0.999&k=100&media=image", content=encoded("red")).json()
    assert {hit["id"].split("-")[-1] for hit in raw["results"]} == {"red"}


def test_columns_of_items_filter_items_and_captions(served: Served) -> None:
    whole = served.search(text="a blue square", k=100)["results"]
    for media in ("any", "text"):
        for splits in ("val", ["val"], ["val", "train"], []):
            answer = all_pages(served, 4, text="a blue square", media=media, where={"split": splits})
            wanted = {splits} if isinstance(splits, str) else set(splits)
            assert {hit["split"] for hit in answer} == wanted
            if media == "any":
                expected = [hit["id"] for hit in whole if hit["split"] in wanted]
                assert [hit["id"] for hit in answer] == expected
    assert served.search(text="a blue square", where={"split": "nowhere"})["results"] == []


def test_a_cursor_of_a_version_that_was_replaced_is_refused_in_one_sentence(
    champion: Champion, store: str, mixed_package: Path
) -> None:
    first = champion.register(mixed_package)
    champion.move(first)
    with serving("models:/cots-index@champion") as served:
        following = served.search(text="a blue square", k=4)["next"]
        second = champion.register(mixed_package)
        champion.move(second)
        served.until(lambda: served.client.get("/readyz").json()["versions"]["index"]["version"] == second)
        answer = served.client.post("/search", json={"cursor": following})
    assert answer.status_code == 410
    reason = f"the results are those of version {first}, and {second} answers now: send the query again"
    assert answer.json() == {"error": reason}


@pytest.mark.parametrize(
    "change",
    [
        {"vector": "AAAA"},
        {"vector": base64.b64encode(np.full(16, np.nan, "<f4").tobytes()).decode()},
        {"vector": base64.b64encode(np.full(16, 3e38, "<f4").tobytes()).decode()},  # its scores would be infinite
        {"offset": MAX_RESULTS},
        {"offset": 0},
        {"min_score": float("nan")},
        {"where": "x"},
        {"where": [["split", []]] * (MAX_FILTERS + 1)},  # each takes time, and a query could not have so many
        {"more": 1},
    ],
)
def test_a_changed_cursor_is_refused(served: Served, change: dict[str, object]) -> None:
    fields = Cursor.decode(served.search(text="a blue square", k=4)["next"]).model_dump()
    changed = base64.urlsafe_b64encode(json.dumps(fields | change).encode()).decode()
    answer = served.client.post("/search", json={"cursor": changed})
    assert (answer.status_code, answer.json()["error"][:23]) == (422, "the cursor is malformed")


def test_the_command_line_filters_and_keeps_away_as_the_service_does(
    served: Served, search: SearchEngine, mixed_package: Path, cots: Cots
) -> None:
    query: dict[str, Any] = {"k": 20, "minus": ["a green square", "blue"], "where": {"split": ["val", "test"]}}
    everything = served.search(text="a red square", **query)["results"]
    assert len(everything) == 18
    expected = served.search(text="a red square", min_score=everything[4]["score"], **query)["results"]
    options = ["--k", "20", "--minus", "a green square", "--minus", "blue", "--where", "split=val", "--where"]
    least = f"--min-score={everything[4]['score']}"
    code, out, err = cots("search", "a red square", *options, "split=test", least, "--model", mixed_package, "--json")
    assert (code, err) == (0, "")
    hits = json.loads(out)
    assert [{name: hit[name] for name in hits[0]} for hit in expected] == up_to_rounding(hits)
    nothing = cots("search", "a red square", "--min-score", "1", "--model", mixed_package, "--json")
    assert nothing == (0, "[]\n", "nothing in the index meets the conditions\n")
    code, _, err = cots("search", "a red square", "--where", "colour=red", "--model", mixed_package)
    assert (code, err) == (2, "error: the items have no column 'colour': they have split\n")


def test_an_image_with_a_text_and_minus_words_is_the_sum_of_their_vectors(served: Served, search: SearchEngine) -> None:
    red = encoded("red")
    answer = served.search(
        image=in_base64(red), text="a blue square", text_weight=2.0, minus=["a green square"], k=100, media="image"
    )
    parts = [Query(Image.new("RGB", (40, 32), "red"), 1), Query("a blue square", 1), Query("a green square", 1)]
    image, text, minus = encode_queries(search.model, parts, batch_size=4)
    vector = image + 2 * text - MINUS_WEIGHT * minus
    vector /= np.linalg.norm(vector)
    scores = dict(zip(search.items["id"], (search.index.vectors @ vector).tolist(), strict=True))
    assert {hit["id"]: hit["score"] for hit in answer["results"]} == pytest.approx(
        {hit["id"]: scores[hit["id"]] for hit in answer["results"]}, abs=0.01
    )


def test_a_text_that_takes_itself_away_is_answered_all_the_same(search: SearchEngine) -> None:
    [vector] = encode_queries(search.model, [Query("red", 1, minus=("red", "red"))], batch_size=4)
    assert np.isfinite(vector).all()


def test_an_item_names_the_caption_that_fits_the_query(served: Served, search: SearchEngine) -> None:
    texts = search.captions.texts
    [query] = encode_queries(search.model, [Query(texts[1], 1)], batch_size=1)
    vectors = dict(zip(texts, search.captions.index.vectors, strict=True))
    for hit in served.search(text=texts[1], k=100)["results"]:
        similarities = [float(vectors[caption] @ query) for caption in hit["captions"]]
        assert similarities[hit["best_caption"]] == pytest.approx(max(similarities), abs=0.01)
        assert hit["frames"] == (3 if hit["media"] == "video" else 1)


def test_a_text_that_nothing_fits_is_told_so_on_every_page(mixed_package: Path, tmp_path: Path) -> None:
    best = None
    for least, fits in ((None, None), (-1.0, True), (1.5, False)):
        copy = shutil.copytree(mixed_package, tmp_path / str(least))
        if least is not None:
            (copy / "artifacts" / "index" / "fit.json").write_text(json.dumps({"min_score": least, "media": "image"}))
        with serving(copy) as served:
            answer = served.search(text="a blue square", k=4)
            assert answer["fits"] is fits
            assert served.search(cursor=answer["next"])["fits"] is fits
            assert served.search(text="a blue square", media="image", where={"split": "val"})["fits"] is fits
            assert best in (None, answer["results"])
            best = answer["results"]
            for other in (
                {"image": in_base64(encoded("red"))},
                {"image": in_base64(encoded("red")), "text": "at night"},
                {"text": "a blue square", "minus": ["red"]},
                {"text": "a blue square", "media": "text"},
                {"text": "a blue square", "media": "video"},
                {"text": "a blue square", "min_score": 1},
            ):
                assert served.search(**other)["fits"] is None


def test_the_overview_counts_items_and_names_queries_that_are_answered_at_rank_one(served: Served) -> None:
    overview = served.client.get("/overview").json()
    assert (overview["images"], overview["videos"], overview["captions"]) == (IMAGES, VIDEOS, CAPTIONS)
    splits = {value["value"]: value["items"] for value in overview["columns"]["split"]}
    assert splits == {"train": 9, "val": 9, "test": 9}
    assert len(set(overview["samples"])) == len(overview["samples"]) <= 6
    for text in overview["samples"]:
        assert text in served.search(text=text, k=1)["results"][0]["captions"]
