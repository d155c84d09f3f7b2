"""COCO, Flickr30K and Flickr8k in the layout of Karpathy's splits: one dataset_*.json and the images."""

from collections.abc import Iterator
from functools import partial
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


class KarpathySourceConfig(Config):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout."""

    kind: Literal["karpathy"] = Field(
        default="karpathy", description="COCO, Flickr30K or Flickr8k in the Karpathy layout."
    )
    path: Location = Field(description="A folder with one dataset_*.json and the images.")

    def read(self) -> Iterator[Sample]:
        """The samples of a folder with one dataset_*.json; images are in the folder or one below.

        Raises:
            BadInput: no such folder, no or several such files, or another layout.
        """
        require_folder(self.path)
        files = sorted(self.path.glob("dataset*.json"))
        if len(files) != 1:
            names = ", ".join(file.name for file in files) or "none"
            raise BadInput(f"{self.path} must hold one dataset_*.json of the Karpathy layout, found {names}")
        with layout_errors("Karpathy", files[0]):
            entries = read_json(files[0])["images"]
            samples = parse_entries(entries, partial(_parse_entry, files[0]), layout="Karpathy", path=files[0])
        return locate_images(samples, self.path)


def _parse_entry(file: Path, entry: dict[str, Any]) -> Sample:
    name = "/".join(str(part) for part in (entry.get("filepath"), entry["filename"]) if part)
    captions = [sentence["raw"] for sentence in entry["sentences"]]
    split = parse_split(entry["split"], f"{file}, {name}")
    return make_sample(name, Path(name), captions, split=split, origin=f"{file.name}: {name}")
