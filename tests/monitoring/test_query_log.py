"""Reading the query log: which lines are used, skipped or malformed."""

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cots.errors import BadInput
from cots.monitoring.query_log import MAX_LINE, read_queries

ENCODERS = "a" * 64
START = datetime(2026, 11, 1, tzinfo=UTC)


def unit(seed: int, dim: int = 4) -> NDArray[np.float32]:
    row = np.random.default_rng(seed).normal(size=dim).astype(np.float32)
    return np.asarray(row / np.linalg.norm(row))


def line(text: str | None, number: int, **changed: object) -> str:
    vector = base64.b64encode(unit(number).astype("<f2").tobytes()).decode()
    fields = {
        "when": (START + timedelta(seconds=number)).isoformat(),
        "kind": "image" if text is None else "text",
        "text": text,
        "index_version": 3,
        "encoders_digest": ENCODERS,
        "vector": vector,
    }
    return json.dumps(fields | changed)


def write_log(folder: Path, lines: Sequence[str], name: str = "a.jsonl") -> None:
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf8")


def test_texts_and_images_are_read_with_their_embeddings(tmp_path: Path) -> None:
    write_log(tmp_path, [line("a red star", 0), line(None, 1)])
    write_log(tmp_path, [line("ein Stern, größer", 2)], name="b.jsonl")
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=9)
    assert log.texts == ("a red star", "ein Stern, größer")
    np.testing.assert_allclose(log.text_vectors, [unit(0), unit(2)], atol=1e-3)
    np.testing.assert_allclose(log.image_vectors, [unit(1)], atol=1e-3)
    assert log.num_skipped == {}


def test_repeated_queries_count_once_and_prefixes_are_left_out(tmp_path: Path) -> None:
    texts = ["a", "a re", "a red star", "a  red star", "a blue ring", "a blue ring", "a reed", "b"]
    write_log(tmp_path, [*(line(text, n) for n, text in enumerate(texts)), line(None, 50), line(None, 50)])
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=99)
    assert log.texts == ("a blue ring", "a red star", "a reed", "b")
    assert len(log.image_vectors) == 1
    assert log.num_skipped == {"half typed": 2, "repeated": 3}


def test_only_the_newest_queries_of_all_files_are_read(tmp_path: Path) -> None:
    for number in (3, 0, 2, 1):
        write_log(tmp_path, [line(f"text {number}", number)], name=f"{9 - number}.jsonl")
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=2)
    assert log.texts == ("text 2", "text 3")
    assert log.num_skipped == {"older": 2}


def test_queries_of_other_encoders_are_counted_by_digest(tmp_path: Path) -> None:
    other = "b" * 64
    write_log(
        tmp_path,
        [line("x", 0), line("y", 1, encoders_digest=other, vector="AAAA"), line("z", 2, encoders_digest=other)],
    )
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=9)
    assert log.texts == ("x",)
    assert log.num_skipped == {"by encoders bbbbbbbbbbbb": 2}


@pytest.mark.parametrize(
    "damaged",
    [
        "",
        "{",
        "[1]",
        line("cut", 1)[:80],
        line("a", 1, vector="%%%%"),
        line("a", 1, vector=base64.b64encode(bytes(6)).decode()),
        line("a", 1, vector=base64.b64encode(bytes(8)).decode()),
        line("a", 1, vector=base64.b64encode(np.full(4, np.nan, "<f2").tobytes()).decode()),
        line("a", 1, when="yesterday"),
        line("a", 1, when="2026-11-01T00:00:00"),
        line("a", 1, kind="video"),
        line("a" * MAX_LINE, 1)[: MAX_LINE - 1],
    ],
)
def test_a_damaged_line_is_counted_and_the_others_are_read(tmp_path: Path, damaged: str) -> None:
    write_log(tmp_path, [line("x", 0), damaged, line("y", 2)])
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=9)
    assert log.texts == ("x", "y")
    assert log.num_skipped == {"unreadable": 1}


def test_bytes_that_are_not_utf8_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xff\xfe\x00\n" + line("x", 0).encode())
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=9)
    assert (log.texts, log.num_skipped) == (("x",), {"unreadable": 1})


def test_an_empty_folder_has_no_queries_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    log = read_queries(tmp_path, encoders=ENCODERS, dim=4, max_queries=9)
    assert (log.texts, log.text_vectors.shape, log.image_vectors.shape) == ((), (0, 4), (0, 4))
    with pytest.raises(BadInput, match="no query log .*absent: `cots serve --log-queries"):
        read_queries(tmp_path / "absent", encoders=ENCODERS, dim=4, max_queries=9)
