"""Merges several data sets into one folder with a caption table, which source `folder` reads."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cots.data.ingest.metadata import metadata_json
from cots.data.samples import Sample
from cots.errors import BadInput
from cots.files import atomic_folder


def merge(sources: Mapping[str, tuple[Path, Iterable[Sample]]], out: Path) -> dict[str, int]:
    """Link the files of every source below `out` and write `captions.jsonl`, a row with captions and metadata for each.

    Files on another disk are copied. A missing file keeps its row, so that `prepare` reports it.

    Args:
        sources: by name, which becomes the name of their folder: the root and the samples, whose contents are files.
        out: does not exist yet, or is empty.

    Returns:
        Number of samples by source.

    Raises:
        BadInput: `out` is in use, a sample lies outside its root, or a name or caption cannot be written.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is in use: name a new folder")
    with atomic_folder(out) as partial:
        return _merge(sources, partial)


def _merge(sources: Mapping[str, tuple[Path, Iterable[Sample]]], out: Path) -> dict[str, int]:
    counts = dict.fromkeys(sources, 0)
    with (out / "captions.jsonl").open("w", encoding="utf8", errors="surrogateescape") as table:
        for name, (root, samples) in sources.items():
            for sample in samples:
                try:
                    file, relative = _locate(sample, root)
                    image = f"{name}/{relative}"
                    _link(file, out / image)
                    row = {"image": image, "caption": sample.captions, "split": sample.split}
                    if sample.languages:
                        row["language"] = sample.languages
                    metadata = json.loads(metadata_json(sample.metadata) or "{}")
                    table.write(json.dumps(row | metadata | row, ensure_ascii=False) + "\n")
                except (ValueError, RuntimeError) as error:  # no file can have such a name or link, or text not UTF-8
                    raise BadInput(f"{sample.origin}: {sample.id!a} cannot be merged: {error}") from None
                counts[name] += 1
    return counts


def _locate(sample: Sample, root: Path) -> tuple[Path, str]:
    """The sample's file with links resolved, and its path below the root, without `..` that could leave `out`."""
    if sample.listing and not sample.listing.resolve().is_relative_to(root.resolve()):
        raise BadInput(f"{sample.listing} leads to {sample.listing.resolve()}, which is not below {root}")
    if isinstance(sample.content, Path):
        file, relative = sample.content.resolve(), Path(os.path.relpath(sample.content, root))
        if file.is_relative_to(root.resolve()) and ".." not in relative.parts:
            return file, relative.as_posix()
    raise BadInput(f"{sample.origin}: {sample.id} is not a file below {root}")


def _link(file: Path, link: Path) -> None:
    if not file.is_file():
        return
    link.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, link)
    except FileExistsError:  # several samples share a file
        return
    except OSError:
        shutil.copy2(file, link)
