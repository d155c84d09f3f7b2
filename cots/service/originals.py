"""Reads the originals of indexed images from the folder that they came from."""

import re
from pathlib import Path

from cots.data.changes import images_folder
from cots.data.image_decoding import FORMATS, UnusableImage, open_image
from cots.data.ingest.source_file import read_source_file
from cots.data.sources.layout_io import find_base
from cots.errors import BadInput
from cots.file_names import CHANGES_PATH
from cots.service.errors import RequestRefused
from cots.service.loaded_version import VersionView

ADDED = re.compile(rf"{images_folder(CHANGES_PATH)}/[0-9a-f]{{64}}")  # origin of an image that a request has added


class Originals:
    """Gives the files of images that a version holds, and no others; files are only read.

    Args:
        source: the folder of the data set; ids are paths in it, or in a folder directly below it. Files that links lead
            to elsewhere are not read.
        project: folder of the project that holds the images that requests have added; None gives none of these.
        max_bytes: larger files are not read.
        max_pixels: images with more pixels are not given.

    Raises:
        BadInput: there is no such folder.
    """

    def __init__(self, source: Path, *, project: Path | None, max_bytes: int, max_pixels: int) -> None:
        if not source.is_dir():
            raise BadInput(f"no folder {source}: --source names the folder of the images that are served")
        self._source, self._project = source, project
        self._max_bytes, self._max_pixels = max_bytes, max_pixels

    def read(self, view: VersionView, row: int) -> tuple[bytes, str]:
        """An image's file as it is, with its media type. It is decoded once, so that nothing but images is given.

        Raises:
            RequestRefused: the version has no such image, or its file is gone, outside the folder or beyond a limit.
        """
        if not view.holds(row) or view.items["media"].iat[row] != "image":
            raise RequestRefused(404, f"version {view.target.version} has no image {row}")
        try:
            path, root = self._locate(view, row)
            content = read_source_file(path, root=root, follow_symlinks=False, max_bytes=self._max_bytes)
            with open_image(content, max_pixels=self._max_pixels, min_side=1) as image:
                image.load()
                return content, FORMATS.get(image.format or "", FORMATS["JPEG"])  # MPO is a JPEG of several images
        except UnusableImage as error:
            raise RequestRefused(404, f"the original of item {row} cannot be given: {error.reason}") from None
        except OSError as error:  # the folder itself, such as a drive that is not there any more
            raise RequestRefused(404, f"the original of item {row} cannot be given: {error.strerror}") from None

    def _locate(self, view: VersionView, row: int) -> tuple[Path, Path]:
        """The file of an image, and the folder that it must lie in."""
        origin = str(view.items["origin"].iat[row])
        if ADDED.fullmatch(origin):
            if self._project is None:
                raise UnusableImage("no such file", f"{origin} is in the project")
            return self._project / origin, self._project / images_folder(CHANGES_PATH)
        ids = view.items["id"]
        return find_base(ids, self._source) / str(ids.iat[row]), self._source
