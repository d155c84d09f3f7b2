"""Several data sets become one folder with a caption table, which source `folder` reads."""

import csv
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cots.data.samples import Sample
from cots.errors import BadInput
from cots.files import atomic_folder


def merge(sources: Mapping[str, tuple[Path, Iterable[Sample]]], out: Path) -> dict[str, int]:
    """Link the files of every source below `out`, copy those of another disk, and write `captions.csv` beside them.

    A row is a caption: image, caption, split. A file that is missing keeps its rows, so that `prepare` tells of it.

    Args:
        sources: by the name that their files' folder gets: where it lies, and its samples, whose contents are files.
        out: is not there yet, or empty.

    Returns:
        How many samples each source gave.

    Raises:
        BadInput: something is in the way, a sample lies outside its source, or its name or a caption is no text.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is in use: name a new folder")
    with atomic_folder(out) as aside:
        return _merge(sources, aside)


def _merge(sources: Mapping[str, tuple[Path, Iterable[Sample]]], out: Path) -> dict[str, int]:
    counts = dict.fromkeys(sources, 0)
    with (out / "captions.csv").open("w", encoding="utf8", errors="surrogateescape", newline="") as text:
        table = csv.writer(text, lineterminator="\n")
        table.writerow(["image", "caption", "split"])
        for name, (root, samples) in sources.items():
            for sample in samples:
                try:
                    file, inside = _located(sample, root)
                    image = f"{name}/{inside}"
                    _link(file, out / image)
                    table.writerows([image, caption, sample.split] for caption in sample.captions or ("",))
                except ValueError as error:  # a name that no file can have, a text that no table can hold
                    raise BadInput(f"{sample.origin}: {sample.id!a} cannot be taken over: {error}") from None
                counts[name] += 1
    return counts


def _located(sample: Sample, root: Path) -> tuple[Path, str]:
    """The sample's file without links, and its place below the root without `..`, which could lead out of `out`."""
    if isinstance(sample.content, Path):
        file, place = sample.content.resolve(), Path(os.path.relpath(sample.content, root))
        if file.is_relative_to(root.resolve()) and ".." not in place.parts:
            return file, place.as_posix()
    raise BadInput(f"{sample.origin}: {sample.id} is no file below {root}")


def _link(file: Path, to: Path) -> None:
    if not file.is_file():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except FileExistsError:  # several samples of one file
        return
    except OSError:
        shutil.copy2(file, to)
