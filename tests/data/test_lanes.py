"""Each process reads, tokenizes and decodes its share of every batch alone, and a resume reads nothing of the past."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cots.data.crop_views import CropViews
from cots.data.hard_negative_order import HardNegativeOrder
from cots.data.images import encode_jpeg
from cots.data.loader import Masking, NumpyBatch, TrainLoader
from cots.data.random_crops import RandomCrops
from cots.data.sample_order import LANES, SampleOrder
from cots.data.samples import StoredSample
from cots.data.shards import ShardReader, write_shard
from cots.data.stored_frames import open_frame
from cots.data.token_batch import TokenBatch, tokenize
from cots.data.wordpiece import train_tokenizer
from cots.errors import BadInput

SHARDS, PER_SHARD, BATCH, STEPS = 8, 9, 24, 4  # more than an epoch
WORDS = ["red", "green", "blue", "dog", "cat", "bus"]


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> TrainLoader:
    """Eight shards of small videos, each with one to four captions of its own."""
    folder, rng = tmp_path_factory.mktemp("lanes"), np.random.default_rng(0)
    frames = [encode_jpeg(Image.new("RGB", (8, 8), (40 * n,) * 3)) for n in range(6)]
    captions = [
        tuple(" ".join(rng.choice(WORDS, n % 5 + 1)) for _ in range(n % 4 + 1)) for n in range(SHARDS * PER_SHARD)
    ]
    for shard in range(SHARDS):
        numbers = range(shard * PER_SHARD, (shard + 1) * PER_SHARD)
        samples = [
            StoredSample(
                key=f"{n:09d}",
                id=f"{n}",
                captions=captions[n],
                frames=tuple(frames[: n % 6 + 1]),
                languages=("en", "de", "de", "en")[: len(captions[n])],
            )
            for n in numbers
        ]
        write_shard(folder / f"{shard}.tar", samples)
        views = CropViews(
            frames=np.zeros((PER_SHARD, 2), np.uint16),
            boxes=np.tile(np.array([0, 0, 1, 1], np.float32), (PER_SHARD, 2, 1)),
            tokens=rng.integers(0, 99, (PER_SHARD, 2, 16)).astype(np.uint16),
        )
        views.save(folder / f"{shard}.safetensors")
    return TrainLoader(
        shards=tuple(folder / f"{shard}.tar" for shard in range(SHARDS)),
        views=tuple(folder / f"{shard}.safetensors" for shard in range(SHARDS)),
        shard_rows=tuple(range(shard * PER_SHARD, (shard + 1) * PER_SHARD) for shard in range(SHARDS)),
        keys=np.arange(SHARDS * PER_SHARD),
        caption_offsets=np.cumsum([0, *map(len, captions)]),
        tokenizer=train_tokenizer(list(chain(*captions)), vocab_size=80),
        max_tokens=9,
        batch_size=BATCH,
        frames=2,
        size=8,
        masking=Masking(grid=4, num_masked=6, min_block=2, mlm_probability=0.4),
        seed=0,
        threads=1,
        num_views=2,
    )


@contextmanager
def rank_of(rank: int, world_size: int) -> Iterator[None]:
    """This process as one of several, without the others."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cots.distributed.rank", lambda: rank)
        patch.setattr("cots.distributed.world_size", lambda: world_size)
        yield


@dataclass
class Work:
    """What loaders have done: ids of samples, texts and names of shards."""

    read: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)
    tokenized: list[str] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> Work:
    """What is done from now on, counted where it is done."""
    done, read, init = Work(), ShardReader.__getitem__, ShardReader.__init__

    def read_and_count(shard: ShardReader, row: int) -> StoredSample:
        sample = read(shard, row)
        done.read.append(sample.id)
        return sample

    def open_and_count(shard: ShardReader, path: Path) -> None:
        done.opened.append(path.stem)
        init(shard, path)

    def decode_and_count(sample: StoredSample, index: int) -> Image.Image:
        done.decoded.append(sample.id)
        return open_frame(sample, index)

    def tokenize_and_count(tokenizer: Any, texts: list[str], **limits: Any) -> TokenBatch:
        done.tokenized += texts
        return tokenize(tokenizer, texts, **limits)

    monkeypatch.setattr(ShardReader, "__getitem__", read_and_count)
    monkeypatch.setattr(ShardReader, "__init__", open_and_count)
    monkeypatch.setattr("cots.data.loader.open_frame", decode_and_count)
    monkeypatch.setattr("cots.data.loader.tokenize", tokenize_and_count)
    return done


