"""Tar files as img2dataset and video2dataset write them: for each key an image or video, its caption, and JSON."""

import json
import tarfile
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Literal

from pydantic import Field

from cots.config_base import Config
from cots.data.samples import Sample
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import VIDEO_SUFFIXES, make_sample, media_of, require_folder
from cots.errors import BadInput

IMAGE_SUFFIXES = ("jpg", "jpeg", "png", "webp")


class WebdatasetSourceConfig(Config):
    """Tar files as img2dataset and video2dataset write them."""

    kind: Literal["webdataset"] = Field(
        default="webdataset", description="Tar files as img2dataset and video2dataset write them."
    )
    path: Path = Field(
        description="The folder of the tars: image or video, .txt caption and .json of each sample. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: int = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of all tar files in a folder; members are read into memory, never unpacked.

        Raises:
            BadInput: no such folder, no tar file in it, or a damaged one.
        """
        require_folder(self.path)
        tars = sorted(self.path.glob("*.tar"))
        if not tars:
            raise BadInput(f"{self.path} holds no .tar file: set source.path to the folder of tars")
        for tar in tars:
            for key, members in _read_groups(tar):
                name = f"{tar.stem}/{key}"
                suffix = next((suffix for suffix in (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES) if suffix in members), "")
                split = split_by_hash(name, seed=self.seed, holdout=self.holdout)
                content, media = members.get(suffix, b""), media_of(f"{key}.{suffix}")
                yield make_sample(name, content, [_caption(members)], split=split, origin=tar.name, media=media)


def _read_groups(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Consecutive members with the same key: the key, and their contents by suffix."""
    try:
        with tarfile.open(path) as tar:
            files = ((member.name.partition("."), tar.extractfile(member)) for member in tar if member.isfile())
            for key, group in groupby(files, key=lambda file: file[0][0]):
                yield key, {name[2].lower(): content.read() for name, content in group if content is not None}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BadInput(f"{path} is damaged ({error}): fetch it again, or remove it") from None


def _caption(members: Mapping[str, bytes]) -> str:
    """The text file, or the JSON's caption if there is none; a byte that is not UTF-8 becomes a lone surrogate."""
    if "txt" in members:
        return members["txt"].decode("utf8", errors="surrogateescape")
    try:
        caption = json.loads(members.get("json", b"{}").decode("utf8", errors="surrogateescape")).get("caption")
    except (json.JSONDecodeError, AttributeError):
        return ""
    return caption if isinstance(caption, str) else ""
