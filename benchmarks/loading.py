"""Loading: training batches from our shards, from a folder of files and from litdata, with the same images and crops.

Synthetic photographs of 320 x 240 pixels as JPEG. Ours are read as in training, with captions, masks and visual tokens,
once as `prepare` stores them for encoders of 64 pixels (shorter side of 80), once at full size. The other libraries
decode with Pillow and crop with torchvision, in one process. Decoding alone is the upper limit.
`python -m benchmarks.loading threads` instead measures ours with several threads, for encoders of 224 pixels.
`python -m benchmarks.loading processes` measures ours in several processes, each of which makes its share of a batch.
"""

import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
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

from benchmarks._rounds import Call, interleave, times_faster
from cots.config.params import Params
from cots.data.loader import TrainLoader
from cots.distributed import all_gather_object, barrier, rank
from cots.factory.model import build_model
from cots.factory.train_loader import build_train_loader
from cots.init_distributed import init_distributed
from cots.models.dvae.io import save_dvae
from cots.models.dvae.vae import Dvae
from cots.stages import prepare, tokenize

SIDES, QUALITY, BATCH = (320, 240), 90, 64


def main(images: int = 2_048, rounds: int = 5) -> None:
    """Print images per second of each, and of decoding alone."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = write_photographs(folder / "images", images)
        batches = images // BATCH
        calls: dict[str, Call] = {
            "ours, as prepared": _epoch(build_loader(folder, size=80), batches),
            "ours, full size": _epoch(build_loader(folder, size=240), batches),
            "folder, DataLoader": partial(_read_all, DataLoader(Files(files), batch_size=BATCH, shuffle=True)),
            "litdata": litdata_epoch(folder / "litdata", files),
            "decoding alone": lambda: [np.asarray(Image.open(file)) for file in files],
        }
        seconds = interleave(calls, rounds=rounds)
    print(f"{images:,} images of {SIDES[0]} x {SIDES[1]}, crops of 64, one process, {rounds} rounds")
    for name, times in seconds.items():
        ratio = statistics.median(b / a for a, b in zip(seconds["ours, as prepared"], times, strict=True))
        print(f"  {name:<20} {images / statistics.median(times):8,.0f} images/s   ours is x{ratio:.2f} as fast")


def threads(images: int = 4_096, batch: int = 256, side: int = 224, rounds: int = 3) -> None:
    """Print images per second by the number of decoding threads, for crops as ViT-B/16 needs them."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder / "images", images)
        loader = build_loader(folder, size=240, batch_size=batch, side=side)
        counts = [1 << power for power in range(6) if 1 << power <= len(os.sched_getaffinity(0))]
        calls = {str(count): _epoch(replace(loader, threads=count), images // batch) for count in counts}
        seconds = interleave(calls, rounds=rounds)
    print(f"{images:,} images of {SIDES[0]} x {SIDES[1]}, crops of {side}, {rounds} rounds")
    for count, ratio in times_faster(seconds, than="1").items():
        rate = images / statistics.median(seconds[count])
        print(f"  {count:>2} threads {rate:8,.0f} images/s   x{ratio:.2f}")


def processes(images: int = 4_096, batch: int = 256, rounds: int = 3) -> None:
    """Print CPU time of each process for a sample of the whole batch, and samples per second of all together."""
    counts = (1, 2, 4)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_photographs(folder / "images", images)
        build_loader(folder, size=80, batch_size=batch)
        seconds: dict[int, list[list[float]]] = {count: [] for count in counts}
        for _ in range(rounds):
            for count in counts:
                seconds[count].append(_run(count, folder, batch))
    print(f"{images:,} images of {SIDES[0]} x {SIDES[1]}, crops of 64, batches of {batch}, {rounds} rounds")
    for count, times in seconds.items():
        collating, cpu, wall = (statistics.median(column) for column in zip(*times, strict=True))
        print(
            f"  {count} processes: {collating * 1e6:5.0f} us CPU each to read, draw and tokenize, "
            f"{cpu * 1e6:5.0f} with decoding, {1 / wall:8,.0f} samples/s"
        )


def _run(count: int, folder: Path, batch: int) -> list[float]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command = [*torchrun, "-m", "benchmarks.loading", str(folder), str(batch)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return [float(number) for number in done.stdout.split()]


def worker(folder: Path, batch: int) -> None:
    """Make an epoch; rank 0 prints the mean CPU time of a process and the longest wall time, for each sample of all."""
    loader = open_loader(folder, size=80, batch_size=batch)
    batches = loader.num_samples // batch
    order, opened = loader.order(), loader.open_shards()
    barrier()
    start, cpu = time.perf_counter(), time.process_time()
    pending = [loader.collate(order.batch(number), number, opened) for number in range(batches)]
    collated = time.process_time() - cpu
    for part in pending:
        loader.decode(part)
    times = all_gather_object((collated, time.process_time() - cpu, time.perf_counter() - start))
    if rank() == 0:
        collating, whole, wall = zip(*times, strict=True)
        print(*(value / (batches * batch) for value in (statistics.mean(collating), statistics.mean(whole), max(wall))))


def smoke() -> None:
    """Few images, one round."""
    main(images=128, rounds=1)


def write_photographs(folder: Path, count: int) -> list[Path]:
    """Write smooth noise with edges, which takes about as many bytes as photographs, and a caption table."""
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


def build_loader(folder: Path, *, size: int, batch_size: int = BATCH, side: int = 64) -> TrainLoader:
    """The loader of what `prepare` and `tokenize` make of the images."""
    root, params = folder / f"shards-{size}", loading_params(folder, size=size, batch_size=batch_size, side=side)
    paths = root / "shards", root / "manifest.parquet", root / "rejected.parquet"
    withdrawn = root / "withdrawn.csv"
    root.mkdir()
    withdrawn.write_text("id,when,reason\n")
    prepare.stage(folder / "images", withdrawn, *paths, params=params)
    save_dvae(Dvae(num_codes=params.dvae.codebook_size, hidden=8, blocks=1), root / "dvae")
    tokenize.stage(*paths[:2], root / "dvae", root / "tokens", root / "tokenizer", params=params)
    return open_loader(folder, size=size, batch_size=batch_size, side=side)


def loading_params(folder: Path, *, size: int, batch_size: int, side: int) -> Params:
    """Parameters for the images in a folder, stored at one size and cropped to another."""
    params = Params.load()
    source = {"kind": "folder", "path": str(folder / "images"), "seed": 0, "holdout": {"val": 0.0, "test": 0.0}}
    values: dict[str, Any] = params.model_dump(mode="json", by_alias=True) | {"source": source}
    values["prepare"] |= {"size": size}
    values["tokenize"] |= {"crops_per_image": 1}
    values["pretrain"] |= {"batch_size": batch_size}
    values["model"]["image"] |= {"size": side} | ({"patch": 16} if side > 64 else {})
    return Params.model_validate(values)


def open_loader(folder: Path, *, size: int, batch_size: int = BATCH, side: int = 64) -> TrainLoader:
    """The loader of what `build_loader` has made before."""
    root, params = folder / f"shards-{size}", loading_params(folder, size=size, batch_size=batch_size, side=side)
    model = build_model(params.model, root / "tokenizer")
    return build_train_loader(
        root / "manifest.parquet",
        root / "shards",
        root / "tokens",
        model=model,
        training=params.pretrain,
        media=("image",),
    )


def _epoch(loader: TrainLoader, batches: int) -> Call:
    return lambda: [len(batch.image_index) for batch in islice(loader.iter_from(0), batches)]


class Files(Dataset[Tensor]):
    """Images in a folder, cropped at random."""

    def __init__(self, files: list[Path]) -> None:
        self.files, self.crop = files, v2.RandomResizedCrop(64, scale=(0.6, 1.0))

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        return tensor(self.crop(Image.open(self.files[row]).convert("RGB")))


def tensor(image: Image.Image) -> Tensor:
    """(H, W, 3) bytes."""
    return torch.from_numpy(np.array(image))


def litdata_epoch(folder: Path, files: list[Path]) -> Call:
    """Litdata's chunks of the same files, read with its own loader and cropped at random."""
    import litdata  # `threads` does not need it

    litdata.optimize(
        _bytes, [str(file) for file in files], str(folder), chunk_bytes="16MB", num_workers=1, verbose=False
    )
    crop = v2.RandomResizedCrop(64, scale=(0.6, 1.0))

    def decode(data: bytes) -> Tensor:
        return tensor(crop(Image.open(io.BytesIO(data)).convert("RGB")))

    dataset = litdata.StreamingDataset(str(folder), shuffle=True, transform=decode)
    return partial(_read_all, litdata.StreamingDataLoader(dataset, batch_size=BATCH, num_workers=0))


def _bytes(file: str) -> bytes:
    return Path(file).read_bytes()


def _read_all(batches: Any) -> list[NDArray[np.uint8] | Tensor]:  # noqa: ANN401  a loader of either library
    read: Iterator[Tensor] = iter(batches)
    return list(read)


if __name__ == "__main__":
    if "RANK" in os.environ:
        with init_distributed():
            worker(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        modes: dict[str, Callable[[], None]] = {"threads": threads, "processes": processes}
        modes.get("".join(sys.argv[1:]), main)()
