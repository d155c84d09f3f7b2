"""Where samples come from: one function for each layout in which people keep pictures with captions."""

from collections.abc import Callable, Iterator

from cots.data.samples import Sample
from cots.data.sources.coco import read_coco
from cots.data.sources.folder import read_folder
from cots.data.sources.karpathy import read_karpathy
from cots.data.sources.msrvtt import read_msrvtt
from cots.data.sources.scenes.source import draw_scenes
from cots.data.sources.webdataset import read_webdataset

SOURCES: dict[str, Callable[..., Iterator[Sample]]] = {
    "scenes": draw_scenes,
    "karpathy": read_karpathy,
    "coco": read_coco,
    "folder": read_folder,
    "webdataset": read_webdataset,
    "msrvtt": read_msrvtt,
}
