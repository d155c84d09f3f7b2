"""What a single row of the manifest must be like, and the columns that this is checked by."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cots.data.manifest import MADE
from cots.data.samples import GALLERY, STORED_SPLITS, RejectReason
from cots.directions import MEDIA


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCheck:
    """What each value of a column must be like.

    Attributes:
        title: what is expected, in words; unique.
        limit: what is allowed, in words.
        column: that is checked, of those that `derive_columns` gives.
        passes: whether each value is as expected.
        max_failing: fraction of the values that may be otherwise.
    """

    title: str
    limit: str
    column: str
    passes: Callable[[pd.Series], pd.Series]
    max_failing: float = 0.0


def derive_columns(piece: pa.RecordBatch, suspected: pd.Series) -> pd.DataFrame:
    """Replace the lists of some rows of the manifest by counts.

    Args:
        piece: rows of the manifest.
        suspected: number of suspect captions, by id.

    Returns:
        `key`, `split`, `media`, `frames`, `width`, `height` and `bytes` as they are; `captions` and `wrong`: numbers;
        `part`: split and media, such as `train image`;
        `blank`: number of blank captions;
        `words`: of the longest caption;
        `flags_and_captions`: numbers of entries in `wrong` and `captions`;
        `uncaptioned`: whether it has no caption, outside `GALLERY`;
        `wrong_held_out`: `wrong` in val and test, 0 elsewhere;
        `made_held_out`: number of captions in val and test that were made from labels; only with a column `made`;
        `pixels`: width times height;
        `suspected`: number of captions that are suspects.
    """
    lists = [name for name in ("id", "captions", "wrong", MADE) if name in piece.schema.names]
    rows: pd.DataFrame = piece.drop_columns(lists).to_pandas()
    captions, flags = _lengths(piece["captions"]), _lengths(piece["wrong"])
    held_out = ~rows["split"].isin(["train", GALLERY])
    texts, owners = piece["captions"].flatten(), pc.list_parent_indices(piece["captions"]).to_numpy()
    blank = pc.or_(pc.utf8_is_space(texts), pc.equal(texts, ""))
    wrong = _count_flags(piece["wrong"])
    if MADE in lists:
        rows = rows.assign(made_held_out=np.where(held_out, _count_flags(piece[MADE]), 0))
    return rows.assign(
        part=rows["split"] + " " + rows["media"],
        captions=captions,
        blank=_sum_by_row(blank, owners, len(rows)),
        words=_most_words(texts, blank, owners, len(rows)),
        flags_and_captions=pd.Series(list(zip(flags.tolist(), captions.tolist(), strict=True)), dtype="object"),
        uncaptioned=(captions == 0) & (rows["split"] != GALLERY),
        wrong=wrong,
        wrong_held_out=np.where(held_out, wrong, 0),
        pixels=rows["width"].astype("int64") * rows["height"],
        suspected=piece["id"].to_pandas().map(suspected).fillna(0).astype("int64"),
    )


def _lengths(lists: pa.ListArray) -> NDArray[np.int32]:
    lengths: NDArray[np.int32] = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    return lengths


def _count_flags(flags: pa.ListArray) -> NDArray[np.int64]:
    return _sum_by_row(flags.flatten(), pc.list_parent_indices(flags).to_numpy(), len(flags))


def _sum_by_row(flags: pa.BooleanArray, owners: NDArray[np.int64], num_rows: int) -> NDArray[np.int64]:
    return np.bincount(owners[flags.to_numpy(zero_copy_only=False)], minlength=num_rows)


def _most_words(
    texts: pa.StringArray, blank: pa.BooleanArray, owners: NDArray[np.int64], num_rows: int
) -> NDArray[np.int64]:
    """Number of words of each row's longest caption."""
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)))
    most = np.zeros(num_rows, np.int64)
    np.maximum.at(most, owners, pc.if_else(blank, 0, words).to_numpy(zero_copy_only=False))
    return most


def manifest_checks(
    *,
    min_side: int,
    max_pixels: int,
    max_frames: int,
    max_words: int,
    max_long: float,
    max_suspects: float,
    has_made: bool = False,
) -> list[RowCheck]:
    """What the rows of a manifest must be like.

    Args:
        min_side: of the originals, pixels.
        max_pixels: of the originals.
        max_frames: of a sample.
        max_words: a caption with more is long.
        max_long: fraction of samples with a long caption.
        max_suspects: fraction of samples with a caption that a trained filter distrusts.
        has_made: whether captions were made from labels.
    """
    made = _check("val and test have no made captions", "none", "made_held_out", lambda made: made == 0)
    words = f"at most {max_words} words, but for {max_long:.2%} of the samples"
    return [
        _check("keys have nine digits or more", "all", "key", lambda key: key.str.fullmatch(r"\d{9,}")),
        _check("splits are known", ", ".join(STORED_SPLITS), "split", lambda split: split.isin(STORED_SPLITS)),
        _check("media are known", ", ".join(MEDIA), "media", lambda media: media.isin(MEDIA)),
        _check("every sample of a split has a caption", "all", "uncaptioned", lambda uncaptioned: ~uncaptioned),
        _check("no caption is blank", "none", "blank", lambda blank: blank == 0),
        _check("captions are short", words, "words", lambda number: number <= max_words, max_long),
        _check(
            "every caption is flagged as right or wrong",
            "all",
            "flags_and_captions",
            lambda pairs: pairs.map(lambda pair: pair[0] == pair[1]).astype(bool),
        ),
        _check("val and test have no wrong captions", "none", "wrong_held_out", lambda wrong: wrong == 0),
        *([made] if has_made else []),
        _check("images are wide enough", f"at least {min_side} pixels", "width", lambda width: width >= min_side),
        _check("images are high enough", f"at least {min_side} pixels", "height", lambda height: height >= min_side),
        _check(
            "images are not too large", f"at most {max_pixels} pixels", "pixels", lambda pixels: pixels <= max_pixels
        ),
        _check("samples have frames", f"1 to {max_frames}", "frames", lambda frames: frames.between(1, max_frames)),
        _check("no sample is empty", "at least 1 byte", "bytes", lambda size: size >= 1),
        _check(
            "captions are not distrusted by a trained filter",
            f"at most {max_suspects:.2%}",
            "suspected",
            lambda number: number == 0,
            max_suspects,
        ),
    ]


def reject_check() -> RowCheck:
    """What a row of the rejected samples must be like."""
    reasons = get_args(RejectReason)
    title = "rejections have a known reason"
    return _check(title, f"{len(reasons)} reasons", "reason", lambda reason: reason.isin(reasons))


def _check(
    title: str, limit: str, column: str, passes: Callable[[pd.Series], pd.Series], max_failing: float = 0.0
) -> RowCheck:
    return RowCheck(title=title, limit=limit, column=column, passes=passes, max_failing=max_failing)
