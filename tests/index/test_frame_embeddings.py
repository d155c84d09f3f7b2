"""The best frame of a video, and thumbnails of frames."""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image

from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.thumbnails import Thumbnails, thumbnail_members

COUNTS = [3, 0, 7, 2, 0]  # frames of five items; 0: an image


@pytest.fixture
def vectors() -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rows = np.random.default_rng(0).normal(size=(sum(COUNTS), 8)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_the_best_frame_is_that_of_a_loop_over_the_frames_of_the_video(
    vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]],
) -> None:
    frames = FrameEmbeddings.of(vectors, COUNTS)
    for query in np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32):
        start = 0
        for item, count in enumerate(COUNTS):
            best, highest = 0, -np.inf
            for number in range(count):
                similarity = sum(float(a) * float(b) for a, b in zip(vectors[start + number], query, strict=True))
                if similarity > highest:
                    best, highest = number, similarity
            start += count
            assert frames.best_frame(item, query) == best


def test_the_embedding_of_a_frame_finds_that_frame(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    frames = FrameEmbeddings.of(vectors, COUNTS)
    assert [frames.best_frame(2, query) for query in vectors[3:10]] == list(range(7))


def test_the_earliest_of_equal_frames_is_the_best() -> None:
    frames = FrameEmbeddings.of(np.ones((4, 2), np.float32), [4])
    assert frames.best_frame(0, np.ones(2, np.float32)) == 0


@pytest.mark.parametrize("counts", [COUNTS, [0, 0, 0]])
def test_frames_are_read_as_they_were_written(
    tmp_path: Path, vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]], counts: list[int]
) -> None:
    frames = FrameEmbeddings.of(vectors[: sum(counts)], counts)
    frames.save(tmp_path / "frames.safetensors")
    loaded = FrameEmbeddings.load(tmp_path / "frames.safetensors")
    assert len(loaded) == len(counts)
    np.testing.assert_array_equal(loaded.vectors, frames.vectors)
    np.testing.assert_array_equal(loaded.starts, frames.starts)
    assert not (tmp_path / "frames.partial").exists()


def test_a_file_without_frame_embeddings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "frames.safetensors"
    with pytest.raises(ValueError, match="no frame embeddings"):
        FrameEmbeddings.load(path)
    path.write_bytes(b"-" * 100)
    with pytest.raises(ValueError, match="has no frame embeddings"):
        FrameEmbeddings.load(path)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """Thumbnails of two items, of two frames and of 1,002; frame n is of grey n modulo 200."""
    path = tmp_path / "thumbnails.tar"
    with wds.TarWriter(str(path), mtime=0, encoder=False) as writer:
        for row, count in enumerate((2, 1002)):
            frames = [Image.new("RGB", (8, 4), (n % 200,) * 3) for n in range(count)]
            writer.write(thumbnail_members(row, frames, side=4))
    return path


def test_every_frame_is_found_by_item_and_number(tar: Path) -> None:
    thumbnails = Thumbnails(tar)
    for row, frame in [(1, 1001), (0, 1), (1, 7), (0, 0), (1, 7)]:
        image = thumbnails.image(row, frame)
        assert image.getpixel((1, 1)) == (frame % 200,) * 3
        assert image.size == (4, 2)
        assert Image.open(io.BytesIO(thumbnails.jpeg(row, frame))).format == "JPEG"


def test_missing_and_damaged_thumbnails_are_errors(tar: Path, tmp_path: Path) -> None:
    thumbnails = Thumbnails(tar)
    for row, frame in [(2, 0), (0, 2), (-1, 0), (0, -1)]:
        with pytest.raises(ValueError, match=r"does not contain .*\.jpg"):
            thumbnails.jpeg(row, frame)
    with pytest.raises(ValueError, match="no thumbnails in"):
        Thumbnails(tmp_path / "absent.tar")
    start = tar.read_bytes().index(b"\xff\xd8")
    (tmp_path / "damaged.tar").write_bytes(tar.read_bytes()[:start] + bytes(8) + tar.read_bytes()[start + 8 :])
    with pytest.raises(ValueError, match="frame 0 of item 0 is damaged"):
        Thumbnails(tmp_path / "damaged.tar").image(0, 0)
    for size in (0, 700):
        (tmp_path / "damaged.tar").write_bytes(tar.read_bytes()[:size])
        with pytest.raises(ValueError, match="no thumbnails in"):
            Thumbnails(tmp_path / "damaged.tar")


def test_thumbnails_are_read_after_their_file_is_removed_and_by_several_threads(tar: Path) -> None:
    thumbnails = Thumbnails(tar)
    tar.unlink()
    with ThreadPoolExecutor(4) as pool:
        colours = list(pool.map(lambda frame: thumbnails.image(1, frame).getpixel((1, 1)), range(1002)))
    assert colours == [(frame % 200,) * 3 for frame in range(1002)]
