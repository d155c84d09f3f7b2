"""changes.jsonl: samples that requests have added or changed. `prepare` applies them; the source is never changed.

The list holds one sample a line; without samples it is an empty line, because DVC warns of empty files. Images lie in
the folder beside it that is called as the list without its ending, each named by its SHA-256, so that a list that names
an image names its content, too.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cots.data.samples import Fault, Sample
from cots.digests import bytes_digest
from cots.errors import BadInput
from cots.files import atomic_file, locked

FIELDS = ("image", "captions", "metadata")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What requests have made of a sample; None stays as it is in the source.

    Attributes:
        id: of the sample, in the source or new.
        image: SHA-256 of its file.
        captions: its captions, all of them.
        metadata: what else is said of it, all of it.
        number: of the request that changed it last, from 1; 0 before it is in the list.
    """

    id: str
    image: str | None = None
    captions: tuple[str, ...] | None = None
    metadata: Mapping[str, Any] | None = None
    number: int = 0

    def update(self, later: "Change") -> "Change":
        """The sample after a later change."""
        given = {name: getattr(later, name) for name in FIELDS if getattr(later, name) is not None}
        return replace(self, **given)


CHANGE = TypeAdapter(Change)


def read_changes(path: Path) -> dict[str, Change]:
    """Read the list: changes by id.

    Raises:
        BadInput: no such file, or it is not such a list.
    """
    try:
        lines = path.read_bytes().split(b"\n")  # other ends of lines may stand in a text
        changes = [_parse(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is not a list of changed samples ({error}): restore it from git; an empty list is an empty line"
        ) from None
    return {change.id: change for change in changes}


def read_optional_changes(path: Path) -> dict[str, Change]:
    """Read the list as `read_changes` does; without the file, as in projects of before 0.3, there are no changes."""
    return read_changes(path) if path.is_file() else {}


def add_changes(path: Path, changes: Sequence[Change], images: Mapping[str, bytes]) -> int:
    """Add changes of one request to the list, which is on the disk afterwards, as its images are.

    If the process is killed, the list has all of them or none.

    Args:
        path: of the list.
        changes: of different samples.
        images: files by digest.

    Returns:
        The number of the request.

    Raises:
        BadInput: no such file, or it is not such a list.
    """
    read_changes(path)  # a missing file could not be locked
    folder = images_folder(path)
    with locked(path):
        folder.mkdir(exist_ok=True)
        for digest, content in images.items():
            if isinstance(_read_image(folder / digest), Fault):
                with atomic_file(folder / digest, durable=True) as partial:
                    partial.write_bytes(content)
        listed = read_changes(path)
        number = 1 + last_number(listed)
        for change in changes:
            listed[change.id] = replace(listed.get(change.id, Change(id=change.id)).update(change), number=number)
        with atomic_file(path, durable=True) as partial:
            partial.write_text("".join(f"{_format(change)}\n" for change in listed.values()), encoding="utf8")
    return number


def last_number(changes: Mapping[str, Change]) -> int:
    """The number of the newest request; 0 without any."""
    return max((change.number for change in changes.values()), default=0)


def images_folder(path: Path) -> Path:
    """The folder of the images that a list names."""
    return path.with_suffix("")


def find_unused_images(path: Path, withdrawn: Collection[str]) -> list[Path]:
    """The stored images that no sample uses any more: those of withdrawn samples, and those that others replaced.

    Args:
        path: the list; there may be none.
        withdrawn: ids of all samples that may not be used.

    Raises:
        BadInput: the file is not such a list.
    """
    used = {change.image for name, change in read_optional_changes(path).items() if name not in withdrawn}
    folder = images_folder(path)
    return [file for file in sorted(folder.iterdir()) if file.name not in used] if folder.is_dir() else []


def require_images(changes: Mapping[str, Change], folder: Path) -> None:
    """Check that the folder of the images that changes name is there.

    Raises:
        BadInput: it is not, as in a fresh clone: all that requests have added would be lost unnoticed.
    """
    if not folder.is_dir() and any(change.image for change in changes.values()):
        raise BadInput(
            f"{folder.name}.jsonl names images in {folder}, which is missing: copy the folder from where it is kept"
        )


def with_changes(
    samples: Iterable[Sample], changes: Mapping[str, Change], folder: Path
) -> Iterator[tuple[Sample, bool]]:
    """Samples as they are, with False; before the first of an id that has a change, as that has changed it, with True.

    Args:
        samples: of the source, or of a part of it.
        changes: by id.
        folder: of the images that they name.
    """
    changed = set[str]()
    for sample in samples:
        if sample.id not in changed and (change := changes.get(sample.id)):
            changed.add(sample.id)
            yield _apply(sample, change, folder), True
        yield sample, False


def added_samples(changes: Iterable[Change], folder: Path) -> Iterator[Sample]:
    """The samples, for training, of changes with ids that the source has not.

    One that was changed, and that the source lacks by now, cannot be used, unless it was given an image.

    Args:
        changes: in the order of the list.
        folder: of the images that they name.
    """
    for change in changes:
        fault = None if change.image else Fault("no such file", "requests changed it, and the source lacks it")
        yield _apply(added_sample(change.id, origin=f"{folder.name}.jsonl", fault=fault), change, folder)


def added_sample(name: str, *, origin: str, content: bytes = b"", fault: Fault | None = None) -> Sample:
    """A sample that a request adds: an image for training, so that no request changes what the gate measures."""
    return Sample(
        id=name,
        split="train",
        media="image",
        captions=(),
        is_mismatched=(),
        content=content,
        origin=origin,
        fault=fault,
    )


def _apply(sample: Sample, change: Change, folder: Path) -> Sample:
    if change.image:
        sample = replace(sample, media="image", fault=None, origin=f"{folder.name}/{change.image}")
        content = _read_image(folder / change.image)
        sample = replace(sample, fault=content) if isinstance(content, Fault) else replace(sample, content=content)
    if change.captions is not None:
        known = dict(zip(sample.captions, sample.languages, strict=False))
        made = dict(zip(sample.captions, sample.is_made, strict=False))
        sample = replace(
            sample,
            captions=change.captions,
            is_mismatched=(False,) * len(change.captions),
            languages=tuple(known.get(text, "") for text in change.captions) if known else (),
            is_made=tuple(made.get(text, False) for text in change.captions) if made else (),
        )
    return sample if change.metadata is None else replace(sample, metadata=change.metadata)


def _read_image(file: Path) -> bytes | Fault:
    """A stored image, or why it is not what the list names."""
    try:
        content = file.read_bytes()
    except OSError as error:
        return Fault("no such file", f"{file}: {error.strerror}")
    if bytes_digest(content) != file.name:
        return Fault("damaged", f"{file} has other content than its name says")
    return content


def _parse(line: bytes, number: int) -> Change:
    try:
        change = CHANGE.validate_json(line)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise ValueError(f"line {number}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    if not change.number:
        raise ValueError(f"line {number}: no number of a request")
    return change


def _format(change: Change) -> str:
    given = {name: getattr(change, name) for name in FIELDS if getattr(change, name) is not None}
    return json.dumps({"id": change.id, "number": change.number, **given}, ensure_ascii=False)
