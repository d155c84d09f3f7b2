"""Frames of videos in training batches: one from each segment, drawn from seed and step."""

import dataclasses
import shutil
from collections import Counter
from itertools import count, islice
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from cots.container_limits import available_cores
from cots.data.crop_views import CropViews
from cots.data.frame_sampling import segments
from cots.data.images import encode_jpeg
from cots.data.languages import language_weights
from cots.data.loader import TrainLoader
from cots.data.samples import StoredSample
from cots.data.shards import read_shard, write_shard
from cots.data.streaming import prefetch
from cots.data.wordpiece import train_tokenizer
from cots.decode_threads import num_decode_threads
from cots.errors import BadInput

STORED = 9  # frames per video; frame n has the grey level 20 n
VIDEOS = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard of equal videos, with views that show the whole of frame 5."""
    folder = tmp_path_factory.mktemp("videos")
    frames = tuple(encode_jpeg(Image.new("RGB", (16, 16), (20 * n,) * 3)) for n in range(STORED))
    samples = [StoredSample(key=f"{n:09d}", id=f"{n}", captions=("a video",), frames=frames) for n in range(VIDEOS)]
    write_shard(folder / "video.tar", samples)
    views = CropViews(
        frames=np.full((VIDEOS, 1), 5, dtype=np.uint16),
        boxes=np.tile(np.array([0, 0, 1, 1], dtype=np.float32), (VIDEOS, 1, 1)),
        tokens=np.zeros((VIDEOS, 1, 4), dtype=np.uint16),
    )
    views.save(folder / "video.safetensors")
    return folder


def loader(folder: Path, *, frames: int, seed: int = 0, threads: int = 1) -> TrainLoader:
    return TrainLoader(
        shards=(folder / "video.tar",),
        views=(folder / "video.safetensors",),
        keys=np.arange(VIDEOS),
        caption_offsets=np.arange(VIDEOS + 1),
        shard_rows=(range(VIDEOS),),
        tokenizer=train_tokenizer(["a video"], vocab_size=50),
        max_tokens=8,
        batch_size=2,
        frames=frames,
        size=8,
        masking=None,
        seed=seed,
        threads=threads,
        num_views=1,
    )


def frame_indices(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Which stored frames a batch shows, (B, T), by their grey level."""
    grey: NDArray[np.float64] = frames.mean(axis=(2, 3, 4))
    return np.rint(grey / 20).astype(np.int64)


def shown(folder: Path, *, frames: int, steps: int, start: int = 0, seed: int = 0) -> list[NDArray[np.int64]]:
    batches = loader(folder, frames=frames, seed=seed).iter_from(start)
    return [frame_indices(arrays.frames) for arrays in islice(batches, steps)]


def test_a_damaged_frame_ends_training_with_the_name_of_its_sample(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "damaged")
    samples = list(read_shard(folder / "video.tar"))
    samples[2] = dataclasses.replace(samples[2], frames=tuple(frame[:100] for frame in samples[2].frames))
    write_shard(tmp_path / "damaged/video.tar", samples)
    with pytest.raises(BadInput, match="a stored frame of 2 is damaged .* run `dvc repro --force prepare`"):
        list(islice(loader(tmp_path / "damaged", frames=2).iter_from(0), 2))


@pytest.mark.parametrize("frames", [2, 4, STORED, 20])
def test_each_frame_of_a_batch_comes_from_its_own_segment(folder: Path, frames: int) -> None:
    for batch in shown(folder, frames=frames, steps=6):
        assert batch.shape == (2, frames)
        for video in batch:
            assert all(n in segment for n, segment in zip(video.tolist(), segments(STORED, frames), strict=True))


def test_every_stored_frame_is_shown_sooner_or_later(folder: Path) -> None:
    assert set(np.concatenate(shown(folder, frames=2, steps=40)).ravel().tolist()) == set(range(STORED))


def test_each_video_and_step_draws_its_own_frames(folder: Path) -> None:
    rows = {tuple(video.tolist()) for batch in shown(folder, frames=3, steps=8) for video in batch}
    assert len(rows) > 8  # of 16 videos shown, with 27 ways to draw three of nine


def test_frames_follow_from_seed_and_step_alone(folder: Path) -> None:
    straight = shown(folder, frames=3, steps=6)
    np.testing.assert_array_equal(straight, shown(folder, frames=3, steps=6))
    np.testing.assert_array_equal(straight[4:], shown(folder, frames=3, steps=2, start=4))
    assert not np.array_equal(straight, shown(folder, frames=3, steps=6, seed=1))


def test_threads_change_no_batch(folder: Path) -> None:
    for one_thread, five_threads in zip(
        islice(loader(folder, frames=3).iter_from(1), 30),
        loader(folder, frames=3, threads=5).iter_from(1),
        strict=False,
    ):
        for expected, actual in zip(one_thread, five_threads, strict=True):
            np.testing.assert_array_equal(expected, actual)