def pairs_of(batch: NumpyBatch) -> list[tuple[Any, ...]]:
    """All that a batch says of each of its pairs, without padding."""
    filled = batch.attention_mask.sum(axis=1)
    by_pair: list[Any] = [batch.image_index, batch.caption_index]
    texts = [batch.input_ids, batch.mlm_input_ids, batch.mlm_mask]
    if batch.translation_input_ids is not None and batch.translation_attention_mask is not None:
        by_pair += [batch.has_translation, (batch.translation_input_ids * batch.translation_attention_mask).sum(axis=1)]
    by_sample: list[Any] = [batch.frames, batch.bool_masked_pos, batch.visual_tokens]
    by_sample += [] if batch.other_frames is None else [batch.other_frames]
    return [
        (
            *(values[row].item() for values in by_pair),
            *(values[row, : filled[row]].tolist() for values in texts),
            *(values[batch.frame_row[row]].tolist() for values in by_sample),
        )
        for row in range(len(filled))
    ]


VARIANTS: dict[str, dict[str, Any]] = {
    "one caption": {},
    "several captions": {"captions_per_sample": 2, "translations": True, "two_crops": True},
    "by language": {"captions_per_sample": 2, "language_weights": {"en": 1.0, "de": 3.0}},
    "hard negatives": {"hard_negatives": np.roll(np.arange(SHARDS * PER_SHARD), 30)[:, None], "hard_share": 0.7},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("world_size", [2, 5])
def test_processes_together_have_the_batches_of_one(loader: TrainLoader, variant: str, world_size: int) -> None:
    loader = replace(loader, **VARIANTS[variant])
    together: list[list[Any]] = [[] for _ in range(STEPS)]
    for rank in range(world_size):
        with rank_of(rank, world_size):
            for pairs, batch in zip(together, loader.iter_from(0), strict=False):
                pairs += pairs_of(batch)
    for pairs, batch in zip(together, loader.iter_from(0), strict=False):
        assert pairs == pairs_of(batch)


@pytest.mark.parametrize("world_size", [1, 2, 4, 8])
def test_a_process_reads_tokenizes_and_decodes_its_share_alone(
    loader: TrainLoader, world_size: int, work: Work
) -> None:
    shards = set()
    for rank in range(world_size):
        with rank_of(rank, world_size):
            first = vars(Work()) | {name: len(done) for name, done in vars(work).items()}
            order, opened = loader.order(), loader.open_shards()
            for step in range(STEPS):
                loader.decode(loader.collate(order.batch(step), step, opened))
            counts = {name: len(done) - first[name] for name, done in vars(work).items()}
            assert counts["read"] == counts["tokenized"] == STEPS * BATCH // world_size
            assert counts["decoded"] == loader.frames * STEPS * BATCH // world_size
            epochs = 1 + STEPS * BATCH // (SHARDS * PER_SHARD)
            assert counts["opened"] <= epochs * (SHARDS // world_size + 1)
            shards |= set(work.opened[first["opened"] :])
    assert len(shards) == SHARDS


@pytest.mark.parametrize("step", [0, 1, 2, 3, 100])
def test_a_resume_reads_its_first_batch_alone(loader: TrainLoader, step: int, work: Work) -> None:
    with rank_of(1, 2):
        batch = loader.decode(loader.collate(loader.order().batch(step), step, loader.open_shards()))
    assert work.read == [str(index) for index in batch.image_index]
    assert len(work.opened) <= 1 + SHARDS // 2


def test_every_batch_can_be_the_first(loader: TrainLoader) -> None:
    straight = [pairs_of(batch) for batch in islice(loader.iter_from(0), STEPS)]
    assert [pairs_of(next(loader.iter_from(step))) for step in range(STEPS)] == straight


@pytest.mark.parametrize("sizes", [[1], [10], [3, 500, 1, 40], [7] * 200, [1000, 1000, 17]])
@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_an_epoch_takes_each_sample_once_in_an_order_of_its_own(sizes: list[int], batch_size: int) -> None:
    batch_size = min(batch_size, sum(sizes))
    ends = np.cumsum(sizes).tolist()
    shard_rows = [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]
    orders = []
    for order in (
        SampleOrder(shard_rows, batch_size=batch_size, seed=0),
        HardNegativeOrder(
            shard_rows,
            batch_size=batch_size,
            seed=0,
            keys=np.arange(ends[-1]),
            nearest=np.arange(ends[-1])[::-1, None],
            share=0.5,
        ),
    ):
        batches = ends[-1] // batch_size
        for epoch in range(2):
            places = [order.batch(epoch * batches + number) for number in range(batches)]
            index = np.concatenate([place.image_index for place in places])
            assert len(set(index.tolist())) == len(index) == batches * batch_size
            for place in places:
                assert place.epoch == epoch
                assert [shard_rows[shard][row] for shard, row in zip(place.shards, place.rows, strict=True)] == (
                    place.image_index.tolist()
                )
            orders.append(index.tolist())
    assert len({tuple(order) for order in orders}) == (4 if ends[-1] > 1 else 1)


def test_a_batch_mixes_all_lanes_and_no_position_stays_in_a_shard() -> None:
    order = SampleOrder([range(n * 50, n * 50 + 50) for n in range(128)], batch_size=LANES * 2, seed=0)
    batches = [order.batch(step) for step in range(50 * 2)]  # two epochs
    assert {len(set(batch.shards.tolist())) for batch in batches} == {LANES}
    assert all(len(set(shards)) > 2 for shards in np.stack([batch.shards for batch in batches]).T.tolist())


def test_views_of_another_shard_and_samples_of_another_manifest_are_refused(
    loader: TrainLoader, tmp_path: Path
) -> None:
    views = CropViews.load(loader.views[0])
    views._replace(frames=views.frames[1:]).save(tmp_path / "a.safetensors")
    with pytest.raises(BadInput, match=r"a.safetensors has views of 8 samples, .*0.tar has 9: .* tokenize"):
        list(replace(loader, views=(tmp_path / "a.safetensors", *loader.views[1:])).read_views(0, 0))
    with pytest.raises(BadInput, match=r"sample '\d+' in .*.tar is not the one of the manifest: run .* prepare"):
        next(replace(loader, keys=loader.keys + 1).iter_from(0))


@pytest.fixture
def crops(loader: TrainLoader) -> RandomCrops:
    """The crops of the dVAE from the same shards."""
    return RandomCrops(
        shards=loader.shards,
        shard_rows=loader.shard_rows,
        batch_size=BATCH,
        size=8,
        scale=(0.5, 1.0),
        ratio=(0.75, 1.33),
        seed=0,
        threads=1,
    )


@pytest.mark.parametrize("world_size", [2, 5, 8])
def test_processes_together_have_the_crops_of_one_and_each_reads_its_share(
    crops: RandomCrops, world_size: int, work: Work
) -> None:
    alone = [*islice(crops.iter_from(0, slice(None)), STEPS)]
    parts = []
    for share in (slice(BATCH * rank // world_size, BATCH * (rank + 1) // world_size) for rank in range(world_size)):
        work.read.clear()
        parts.append([*islice(crops.iter_from(0, share), STEPS)])
        size = share.stop - share.start
        assert STEPS * size <= len(work.read) <= (STEPS + 1) * size  # one batch is made ahead
    for step, whole in enumerate(alone):
        np.testing.assert_array_equal(np.concatenate([part[step] for part in parts]), whole)


def test_a_resumed_dvae_has_the_crops_of_an_undisturbed_one_and_reads_none_of_the_past(
    crops: RandomCrops, work: Work
) -> None:
    straight = [*islice(crops.iter_from(0, slice(None)), STEPS)]
    for step in range(STEPS):
        work.read.clear()
        np.testing.assert_array_equal(next(crops.iter_from(step, slice(None))), straight[step])
        assert len(work.read) <= 2 * BATCH  # one batch is made ahead
    assert len({batch.tobytes() for batch in straight}) == STEPS


def test_a_shard_of_another_manifest_is_refused_by_the_dvae(crops: RandomCrops) -> None:
    rows = (range(PER_SHARD - 1), *crops.shard_rows[1:])
    with pytest.raises(BadInput, match=r"0.tar has 9 samples, the manifest 8: run `dvc repro --force prepare`"):
        [*islice(replace(crops, shard_rows=rows).iter_from(0, slice(None)), 2)]
