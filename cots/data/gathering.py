"""Several data sets become one folder with a caption table, which source `folder` reads."""

import csv
import os
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cots.data.samples import Sample
from cots.errors import BadInput


def gather(sources: Mapping[str, tuple[Path, Iterable[Sample]]], out: Path) -> dict[str, int]:
    """Link the files of every source below `out`, copy those of another disk, and write `captions.csv` beside them.

    A row is a caption: image, caption, split. A file that is missing keeps its rows, so that `prepare` tells of it.

    Args:
        sources: by the name that their files' folder gets: where it lies, and its samples, whose contents are files.
        out: is not there yet, or empty.

    Returns:
        How many samples each source gave.

    Raises:
        BadInput: something is in the way, or a sample lies outside its source.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is in use: name a new folder")
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    counts = dict.fromkeys(sources, 0)
    with (partial / "captions.csv").open("w", encoding="utf8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "caption", "split"])
        for name, (root, samples) in sources.items():
            for sample in samples:
                image = f"{name}/{_inside(sample, root)}"
                _link(root / _inside(sample, root), partial / image)
                table.writerows([image, caption, sample.split] for caption in sample.captions or ("",))
                counts[name] += 1
    with suppress(FileNotFoundError):
        out.rmdir()
    partial.replace(out)
    return counts


def _inside(sample: Sample, root: Path) -> str:
    if not isinstance(sample.content, Path) or not sample.content.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{sample.origin}: {sample.id} is no file below {root}")
    return sample.content.relative_to(root).as_posix()


def _link(file: Path, to: Path) -> None:
    if not file.is_file():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file.resolve(), to)
    except FileExistsError:  # several samples of one file
        return
    except OSError:
        shutil.copy2(file, to)
