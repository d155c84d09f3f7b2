"""COCO, Flickr30K and Flickr8k in the layout of Karpathy's splits: one dataset_*.json and the pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample
from cots.data.sources.layout_io import folder_of, laid_out_as, make_sample, read_json, require_folder, split_named
from cots.errors import BadInput


class KarpathySourceConfig(Config):
    """COCO, Flickr30K or Flickr8k in the Karpathy layout."""

    kind: Literal["karpathy"] = Field(
        default="karpathy", description="COCO, Flickr30K or Flickr8k in the Karpathy layout."
    )
    path: Path = Field(description="A folder with one dataset_*.json and the images.")

    def read(self) -> Iterator[Sample]:
        """The samples of the folder."""
        return read_karpathy(self.path)


def read_karpathy(path: Path) -> Iterator[Sample]:
    """The samples of a folder with one dataset_*.json; pictures lie in it or in one folder below.

    Raises:
        BadInput: no such folder, none or several such files, or not in this layout.
    """
    require_folder(path)
    tables = sorted(path.glob("dataset*.json"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise BadInput(f"{path} must hold one dataset_*.json of the Karpathy layout, found {found}")
    with laid_out_as("Karpathy", tables[0]):
        entries = read_json(tables[0])["images"]
        pictures = folder_of(path, [_name(entry) for entry in entries[:20]])
        return iter([_sample(entry, pictures, tables[0]) for entry in entries])


def _sample(entry: dict[str, Any], pictures: Path, table: Path) -> Sample:
    name = _name(entry)
    captions = [sentence["raw"] for sentence in entry["sentences"]]
    split = split_named(entry["split"], f"{table}, {name}")
    return make_sample(name, pictures / name, captions, split=split, origin=f"{table.name}: {name}")


def _name(entry: dict[str, Any]) -> str:
    return "/".join(filter(None, [entry.get("filepath", ""), entry["filename"]]))
