"""COCO in its own layout: annotations/captions_<split><year>.json and one image folder per split."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample
from cots.data.sources.layout_io import (
    find_base_folder,
    layout_errors,
    make_sample,
    parse_split,
    read_json,
    require_folder,
)
from cots.errors import BadInput


class CocoSourceConfig(Config):
    """COCO's own layout."""

    kind: Literal["coco"] = Field(default="coco", description="COCO's own layout.")
    path: Path = Field(
        description="A folder with annotations/captions_<split>2014.json or 2017 and one image folder per split."
    )

    def read(self) -> Iterator[Sample]:
        """The samples of all annotation files; images are in <split><year>/, at the top or one folder below.

        Raises:
            BadInput: no such folder, no annotation files, files of several years, or another layout.
        """
        require_folder(self.path)
        files = sorted(self.path.glob("annotations/captions_*.json"))
        years = sorted({file.stem[-4:] for file in files})
        if len(years) != 1:
            years_found = f"those of {' and '.join(years)}" if years else "none"
            raise BadInput(
                f"{self.path} must hold annotations/captions_<split><year>.json of one year, found {years_found}"
            )
        return iter([sample for file in files for sample in _read_annotations(self.path, file)])


def _read_annotations(root: Path, file: Path) -> Iterator[Sample]:
    folder = file.stem.removeprefix("captions_")  # such as train2014
    split = parse_split(re.sub(r"\d+$", "", folder), str(file))
    with layout_errors("COCO", file):
        content = read_json(file)
        captions = defaultdict(list)
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        names = {image["id"]: f"{folder}/{image['file_name']}" for image in content["images"]}
        base = find_base_folder(root, list(names.values()))
        for image_id, name in names.items():
            yield make_sample(name, base / name, captions[image_id], split=split, origin=f"{file.name}: {image_id}")
