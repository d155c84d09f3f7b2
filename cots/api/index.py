"""The Python interface to an index: ranked results for a text or an image."""

import os
from typing import Any

from PIL import Image

from cots.api.inputs import ImageInput, folder_path, read_image, read_name, read_texts, require_count
from cots.errors import BadInput
from cots.models.loading import is_uri
from cots.registry.packaged import PackagedSearch, open_search
from cots.search_engine.queries import DEFAULT_K, DEFAULT_MEDIA, RESULT_MEDIA, Query, ResultMedia


class Index:
    """Images and videos that can be searched by text and by image; `cots.load_index` gives one.

    Args:
        packaged: the index with the encoders that built it.
    """

    def __init__(self, packaged: PackagedSearch) -> None:
        self._engine = packaged.engine

    def __len__(self) -> int:
        return len(self._engine.index)

    def search(
        self, query: str | ImageInput, k: int = DEFAULT_K, *, media: ResultMedia = DEFAULT_MEDIA
    ) -> list[dict[str, Any]]:
        """The items or captions that are most similar to a text or an image.

        Args:
            query: a text, or an image: a `Path`, the bytes of a file, a PIL image or an array. A string is a text.
            k: maximum number of results.
            media: kind of results: "image", "video", captions ("text"), or images and videos ("any").

        Returns:
            Best first, dictionaries with the keys rank (from 1), score (cosine), id, captions, media, split, row, frame
            and best_caption. The last two are numbers from 0: of the video's frame and of the caption that are most
            similar to the query.

        Raises:
            BadInput: the text is blank, the image cannot be used, or k or media is out of range.
        """
        require_count("k", k)
        if media not in RESULT_MEDIA:
            raise BadInput(f"media is {media!r}: give {', '.join(RESULT_MEDIA)}")
        [results] = self._engine([Query(_read_query(query), int(k), media)], batch_size=1)
        return results


def load_index(name: str | os.PathLike[str]) -> Index:
    """Load an index with its encoders.

    Args:
        name: a registered version (`models:/cots-index@champion`, `models:/cots-index/3`), or the folder that stage
            `package` writes, `package/index`.

    Raises:
        BadInput: there is no such index, or it is damaged.
        RunFailed: the registry is down.
    """
    with open_search(_expand(name)) as packaged:
        return Index(packaged)


def search(
    name: str | os.PathLike[str],
    query: str | ImageInput,
    k: int = DEFAULT_K,
    *,
    media: ResultMedia = DEFAULT_MEDIA,
) -> list[dict[str, Any]]:
    """Search an index once; for several queries load it with `load_index`.

    Args:
        name: the index, as for `load_index`.
        query, k, media: as for `Index.search`.

    Returns:
        As `Index.search`.

    Raises:
        BadInput: there is no such index, or the query cannot be used.
        RunFailed: the registry is down.
    """
    with open_search(_expand(name), texts_only=isinstance(query, str)) as packaged:
        return Index(packaged).search(query, k, media=media)


def _expand(name: str | os.PathLike[str]) -> str:
    text = read_name(name, "an index")
    return text if is_uri(text) else str(folder_path(text))


def _read_query(query: object) -> str | Image.Image:
    if not isinstance(query, str):
        return read_image(query)
    if not query.strip():
        raise BadInput("the text is blank")
    return read_texts([query])[0]
