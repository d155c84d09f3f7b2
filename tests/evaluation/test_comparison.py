"""Tables of queries read back and held against each other."""

from pathlib import Path

import pandas as pd
import pytest

from cots.errors import BadInput
from cots.evaluation.comparison import compare_query_tables, query_tables


def table(ranks: list[int], direction: str = "t2i") -> pd.DataFrame:
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
        }
    )


def queries(to_items: list[int], ways: tuple[str, str] = ("i2t", "t2i")) -> pd.DataFrame:
    to_texts = table(to_items[::2], ways[0])
    names = [f"p{row}" for row in range(len(to_texts))]
    return pd.concat([to_texts.assign(query=names, item=names, relevant=2), table(to_items, ways[1])])


def written(path: Path, rows: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows.to_parquet(path, index=False)
    return path


def test_the_order_of_the_rows_changes_nothing() -> None:
    ours, theirs = queries([1, 7, 2, 1, 30, 1]), queries([1, 1, 4, 11, 2, 9])
    straight = compare_query_tables([ours], [theirs], resamples=30, seed=0)
    shuffled = compare_query_tables([ours.sample(frac=1, random_state=0)], [theirs.iloc[::-1]], resamples=30, seed=0)
    assert straight == shuffled
    assert straight["t2i"]["R@1"]["challenger"] == pytest.approx(50)
    assert straight["t2i"]["R@1"]["champion"] == pytest.approx(100 / 3)
    assert straight["i2t"]["R@1"]["difference"] == 0


def test_tables_of_other_queries_or_candidates_are_refused() -> None:
    rows = queries([1, 2, 3, 4])
    with pytest.raises(BadInput, match="6 queries are in one of them alone"):
        compare_query_tables([rows], [queries([1, 2, 3, 4, 5, 6, 7, 8])], resamples=3, seed=0)
    with pytest.raises(BadInput, match="the same queries had other candidates"):
        compare_query_tables([rows], [rows.assign(candidates=51)], resamples=3, seed=0)
    with pytest.raises(BadInput, match="in pairs, not 2 with 1"):
        compare_query_tables([rows, rows], [rows], resamples=3, seed=0)


def test_runs_are_found_below_a_folder_by_target(tmp_path: Path) -> None:
    for seed, best in ((1, 9), (0, 5)):
        written(tmp_path / f"seed-{seed}" / "reports" / "image-text.parquet", queries([best, 2]))
    written(tmp_path / "seed-0" / "reports" / "video-text.parquet", queries([3, 4], ("v2t", "t2v")))
    pd.DataFrame({"id": ["a"]}).to_parquet(tmp_path / "manifest.parquet")
    found = query_tables(tmp_path)
    assert {target: [run["rank"].max() for run in runs] for target, runs in found.items()} == {
        "image-text": [5, 9],
        "video-text": [4],
    }


def test_a_single_table_may_have_any_name(tmp_path: Path) -> None:
    found = query_tables(written(tmp_path / "mine.parquet", queries([3, 4], ("v2t", "t2v"))))
    assert list(found) == ["video-text"]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (pd.DataFrame({"id": ["a"]}), "is no table of queries"),
        (queries([1, 2]).drop(columns="average_precision"), "is no table of queries"),
        (queries([1, 2]).assign(rank="first"), "is no table of queries"),
        (table([1, 2]), "no whole table of queries"),
        (pd.concat([queries([1, 2])] * 2), "no whole table of queries"),
        (queries([1, 2]).assign(rank=[1.0, 2.0, float("nan")]), "no whole table of queries"),
        (queries([1, 2], ("a", "b")), "no whole table of queries"),
    ],
)
def test_other_tables_are_told_in_one_line(tmp_path: Path, rows: pd.DataFrame, told: str) -> None:
    with pytest.raises(BadInput, match=told) as raised:
        query_tables(written(tmp_path / "image-text.parquet", rows))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["figures.json", "cut.parquet"])
def test_another_file_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(BadInput, match=f"{name} is no table of queries"):
        query_tables(tmp_path / name)
