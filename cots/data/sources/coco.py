"""COCO as its authors publish it: annotations/captions_<split><year>.json and a folder of pictures for each."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample
from cots.data.sources.layout_io import folder_of, laid_out_as, make_sample, read_json, require_folder, split_named
from cots.errors import BadInput


class CocoSourceConfig(Config):
    """COCO's own layout."""

    kind: Literal["coco"] = Field(default="coco", description="COCO's own layout.")
    path: Path = Field(
        description="A folder with annotations/captions_<split>2014.json or 2017 and one image folder a split."
    )

    def read(self) -> Iterator[Sample]:
        """The samples of the folder."""
        return read_coco(self.path)


def read_coco(path: Path) -> Iterator[Sample]:
    """The samples of all annotation files of one year; pictures lie in <split><year>/, at the top or one folder below.

    Raises:
        BadInput: no such folder, no such files, files of several years, or not in this layout.
    """
    require_folder(path)
    tables = sorted(path.glob("annotations/captions_*.json"))
    years = sorted({table.stem[-4:] for table in tables})
    if len(years) != 1:
        found = f"those of {' and '.join(years)}" if years else "none"
        raise BadInput(f"{path} must hold annotations/captions_<split><year>.json of one year, found {found}")
    return iter([sample for table in tables for sample in _samples(path, table)])


def _samples(root: Path, table: Path) -> Iterator[Sample]:
    part = table.stem.removeprefix("captions_")  # train2014
    split = split_named(re.sub(r"\d+$", "", part), str(table))
    with laid_out_as("COCO", table):
        content = read_json(table)
        captions = defaultdict(list)
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        names = {image["id"]: f"{part}/{image['file_name']}" for image in content["images"]}
        pictures = folder_of(root, list(names.values()))
        for number, name in names.items():
            yield make_sample(name, pictures / name, captions[number], split=split, origin=f"{table.name}: {number}")
