"""Inspects a folder of images and videos: what it holds, what cannot be read, how it would be split."""

import os
import stat
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

from cots.config.gate import GateConfig
from cots.config.prepare import PrepareConfig
from cots.data.ingest.ingestor import Ingestor, Rejected, ingest
from cots.data.samples import Sample, Split, is_utf8
from cots.data.sources.caption_table import TABLE_SUFFIXES, read_cells
from cots.data.sources.folder import FolderSourceConfig, find_media, find_tables
from cots.data.sources.holdout import HoldoutConfig
from cots.data.sources.labels import label_of_file
from cots.data.sources.layout_io import SPLIT_NAMES, is_file
from cots.directions import Media
from cots.errors import BadInput
from cots.registry.gate import required_test_items

IMAGE_COLUMNS = (
    "image",
    "file_name",
    "filename",
    "file",
    "path",
    "image_path",
    "filepath",
    "image_name",
    "img",
    "video",
)
CAPTION_COLUMNS = ("caption", "text", "captions", "description", "title", "sentence", "comment", "prompt", "alt")
OTHER_LAYOUTS = {  # by a file that is typical of it, the preset that reads it
    "dataset_*.json": "flickr8k",
    "annotations/captions_*.json": "coco",
    "MSRVTT*.json": "msrvtt",
    "*.tar": "webdataset",
}
IGNORED_BY_DVC = (".git", ".hg", ".dvc")  # folders
MAX_PROBED, MAX_OPENED = 1000, 48  # samples whose files are looked for, and samples that are opened
MIN_HOLDOUT, MAX_HOLDOUT = 0.1, 0.2  # fraction of the captioned samples that become the test split


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a folder holds.

    Attributes:
        source: section `source` of params.yaml, with the proposed holdout.
        table: the caption table; None if there is none.
        samples: all samples, unopened.
        other_columns: columns of the table that are kept as metadata.
        unlisted: number of images and videos that are left out, because the table does not name them.
        opened: number of samples that were opened.
        rejected: the opened samples that cannot be used.
        given_splits: whether the table names the splits.
    """

    source: FolderSourceConfig
    table: Path | None
    samples: Sequence[Sample]
    other_columns: tuple[str, ...]
    unlisted: int
    opened: int
    rejected: Sequence[Rejected]
    given_splits: bool

    def count(self, media: Media | None = None, split: Split | None = None, *, captioned: bool | None = None) -> int:
        """Number of samples of a kind of media, in a split, with captions or without; None stands for any."""
        return sum(
            number
            for key, number in self._counts.items()
            if all(value in (None, counted) for value, counted in zip((media, split, captioned), key, strict=True))
        )

    @cached_property
    def _counts(self) -> Counter[tuple[Media, Split, bool]]:
        """Number of samples by kind of media, split, and whether they have a caption."""
        return Counter((sample.media, sample.split, has_caption(sample)) for sample in self.samples)


def has_caption(sample: Sample) -> bool:
    """Whether a sample has a caption that is not blank."""
    return any(text.strip() for text in sample.captions)


def inspect_folder(
    folder: Path,
    *,
    table: str | None,
    image_column: str | None,
    caption_column: str | None,
    label_column: str | None = None,
    include_unlisted: bool,
) -> Findings:
    """Read the names and captions of a folder, and open some of its images and videos.

    Args:
        folder: an existing folder.
        table: name of the caption table; None for the only one, or none.
        image_column: column with the paths; None for the first of `IMAGE_COLUMNS`.
        caption_column: column with the captions; None for the first of `CAPTION_COLUMNS`, or none.
        label_column: column with labels, or a name for that of their folders; None for none.
        include_unlisted: also take images and videos that the table does not name.

    Raises:
        BadInput: nothing in the folder can be read; the message says what it holds and what to do.
    """
    table, file = _choose_table(folder, table)
    names = _read_header(file) if file else []
    if file is None and (image_column or caption_column):
        raise BadInput(f"{folder} holds no caption table ({', '.join(TABLE_SUFFIXES)}) that could have such a column")
    columns = _choose_columns(file, names, image_column, caption_column, label_column) if file else {}
    source = FolderSourceConfig.model_validate(
        {
            "path": folder,
            "table": table,
            "include_unlisted": include_unlisted,
            "label_column": label_column,
            **columns,
        }
    )
    _require_media(folder, file)
    samples = list(source.read())
    given_splits = "split" in map(str.lower, names) or _lie_in_split_folders(folder, table)
    if label_column and file is None:
        given_splits = any(label_of_file(sample.id)[0] for sample in samples)
    if not given_splits:
        source = source.model_copy(update={"holdout": _propose_holdout(sum(map(has_caption, samples)))})
        samples = list(source.read())
    if file:
        _require_named_files(folder, file, samples, source)
    opened = _spread(samples, MAX_OPENED)
    settings = PrepareConfig().dump_limits()
    outcomes = list(ingest(opened, Ingestor(root=folder, withdrawn={}, **settings)))
    used = {*columns.values(), label_column, "split"}
    if any(sample.languages for sample in samples):
        used.add(source.language_column)
    return Findings(
        source=source,
        table=file,
        samples=samples,
        other_columns=tuple(name for name in names if name and name not in used and name.lower() != "split"),
        unlisted=0 if file is None or include_unlisted else _count_unlisted(source, samples),
        opened=len(opened),
        rejected=[outcome for outcome in outcomes if isinstance(outcome, Rejected)],
        given_splits=given_splits,
    )


def require_hashable(folder: Path) -> None:
    """Check that DVC can read all entries of a folder: with one that it cannot, no stage runs, and at a pipe it waits.

    Raises:
        BadInput: it cannot.
    """
    obstacles = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in IGNORED_BY_DVC]
        entries = (Path(path) / name for name in (*folders, *files))
        obstacles += [(entry, problem) for entry in entries if (problem := _find_obstacle(entry))]
    if obstacles:
        [(entry, problem), *others] = obstacles
        more = f" (and {len(others)} more)" if others else ""
        raise BadInput(
            f"{folder} holds {str(entry.relative_to(folder))!r}, {problem}{more}: DVC cannot read it, so that no stage "
            "would run; remove or rename it"
        )


def _find_obstacle(entry: Path) -> str | None:
    """What is wrong with a file or folder for DVC, which follows links to files."""
    if not is_utf8(entry.name):
        return "whose name is not UTF-8"
    try:
        mode = entry.stat().st_mode
    except OSError:
        return "a link that leads nowhere"
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else "a pipe, a socket or a device"


def _choose_table(folder: Path, name: str | None) -> tuple[str | None, Path | None]:
    """Choose the caption table: the one that is named, the only one, or Hugging Face's metadata in every subfolder.

    Returns:
        The value of `source.table`, and the file that it names, for a pattern the first one; (None, None) without a
        table.

    Raises:
        BadInput: there is no such table, or there are several.
    """
    tables = find_tables(folder)
    if name:
        if Path(name).is_absolute():
            raise BadInput(f"--table {name}: give its path relative to {folder}")
        try:
            files = sorted(folder.glob(name)) if "*" in name else [folder / name]  # as the source reads it
        except ValueError as error:
            raise BadInput(f"--table {name}: {error}") from None
        chosen = next(filter(is_file, files), None)
        if chosen is None:
            available = ", ".join(table.name for table in tables) or "none"
            raise BadInput(f"no table {folder / name}: the tables in {folder} are {available}")
        return name, chosen
    if len(tables) > 1:
        descriptions = "; ".join(
            f"{table.name} (columns {', '.join(_read_header(table)) or 'none'})" for table in tables
        )
        raise BadInput(f"{folder} holds {len(tables)} tables: {descriptions}; choose one with --table")
    if tables:
        return None, tables[0]
    deeper = [file for file in sorted(folder.glob("*/metadata.*")) if file.suffix in TABLE_SUFFIXES]
    if len({file.name for file in deeper}) == 1:
        return f"*/{deeper[0].name}", deeper[0]
    return None, None


def _lie_in_split_folders(folder: Path, table: str | None) -> bool:
    """Whether a pattern matches tables in subfolders that are named after splits."""
    if table is None or "*" not in table:
        return False
    return all(file.parent.name.lower() in SPLIT_NAMES for file in folder.glob(table))


def _read_header(table: Path) -> list[str]:
    """Names of the columns; in JSONL the names that occur in the first rows."""
    return list(dict.fromkeys(name for cells in islice(read_cells(table), 20) for name in cells.names))


def _choose_columns(
    table: Path, names: Sequence[str], image: str | None, caption: str | None, label: str | None
) -> dict[str, str | None]:
    """Choose the columns of paths and captions, other ones than that of labels.

    Returns:
        The values of `source.image_column` and `source.caption_column`.

    Raises:
        BadInput: there is no column of a given name, or none that looks like one with paths.
    """
    header = f"{table} has the columns {', '.join(map(repr, names)) or 'none: it is empty'}"
    for option, column in (("--image-column", image), ("--caption-column", caption), ("--label-column", label)):
        if column and column.lower() not in map(str.lower, names):
            raise BadInput(f"{header}, and none called {column}: name another with {option}")
    if label and label in (image, caption):
        raise BadInput(f"--label-column {label} is another column already: leave that option out, for labels alone")
    names = [name for name in names if name != label]
    image = image or _first_known(names, IMAGE_COLUMNS)
    if image is None:
        raise BadInput(f"{header}: name those with paths and captions with --image-column and --caption-column")
    return {"image_column": image, "caption_column": caption or _first_known(names, CAPTION_COLUMNS)}


def _first_known(names: Sequence[str], known: Sequence[str]) -> str | None:
    by_lower = {name.lower(): name for name in names}
    return next((by_lower[name] for name in known if name in by_lower), None)


def _require_media(folder: Path, table: Path | None) -> None:
    """Refuse a folder that holds neither a caption table nor images; the message says what it holds."""
    if table is not None or next(find_media(folder), None) is not None:
        return
    endings = Counter(Path(name).suffix.lower() or "no ending" for _, _, files in os.walk(folder) for name in files)
    held = ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5)) or "no files"
    if preset := other_preset(folder):
        raise BadInput(f"{folder} is in another layout: run `cots init {preset} --data {folder}`")
    raise BadInput(
        f"{folder} holds no images and no videos that can be read, and no caption table: {held}; name another folder, "
        "or convert the files to JPEG, PNG or MP4"
    )


def other_preset(folder: Path) -> str | None:
    """The preset for a layout that keeps captions elsewhere than in a caption table; None if it is none of these."""
    return next((preset for pattern, preset in OTHER_LAYOUTS.items() if next(folder.glob(pattern), None)), None)


def _propose_holdout(captioned: int) -> HoldoutConfig:
    """A test split as large as the gate needs, between a tenth and a fifth of the captioned samples."""
    needed = required_test_items(GateConfig()) or 0
    fraction = round(min(max(needed / max(captioned, 1), MIN_HOLDOUT), MAX_HOLDOUT), 2)
    return HoldoutConfig(val=0.0, test=fraction)


def _require_named_files(folder: Path, table: Path, samples: Sequence[Sample], source: FolderSourceConfig) -> None:
    """Refuse a table that names no file that exists; the message says which files there are."""
    if any(isinstance(sample.content, Path) and is_file(sample.content) for sample in _spread(samples, MAX_PROBED)):
        return
    first = next(find_media(folder), None)
    example = f"the first image there is {first!r}" if first else "there are no images below it"
    raise BadInput(
        f"{table.name} names {len(samples)} files in column {source.image_column}, the first {samples[0].id!r}, and "
        f"none of them is below {folder}: {example}; choose another column with --image-column, or move the files"
    )


def _count_unlisted(source: FolderSourceConfig, samples: Sequence[Sample]) -> int:
    with_unlisted = source.model_copy(update={"include_unlisted": True})
    return len(list(with_unlisted.read())) - len(samples)


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """At most `count` samples, evenly spread."""
    step = max(1, -(-len(samples) // count))
    return list(samples[::step])
