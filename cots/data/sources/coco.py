"""COCO in its own layout: annotations/captions_<split><year>.json and one image folder per split."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.location import Location
from cots.data.samples import Sample
from cots.data.sources.layout_io import (
    layout_errors,
    locate_images,
    make_sample,
    parse_entries,
    parse_split,
    read_json,
    require_folder,
)
from cots.errors import BadInput


class CocoSourceConfig(Config):
    """COCO's own layout."""

    kind: Literal["coco"] = Field(default="coco", description="COCO's own layout.")
    path: Location = Field(
        description="A folder with annotations/captions_<split><year>.json, all of one year or none, and one image "
        "folder per split."
    )

    def read(self) -> Iterator[Sample]:
        """The samples of all annotation files; images are in <split><year>/, at the top or one folder below.

        Raises:
            BadInput: no such folder, no annotation files, files of several years, or another layout.
        """
        require_folder(self.path)
        files = sorted(self.path.glob("annotations/captions_*.json"))
        years = sorted({_split_and_year(file)[1] for file in files})
        if len(years) != 1:
            years_found = f"those of {' and '.join(year or 'no year' for year in years)}" if years else "none"
            raise BadInput(
                f"{self.path} must hold annotations/captions_<split><year>.json of one year, found {years_found}"
            )
        samples = [sample for file in files for sample in _read_annotations(file)]
        return locate_images(samples, self.path)


def _split_and_year(file: Path) -> tuple[str, str]:
    """The split's name, and the year or nothing: `captions_train2014.json` gives train and 2014."""
    name = file.stem.removeprefix("captions_")
    split = name.rstrip("0123456789")
    return split, name.removeprefix(split)


def _read_annotations(file: Path) -> list[Sample]:
    split_name, year = _split_and_year(file)
    split = parse_split(split_name, str(file))
    annotations = defaultdict[Any, list[Any]](list)

    def parse(image: dict[str, Any]) -> Sample:
        name = f"{split_name}{year}/{image['file_name']}"
        captions = [annotation["caption"] for annotation in annotations[image["id"]]]
        return make_sample(name, Path(name), captions, split=split, origin=f"{file.name}: {image['id']}")

    with layout_errors("COCO", file):
        content = read_json(file)
        for annotation in content["annotations"]:
            annotations[annotation["image_id"]].append(annotation)
        return parse_entries(content["images"], parse, layout="COCO", path=file)
