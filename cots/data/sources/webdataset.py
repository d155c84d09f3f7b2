"""Tar files as img2dataset and video2dataset write them: for each key an image or video, its caption, and JSON."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from tarfile import TarInfo
from typing import BinaryIO, Literal

from pydantic import Field

from cots.config_base import Config, Seed
from cots.data.bucket import local_copy
from cots.data.file_state import file_state
from cots.data.location import Location
from cots.data.samples import MAX_FILE_BYTES, Fault, Sample, Split
from cots.data.sources.holdout import HOLDOUT, HoldoutConfig, split_by_hash
from cots.data.sources.layout_io import MEDIA_SUFFIXES, make_sample, media_of, parse_json, require_folder
from cots.data.sources.parts import Part
from cots.data.sources.tar_members import group_members, list_members, read_member
from cots.errors import BadInput

COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
MAX_TEXT_BYTES = 1 << 24  # of a text file or JSON
Members = Mapping[str, TarInfo]  # of one key, by the rest of their names


class WebdatasetSourceConfig(Config):
    """Tar files as img2dataset and video2dataset write them."""

    kind: Literal["webdataset"] = Field(
        default="webdataset", description="Tar files as img2dataset and video2dataset write them."
    )
    path: Location = Field(
        description="The folder of the tars: image or video, .txt caption and .json of each sample. "
        "Files whose names end in mp4, m4v, mov, mkv, webm or avi are videos."
    )
    seed: Seed = Field(default=0, description="Seed of the holdout.")
    holdout: HoldoutConfig = Field(default=HoldoutConfig(), description=HOLDOUT)

    def read(self) -> Iterator[Sample]:
        """The samples of all tar files in a folder; their members need not be adjacent, and are never unpacked.

        Raises:
            BadInput: no such folder, no tar file in it, a compressed or a damaged one.
        """
        return chain.from_iterable(part.read() for part in self.parts())

    def parts(self) -> Iterator[Part]:
        """Each tar alone.

        Raises:
            BadInput: no such folder, no tar file in it, or a compressed one.
        """
        require_folder(self.path)
        files = sorted(file for file in self.path.iterdir() if not file.name.startswith("."))
        if compressed := [file for file in files if file.name.lower().endswith(COMPRESSED_SUFFIXES)]:
            raise BadInput(f"{compressed[0]} is compressed: unpack it to a plain tar")
        tars = [file for file in files if file.suffix.lower() == ".tar"]
        if not tars:
            raise BadInput(f"{self.path} holds no .tar file: set source.path to the folder of tars")
        for tar in tars:
            yield Part(tar.name, partial(self._read_tar, tar), partial(file_state, tar, self.path))

    def _read_tar(self, tar: Path) -> Iterator[Sample]:
        with local_copy(tar) as copy, copy.open("rb") as file:
            for key, members in group_members(list_members(copy, tar), MEDIA_SUFFIXES):
                name = f"{tar.stem}/{key}"
                split = split_by_hash(name, seed=self.seed, holdout=self.holdout)
                yield _read_sample(file, name, members, split=split, tar=tar)


def _read_sample(file: BinaryIO, name: str, members: Members, *, split: Split, tar: Path) -> Sample:
    image, captions = _find_image(members), _read_captions(file, members)
    content = image if isinstance(image, Fault) else read_member(file, image, max_bytes=MAX_FILE_BYTES)
    return make_sample(
        name,
        content if isinstance(content, bytes) else b"",
        captions if isinstance(captions, list) else [],
        split=split,
        origin=tar.name,
        listing=tar,
        media="image" if isinstance(image, Fault) else media_of(image.name),
        fault=next((value for value in (content, captions) if isinstance(value, Fault)), None),
    )


def _find_image(members: Members) -> TarInfo | Fault:
    images = _select(members, MEDIA_SUFFIXES)
    if len(images) == 1:
        return images[0]
    number = "several images or videos" if images else "no image or video"
    return Fault("no such file", f"{number}: behind the key, the names end in {', '.join(members)}")


def _read_captions(file: BinaryIO, members: Members) -> list[object] | Fault:
    """The text file, or the JSON's caption if there is none; a byte that is not UTF-8 becomes a lone surrogate."""
    captions: list[object] = []
    texts = _select(members, ("txt",))
    for member in texts or _select(members, ("json",)):
        data = read_member(file, member, max_bytes=MAX_TEXT_BYTES)
        if isinstance(data, Fault):
            return data
        if texts:
            captions.append(data.decode("utf-8-sig", errors="surrogateescape"))
            continue
        try:
            caption = parse_json(data).get("caption")
        except (ValueError, AttributeError) as error:
            return Fault("caption not text", f"{member.name} is not a JSON object: {error}")
        captions.extend(caption if isinstance(caption, list) else [caption])
    return captions or [None]


def _select(members: Members, suffixes: Sequence[str]) -> list[TarInfo]:
    """The member with the first of the suffixes, or, if there is none, all whose names go on before the suffix."""
    plain = [members[suffix] for suffix in suffixes if suffix in members]
    return plain[:1] or [member for ending, member in members.items() if ending.rpartition(".")[2] in suffixes]
