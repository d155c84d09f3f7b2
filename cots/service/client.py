"""A client of the search service."""

import base64
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Required, Self, TypedDict, TypeVar

import httpx
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ValidationError

from cots.errors import RunFailed
from cots.search_engine.queries import DEFAULT_K, DEFAULT_MEDIA, TEXT_WEIGHT, ResultMedia
from cots.service import schemas

IMAGE_TYPE = "application/octet-stream"  # the service tells the format by the bytes
PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")  # of Pillow
QueryImage = str | os.PathLike[str] | bytes | Image.Image
Content = TypeVar("Content", bound=BaseModel)


class ItemChange(TypedDict, total=False):
    """A sample to add, which needs an image, or what to change of one."""

    id: Required[str]
    image: QueryImage
    captions: Sequence[str]
    metadata: Mapping[str, str | bool | int | float | None]


class RequestFailed(RunFailed):
    """The service refused a request or could not be reached.

    Attributes:
        status: HTTP status; None if there was no answer.
    """

    def __init__(self, status: int | None, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Client:
    """Talks to a search service; each operation of the service is a method with the operation's fields.

    Use it as a context manager, or call `close`, to close its connections. All methods raise `RequestFailed`.

    Args:
        url: address of the service.
        token: the service's token, if it requires one.
        timeout: seconds that a request may take.
    """

    def __init__(self, url: str = "http://127.0.0.1:8080", *, token: str | None = None, timeout: float = 30.0) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._url, self._http = url, httpx.Client(base_url=url, headers=headers, timeout=timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self,
        text: str | None = None,
        *,
        image: QueryImage | None = None,
        k: int = DEFAULT_K,
        media: ResultMedia = DEFAULT_MEDIA,
        min_score: float | None = None,
        where: Mapping[str, str | Sequence[str]] | None = None,
        minus: str | Sequence[str] = (),
        text_weight: float = TEXT_WEIGHT,
        cursor: str | None = None,
    ) -> schemas.Answer:
        """Search by a text, an image, or both; or get the next page of an answer.

        Args:
            text: what to search by; beside an image, how the results should differ from it.
            image: a path, the bytes of a file, or a PIL image.
            k: maximum number of results.
            media: kind of results.
            min_score: results with a lower score are left out.
            where: columns of the items, each with the value or the values that pass.
            minus: a text or several texts to keep away from.
            text_weight: weight of the text relative to the image.
            cursor: `next` of an answer; only `k` is allowed beside it.
        """
        if cursor is not None:
            body: dict[str, Any] = {"cursor": cursor, "k": k}
        else:
            body = {
                "k": k,
                "media": media,
                "min_score": min_score,
                "where": {name: _as_list(values) for name, values in (where or {}).items()},
                "minus": _as_list(minus),
            }
        if text is not None:
            body["text"] = text
        if image is not None:
            body |= {"image": base64.b64encode(_image_bytes(image)).decode(), "text_weight": text_weight}
        return self._read(schemas.Answer, "POST", "/search", json=body)

    def results(self, text: str | None = None, **query: Any) -> Iterator[schemas.Result]:  # noqa: ANN401
        """All results of a query, page by page; the arguments are those of `search`, `k` is the size of a page.

        If the service switches to another version meanwhile, `RequestFailed` has status 410.
        """
        answer = self.search(text, **query)
        yield from answer.results
        while answer.next:
            answer = self.search(cursor=answer.next, k=query.get("k", DEFAULT_K))
            yield from answer.results

    def search_image(
        self,
        image: QueryImage,
        *,
        k: int = DEFAULT_K,
        media: ResultMedia = DEFAULT_MEDIA,
        min_score: float | None = None,
    ) -> schemas.Answer:
        """Search by an image alone, sent without base64; the arguments are those of `search`."""
        parameters = {"k": k, "media": media} | ({} if min_score is None else {"min_score": min_score})
        content, headers = _image_bytes(image), {"Content-Type": IMAGE_TYPE}
        return self._read(schemas.Answer, "POST", "/search/image", params=parameters, content=content, headers=headers)

    def change_items(self, items: Sequence[ItemChange]) -> schemas.Changed:
        """Add samples and change samples, if the service was started with `--project`.

        They are stored when this returns, and found when `changes().indexed` has reached the answer's `change`.

        Args:
            items: each an id with what is to be stored; what is not given stays as it is.
        """
        return self._read(schemas.Changed, "POST", "/items", json={"items": [_encode_item(item) for item in items]})

    def changes(self) -> schemas.ChangesStatus:
        """Which changes of samples are stored, and in which version they are found."""
        return self._read(schemas.ChangesStatus, "GET", "/items/changes")

    def withdraw(self, ids: str | Sequence[str], reason: str) -> schemas.Withdrawn:
        """Take samples out of the deployed index at once, if the service was started with `--project`.

        Args:
            ids: the id of a sample, or several ids, as in results.
            reason: why; it is recorded with them.
        """
        return self._read(schemas.Withdrawn, "POST", "/items/withdraw", json={"ids": _as_list(ids), "reason": reason})

    def overview(self) -> schemas.Overview:
        """What the index holds."""
        return self._read(schemas.Overview, "GET", "/overview")

    def lineage(self, version: str) -> schemas.Lineage:
        """Lineage of a version of the index."""
        return self._read(schemas.Lineage, "GET", f"/lineage/{version}")

    def item_lineage(self, version: str, row: int) -> schemas.ItemLineage:
        """Lineage of a version and of the item in one of its rows."""
        return self._read(schemas.ItemLineage, "GET", f"/lineage/{version}/{row}")

    def preview(self, version: str, row: int, frame: int) -> Image.Image:
        """Thumbnail of an item, or of a frame of a video."""
        answer = self._send("GET", f"/preview/{version}/{row}/{frame}")
        try:
            return Image.open(io.BytesIO(answer.content), formats=("JPEG",))
        except UnidentifiedImageError:
            raise RequestFailed(answer.status_code, _error_of(answer)) from None

    def original(self, version: str, row: int) -> bytes:
        """The file that an indexed image was made from, if the service was started with `--source`."""
        return self._send("GET", f"/original/{version}/{row}").content

    def alive(self) -> schemas.Alive:
        """Whether the process is alive."""
        return self._read(schemas.Alive, "GET", "/healthz")

    def ready(self) -> schemas.Ready:
        """The version that answers; `RequestFailed` with status 503 if none is loaded yet."""
        return self._read(schemas.Ready, "GET", "/readyz")

    def metrics(self) -> str:
        """Metrics in Prometheus's text format."""
        return self._send("GET", "/metrics").text

    def _read(self, model: type[Content], method: str, path: str, **options: Any) -> Content:  # noqa: ANN401
        answer = self._send(method, path, **options)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            raise RequestFailed(answer.status_code, _error_of(answer)) from None

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:  # noqa: ANN401
        try:
            answer = self._http.request(method, path, **options)
        except httpx.HTTPError as error:
            raise RequestFailed(None, f"no answer from {self._url}: {str(error) or type(error).__name__}") from error
        except (TypeError, ValueError) as error:  # a value that JSON lacks, such as bytes, NaN or half a surrogate pair
            raise RequestFailed(None, f"this cannot be sent: {error}") from None
        if not answer.is_success:
            raise RequestFailed(answer.status_code, _error_of(answer))
        return answer


def _error_of(answer: httpx.Response) -> str:
    """The service's message, or the status if something else answered, such as a proxy that wants a log-in."""
    try:
        return schemas.Refusal.model_validate_json(answer.content).error
    except ValueError:
        return f"{answer.url} answered with status {answer.status_code}: is it the search service?"


def _as_list(texts: str | Sequence[str]) -> list[str]:
    """Several texts, or one."""
    return [texts] if isinstance(texts, str) else list(texts)


def _encode_item(item: ItemChange) -> dict[str, Any]:
    """An item as JSON."""
    image = {"image": base64.b64encode(_image_bytes(item["image"])).decode()} if "image" in item else {}
    return {**item, **image}


def _image_bytes(image: QueryImage) -> bytes:
    """The bytes of an image file; a PIL image becomes PNG, or TIFF if PNG lacks its mode, and keeps its orientation."""
    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Image.Image):
        file = io.BytesIO()
        try:
            image.save(file, "PNG" if image.mode in PNG_MODES else "TIFF", exif=image.getexif())
        except (OSError, ValueError) as error:
            raise RequestFailed(None, f"an image of mode {image.mode} cannot be sent: {error}") from None
        return file.getvalue()
    if not isinstance(image, str | os.PathLike):
        raise RequestFailed(
            None, f"an image is {type(image).__name__}: give a path, the bytes of a file or a PIL image"
        )
    try:
        return Path(image).expanduser().read_bytes()
    except (OSError, ValueError, RuntimeError) as error:  # the last two of a name that no file has
        reason = getattr(error, "strerror", None) or error
        raise RequestFailed(None, f"cannot read the image {image}: {reason}") from None