def test_samples_that_are_confused_share_a_batch_also_after_a_resume(folder: Path) -> None:
    pairs = dataclasses.replace(
        loader(folder, frames=1), hard_negatives=np.array([[-1, 2], [3, 0], [0, -1], [1, -1]]), hard_share=1.0
    )
    whole = [batch.image_index.tolist() for batch in islice(pairs.iter_from(0), 8)]
    assert {tuple(sorted(batch)) for batch in whole} == {(0, 2), (1, 3)}
    assert len({tuple(batch) for batch in whole}) > 2  # the order is still drawn
    assert [batch.image_index.tolist() for batch in islice(pairs.iter_from(3), 5)] == whole[3:]


@pytest.mark.parametrize("at_most", [1, 2])
def test_languages_are_drawn_by_their_weights_and_without_weights_as_captions_without_any(
    folder: Path, tmp_path: Path, at_most: int
) -> None:
    captions, languages = ("a video",) * 10, ("en",) * 9 + ("sw",)

    def drawn(tags: tuple[str, ...], weights: dict[str, float] | None, steps: int) -> NDArray[np.int64]:
        samples = [dataclasses.replace(s, captions=captions, languages=tags) for s in read_shard(folder / "video.tar")]
        write_shard(tmp_path / "video.tar", samples)
        batches = dataclasses.replace(
            loader(folder, frames=1),
            shards=(tmp_path / "video.tar",),
            caption_offsets=np.arange(0, 10 * VIDEOS + 1, 10),
            captions_per_sample=at_most,
            language_weights=weights,
        ).iter_from(0)
        return np.stack([batch.caption_index % 10 for batch in islice(batches, steps)])

    np.testing.assert_array_equal(drawn((), None, 20), drawn(languages, None, 20))
    np.testing.assert_array_equal(drawn((), {"": 1.0}, 20), drawn((), None, 20))
    counts = np.bincount(drawn(languages, language_weights(Counter(languages), 1e9), 100)[:, ::at_most].ravel())
    assert abs(counts[9] / counts.sum() - 0.5) < 0.1  # of 200 draws, standard deviation 0.035
    assert min(counts) > 0


def test_each_pair_comes_with_a_caption_in_another_language_and_nothing_else_changes(
    folder: Path, tmp_path: Path
) -> None:
    texts, tags = ("one", "two", "eins", "?"), ("en", "en", "de", "")
    samples = [dataclasses.replace(s, captions=texts, languages=tags) for s in read_shard(folder / "video.tar")]
    samples[0] = dataclasses.replace(samples[0], languages=("en",) * 4)  # in one language only
    write_shard(tmp_path / "video.tar", samples)
    plain = dataclasses.replace(
        loader(folder, frames=2),
        shards=(tmp_path / "video.tar",),
        caption_offsets=np.arange(0, 4 * VIDEOS + 1, 4),
        captions_per_sample=2,
        tokenizer=train_tokenizer(texts, vocab_size=50),
    )
    seen = set()
    for batch, without in zip(
        islice(dataclasses.replace(plain, translations=True).iter_from(0), 30), plain.iter_from(0), strict=False
    ):
        for name in ("image_index", "caption_index", "frames", "input_ids", "attention_mask"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(without, name))
        assert without.has_translation is None
        assert batch.translation_input_ids is not None
        assert batch.has_translation is not None
        others = plain.tokenizer.batch_decode(batch.translation_input_ids, skip_special_tokens=True)
        for image, caption, other, has in zip(
            batch.image_index, batch.caption_index % 4, others, batch.has_translation, strict=True
        ):
            seen.add((samples[image].languages[caption], other))
            assert has == (image != 0 and tags[caption] != "")
            assert has or other == texts[caption]
    translated = {(tag, other) for tag, other in seen if tag == "de"} | {("en", "eins")}
    assert translated == {("de", "one"), ("de", "two"), ("en", "eins")} <= seen


def test_processes_with_gpus_share_the_cores_for_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, cores = torch.device("cuda"), available_cores()
    assert num_decode_threads(torch.device("cpu")) == 1
    for processes in (1, 2, 10 * cores):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
        assert num_decode_threads(gpu) == min(8, max(1, cores // processes))


def test_as_many_items_as_threads_are_made_at_once_and_come_in_order() -> None:
    barrier = Barrier(3)

    def make(number: int) -> int:
        barrier.wait(timeout=60)  # for two others
        return -number

    assert list(islice(prefetch(count(), make, threads=3), 9)) == [-number for number in range(9)]


def test_an_error_while_an_item_is_made_is_raised_in_its_place() -> None:
    made = prefetch(count(), lambda number: 1 // (2 - number), threads=4)
    assert [next(made), next(made)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(made)


def test_a_single_frame_is_that_of_the_view(folder: Path) -> None:
    assert {n for batch in shown(folder, frames=1, steps=4) for n in batch.ravel().tolist()} == {5}


def test_a_video_of_more_than_a_thousand_frames_keeps_their_order(tmp_path: Path) -> None:
    frames = tuple(f"{n}".encode() for n in range(1203))
    write_shard(tmp_path / "a.tar", [StoredSample(key="000000000", id="a", captions=("a",), frames=frames)])
    [sample] = read_shard(tmp_path / "a.tar")
    assert sample.frames == frames
