"""Loading: training batches from our shards against a folder of files and litdata, the same pictures and crops.

Drawn photographs of 320 x 240 pixels as JPEG. Ours are read as training reads them, with captions, masks and visual
tokens, once as `prepare` stores them for streams of 64 pixels (shorter side of 80), once at their full size. The peers
decode with Pillow and cut by torchvision, in one process. The limit is decoding alone. `python -m benchmarks.loading
threads` prints instead what more threads give ours for streams of 224 pixels.
"""

import io
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks._rounds import Call, in_turn, times_faster
from cots.config.params import Params
from cots.data.loader import TrainLoader
from cots.factory.model import build_model
from cots.factory.train_loader import build_train_loader
from cots.models.dvae.io import save_dvae
from cots.models.dvae.vae import Dvae
from cots.stages import prepare, tokenize

SIDES, QUALITY, BATCH = (320, 240), 90, 64


def main(pictures: int = 2_048, rounds: int = 5) -> None:
    """Print pictures a second of each, and of decoding alone."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = drawn(folder / "pictures", pictures)
        batches = pictures // BATCH
        calls: dict[str, Call] = {
            "ours, as prepared": _epoch(training_shards(folder, size=80), batches),
            "ours, full size": _epoch(training_shards(folder, size=240), batches),
            "folder, DataLoader": partial(_spend, DataLoader(Files(files), batch_size=BATCH, shuffle=True)),
            "litdata": optimized(folder / "litdata", files),
            "decoding alone": lambda: [np.asarray(Image.open(file)) for file in files],
        }
        seconds = in_turn(calls, rounds=rounds)
    print(f"{pictures:,} pictures of {SIDES[0]} x {SIDES[1]}, crops of 64, one process, {rounds} rounds")
    for called, taken in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds["ours, as prepared"], taken, strict=True))
        print(f"  {called:<20} {pictures / statistics.median(taken):8,.0f} pictures/s   ours is x{ratio:.2f} as fast")


def threads(pictures: int = 4_096, batch: int = 256, side: int = 224, rounds: int = 3) -> None:
    """Print pictures a second by the number of threads that decode, for streams of ViT-B/16's size."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        drawn(folder / "pictures", pictures)
        reading = training_shards(folder, size=240, batch_size=batch, side=side)
        counts = [1 << power for power in range(6) if 1 << power <= len(os.sched_getaffinity(0))]
        calls = {str(count): _epoch(replace(reading, threads=count), pictures // batch) for count in counts}
        seconds = in_turn(calls, rounds=rounds)
    print(f"{pictures:,} pictures of {SIDES[0]} x {SIDES[1]}, crops of {side}, {rounds} rounds")
    for count, ratio in times_faster(seconds, than="1").items():
        rate = pictures / statistics.median(seconds[count])
        print(f"  {count:>2} threads {rate:8,.0f} pictures/s   x{ratio:.2f}")


def smoke() -> None:
    """Few pictures, one round."""
    main(pictures=128, rounds=1)


def drawn(folder: Path, count: int) -> list[Path]:
    """Smooth noise with edges, which takes about as many bytes as a photograph."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    files = [folder / f"{number}.jpg" for number in range(count)]
    for file in files:
        coarse = Image.fromarray(rng.integers(256, size=(30, 40, 3), dtype=np.uint8)).resize(SIDES)
        fine = rng.normal(scale=6, size=(SIDES[1], SIDES[0], 1))
        Image.fromarray(np.clip(np.asarray(coarse) + fine, 0, 255).astype(np.uint8)).save(file, quality=QUALITY)
    captions = {"image": [file.name for file in files], "caption": "a photograph of nothing", "split": "train"}
    pd.DataFrame(captions).to_csv(folder / "captions.csv", index=False)
    return files


def training_shards(folder: Path, *, size: int, batch_size: int = BATCH, side: int = 64) -> TrainLoader:
    """Training batches of what `prepare` and `tokenize` make of the pictures."""
    made, params = folder / f"shards-{size}", Params.load()
    source = {"kind": "folder", "path": str(folder / "pictures"), "seed": 0, "holdout": {"val": 0.0, "test": 0.0}}
    values: dict[str, Any] = params.model_dump(mode="json", by_alias=True) | {"source": source}
    values["prepare"] |= {"size": size}
    values["tokenize"] |= {"crops_per_image": 1}
    values["pretrain"] |= {"batch_size": batch_size}
    values["model"]["image"] |= {"size": side} | ({"patch": 16} if side > 64 else {})
    params = Params.model_validate(values)
    paths = made / "shards", made / "manifest.parquet", made / "rejected.parquet"
    withdrawn = made / "withdrawn.csv"
    made.mkdir()
    withdrawn.write_text("id,when,reason\n")
    prepare.stage(folder / "pictures", withdrawn, *paths, params=params)
    save_dvae(Dvae(num_codes=params.dvae.codebook_size, hidden=8, blocks=1), made / "dvae")
    tokenize.stage(*paths[:2], made / "dvae", made / "tokens", made / "tokenizer", params=params)
    model = build_model(params.model, made / "tokenizer")
    return build_train_loader(
        paths[1], paths[0], made / "tokens", model=model, training=params.pretrain, media=("image",)
    )


def _epoch(reading: TrainLoader, batches: int) -> Call:
    return lambda: [len(batch.image_index) for batch in islice(reading.iter_from(0), batches)]


class Files(Dataset[Tensor]):
    """Pictures in a folder, cut at random."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.cut = files, v2.RandomResizedCrop(64, scale=(0.6, 1.0))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        return tensor(self.cut(Image.open(self.files[row]).convert("RGB")))


def tensor(picture: Image.Image) -> Tensor:
    """(H, W, 3) bytes."""
    return torch.from_numpy(np.array(picture))


def optimized(folder: Path, files: list[Path]) -> Call:
    """Litdata's chunks of the same files, read with its own loader and cut at random."""
    import litdata  # `threads` goes without

    litdata.optimize(
        _bytes, [str(file) for file in files], str(folder), chunk_bytes="16MB", num_workers=1, verbose=False
    )
    cut = v2.RandomResizedCrop(64, scale=(0.6, 1.0))

    def opened(data: bytes) -> Tensor:
        return tensor(cut(Image.open(io.BytesIO(data)).convert("RGB")))

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, transform=opened)
    return partial(_spend, litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0))


def _bytes(file: str) -> bytes:
    return Path(file).read_bytes()


def _spend(batches: Any) -> list[NDArray[np.uint8] | Tensor]:  # noqa: ANN401  a loader of either library
    read: Iterator[Tensor] = iter(batches)
    return list(read)


if __name__ == "__main__":
    threads() if sys.argv[1:] == ["threads"] else main()
