"""Request and response schemas of the service."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from cots.search.queries import DEFAULT_K, DEFAULT_MEDIA, ResultMedia

MAX_K = 100
MAX_CHARS = 1000  # of a text; the text encoder truncates to its own maximum of tokens
IMAGE_FORMAT = "base64-picture"


def _whole(value: object) -> object:
    """Convert 3.0 to 3: JSON does not distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


K = Annotated[int, Field(ge=1, le=MAX_K, description="Maximum number of results."), BeforeValidator(_whole)]
Media = Annotated[
    ResultMedia, Field(description="Kind of results: images, videos, captions (text), or images and videos (any).")
]

RowNumber = Annotated[int, Path(ge=0, le=2**53 - 1)]
VersionName = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,64}$")]


class Strict(BaseModel):
    """Base of request bodies: no conversion of types, no unknown fields."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextQuery(Strict):
    """Search by text."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_CHARS, pattern=r"\S")]
    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


class ImageQuery(Strict):
    """Search by a base64-encoded image file."""

    image: Annotated[str, Field(min_length=1, json_schema_extra={"format": IMAGE_FORMAT})]
    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


def _kind(body: Any) -> Literal["text", "image"]:  # noqa: ANN401  any JSON value
    return "image" if isinstance(body, Mapping) and "image" in body and "text" not in body else "text"


AnyQuery = Annotated[
    Annotated[TextQuery, Tag("text")] | Annotated[ImageQuery, Tag("image")],
    Discriminator(_kind),
]


class SearchParameters(BaseModel):
    """Query parameters beside an image in the body."""

    model_config = ConfigDict(extra="forbid")

    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


class Version(BaseModel):
    """A registered version; for an unregistered folder, the beginning of its digest or null."""

    name: str
    version: str | None


class EncodersVersion(Version):
    """A version of the encoders; equal digests give equal embeddings."""

    digest: str


class Versions(BaseModel):
    """Versions of index and encoders that answered together."""

    index: Version
    encoders: EncodersVersion


class Result(BaseModel):
    """One search result."""

    rank: int = Field(ge=1)
    score: float = Field(description="Cosine similarity to the query.")
    id: str
    captions: list[str]
    media: Literal["image", "video", "text"]
    split: str
    row: int = Field(ge=0, description="Row of the item in this version of the index.")
    frame: int = Field(ge=0, description="Video frame most similar to the query, from 0; 0 for an image.")
    preview: str = Field(description="Path of its thumbnail.")
    lineage: str = Field(description="Path of its lineage.")


class Answer(BaseModel):
    """Search results, best first."""

    versions: Versions
    milliseconds: float = Field(description="Time from the arrival of the query to its ranking.")
    results: list[Result]


class Refusal(BaseModel):
    """An error in one sentence."""

    error: str


class Alive(BaseModel):
    """The process is alive."""

    alive: bool


class Ready(BaseModel):
    """A version is loaded."""

    versions: Versions
    trouble: str | None = Field(description="Error that prevents loading a newer version, if any.")


class Lineage(BaseModel):
    """Lineage of a version."""

    versions: Versions
    index_digest: str | None
    params_digest: str | None
    manifest_digest: str | None
    dvc_lock_digest: str | None
    git_commit: str | None
    git_dirty: str | None
    init_from: dict[str, str] = Field(description="Name and digest of what training began with, the latest first.")
    runs: dict[str, str] = Field(description="MLflow's run ids, by stage.")
    gate: dict[str, str] = Field(description="Whether the version was promoted, and why.")
    metrics: dict[str, str] = Field(description="Metrics at the time of packaging.")


class Item(BaseModel):
    """An indexed image or video."""

    id: str
    media: Literal["image", "video"]
    split: str
    captions: list[str]
    origin: str = Field(description="Name of the sample in its source.")


class ItemLineage(Lineage):
    """Lineage of a version together with one of its items."""

    item: Item
