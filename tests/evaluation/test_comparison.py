"""Query tables: reading and comparing them."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cots.errors import BadInput
from cots.evaluation.comparison import compare_query_tables, query_tables


def texts_to_items(ranks: list[int], direction: str = "t2i") -> pd.DataFrame:
    rows = range(len(ranks))
    return pd.DataFrame(
        {
            "direction": direction,
            "query": [f"p{row // 2}#{row % 2}" for row in rows],
            "item": [f"p{row // 2}" for row in rows],
            "rank": ranks,
            "relevant": 1,
            "candidates": 50,
            "average_precision": [float(rank == 1) for rank in ranks],
            "right_ranks": [[rank] for rank in ranks],
        }
    )


def table(ranks: list[int], directions: tuple[str, str] = ("i2t", "t2i")) -> pd.DataFrame:
    """Both directions; `ranks` are those of the texts, and every other one that of an item."""
    items = texts_to_items(ranks[::2], directions[0])
    names = [f"p{row}" for row in range(len(items))]
    items = items.assign(query=names, item=names, relevant=2)
    items["right_ranks"] = [[rank, rank + 1] for rank in items["rank"]]
    return pd.concat([items, texts_to_items(ranks, directions[1])])


def with_right_ranks(rows: pd.DataFrame, right_ranks: list[list[int] | None]) -> pd.DataFrame:
    return rows.assign(right_ranks=np.fromiter(right_ranks, dtype=object))


def save(path: Path, rows: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)
    return path


def test_the_order_of_the_rows_changes_nothing() -> None:
    ours, theirs = table([1, 7, 2, 1, 30, 1]), table([1, 1, 4, 11, 2, 9])
    in_order = compare_query_tables([ours], [theirs], resamples=30, seed=0)
    shuffled = compare_query_tables([ours.sample(frac=1, random_state=0)], [theirs.iloc[::-1]], resamples=30, seed=0)
    assert in_order == shuffled
    assert in_order["t2i"]["R@1"]["challenger"] == pytest.approx(50)
    assert in_order["t2i"]["R@1"]["champion"] == pytest.approx(100 / 3)
    assert in_order["i2t"]["R@1"]["difference"] == 0


def test_tables_of_other_queries_or_candidates_are_refused() -> None:
    rows = table([1, 2, 3, 4])
    with pytest.raises(BadInput, match="6 queries are in only one of them"):
        compare_query_tables([rows], [table([1, 2, 3, 4, 5, 6, 7, 8])], resamples=3, seed=0)
    with pytest.raises(BadInput, match="the same queries had other candidates"):
        compare_query_tables([rows], [rows.assign(candidates=51)], resamples=3, seed=0)
    with pytest.raises(BadInput, match="in pairs, not 2 with 1"):
        compare_query_tables([rows, rows], [rows], resamples=3, seed=0)


def test_runs_are_found_below_a_folder_by_target(tmp_path: Path) -> None:
    for seed, rank in ((1, 9), (0, 5)):
        save(tmp_path / f"seed-{seed}" / "reports" / "image-text.parquet", table([rank, 2]))
    save(tmp_path / "seed-0" / "reports" / "video-text.parquet", table([3, 4], ("v2t", "t2v")))
    pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / "manifest.parquet")
    tables = query_tables(tmp_path)
    assert {target: [run["rank"].max() for run in runs] for target, runs in tables.items()} == {
        "image-text": [5, 9],
        "video-text": [4],
    }


def test_a_single_table_may_have_any_name(tmp_path: Path) -> None:
    tables = query_tables(save(tmp_path / "mine.parquet", table([3, 4], ("v2t", "t2v"))))
    assert list(tables) == ["video-text"]


def test_a_table_of_release_0_1_is_read(tmp_path: Path) -> None:
    old = table([3, 4]).drop(columns="right_ranks")
    [read] = query_tables(save(tmp_path / "image-text.parquet", old))["image-text"]
    assert read["rank"].tolist() == old["rank"].tolist()
    [with_right_ranks] = query_tables(save(tmp_path / "image-text.parquet", table([3, 4])))["image-text"]
    assert [list(ranks) for ranks in with_right_ranks["right_ranks"]] == [[3, 4], [3], [4]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (pd.DataFrame({"id": ["a"]}), "is not a query table"),
        (table([1, 2]).drop(columns="average_precision"), "is not a query table"),
        (table([1, 2]).assign(rank="first"), "is not a query table"),
        (texts_to_items([1, 2]), "not a complete query table"),
        (pd.concat([table([1, 2])] * 2), "not a complete query table"),
        (table([1, 2]).assign(rank=[1.0, 2.0, float("nan")]), "not a complete query table"),
        (table([1, 2], ("a", "b")), "not a complete query table"),
        (with_right_ranks(table([1, 2]), [[1], [1], [2]]), "must have a rank per right candidate"),
        (with_right_ranks(table([1, 2]), [None, [1], [2]]), "not a complete query table"),
    ],
)
def test_other_tables_are_refused_in_one_line(tmp_path: Path, rows: pd.DataFrame, message: str) -> None:
    with pytest.raises(BadInput, match=message) as raised:
        query_tables(save(tmp_path / "image-text.parquet", rows))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["figures.json", "cut.parquet"])
def test_another_file_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(BadInput, match=f"{name} is not a query table"):
        query_tables(tmp_path / name)
