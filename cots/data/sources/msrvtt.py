"""MSR-VTT: JSON files that name videos and sentences, and a folder of mp4 clips."""

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from cots.data.samples import Sample
from cots.data.sources.reading import described, folder_of, laid_out_as, need_folder, read_json, split_named
from cots.errors import BadInput


def read_msrvtt(path: Path) -> Iterator[Sample]:
    """The clips of MSRVTT_data.json, or of the release's *videodatainfo.json; mp4 files lie in one folder below.

    Raises:
        BadInput: no such folder, no such file, or not in this layout.
    """
    need_folder(path)
    tables = sorted(path.glob("MSRVTT_data.json")) or sorted(path.glob("*videodatainfo.json"))
    if not tables:
        raise BadInput(f"{path} holds neither MSRVTT_data.json nor *videodatainfo.json of the MSR-VTT layout")
    return iter([sample for table in tables for sample in _samples(path, table)])


def _samples(root: Path, table: Path) -> Iterator[Sample]:
    with laid_out_as("MSR-VTT", table):
        content = read_json(table)
        captions = defaultdict(list)
        for sentence in content["sentences"]:
            captions[sentence["video_id"]].append(sentence["caption"])
        splits = {video["video_id"]: split_named(video["split"], f"{table}") for video in content["videos"]}
        clips = folder_of(root, [f"{name}.mp4" for name in splits])
        for name, split in splits.items():
            file = clips / f"{name}.mp4"
            yield described(name, file, captions[name], split=split, origin=f"{table.name}: {name}", media="video")
