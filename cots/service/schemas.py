"""Request and response schemas of the service."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, FiniteFloat, Tag

from cots.search_engine.queries import DEFAULT_K, DEFAULT_MEDIA, TEXT_WEIGHT, ResultMedia

MAX_K = 100
MAX_CHARS = 1000  # of a text; the text encoder truncates to its own maximum of tokens
MAX_MINUS = 10  # texts to keep away from
MAX_FILTERS = 20  # columns in `where`
MAX_WITHDRAWN = 1000  # samples in one request
MAX_CHANGED = 100  # items in one request
MAX_CAPTIONS = MAX_FIELDS = 100  # of an item
MAX_CURSOR = 100_000  # characters; an embedding of 4,096 dimensions takes 22,000
IMAGE_FORMAT, CURSOR_FORMAT, COLUMN_FORMAT = "base64-picture", "next-of-an-answer", "column-of-items"


def _to_int(value: object) -> object:
    """Convert 3.0 to 3: JSON does not distinguish them."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


K = Annotated[int, Field(ge=1, le=MAX_K, description="Maximum number of results."), BeforeValidator(_to_int)]
Media = Annotated[
    ResultMedia, Field(description="Kind of results: images, videos, captions (text), or images and videos (any).")
]

RowNumber = Annotated[int, Path(ge=0, le=2**53 - 1)]
VersionName = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,64}$")]


class RequestBody(BaseModel):
    """Base of request bodies: types are not converted, unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", strict=True)


Text = Annotated[str, Field(min_length=1, max_length=MAX_CHARS, pattern=r"\S")]
Score = Annotated[float, Field(ge=-1, le=1, description="Results with a lower score are left out.")]
Value = Annotated[str, Field(max_length=MAX_CHARS)]


class ResultOptions(RequestBody):
    """Which results to give."""

    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA
    min_score: Score | None = None
    where: Annotated[
        dict[Annotated[str, Field(json_schema_extra={"format": COLUMN_FORMAT})], Value | list[Value]],
        Field(
            max_length=MAX_FILTERS,
            description="Columns of the items, each with the value or the list of values that pass.",
        ),
    ] = {}


class QueryOptions(ResultOptions):
    """Which results to give, and what to keep away from."""

    minus: Annotated[
        list[Text], Field(max_length=MAX_MINUS, description="Texts to keep away from: their vectors are subtracted.")
    ] = []


class TextQuery(QueryOptions):
    """Search by text."""

    text: Text


class ImageQuery(QueryOptions):
    """Search by a base64-encoded image file, and a text if the results should differ from the image."""

    image: Annotated[str, Field(min_length=1, json_schema_extra={"format": IMAGE_FORMAT})]
    text: Text | None = None
    text_weight: Annotated[
        float, Field(ge=0, le=100, description="Weight of the text's vector; that of the image is 1.")
    ] = TEXT_WEIGHT


class CursorQuery(RequestBody):
    """The next page of results."""

    cursor: Annotated[str, Field(max_length=MAX_CURSOR, json_schema_extra={"format": CURSOR_FORMAT})]
    k: K = DEFAULT_K


Id = Annotated[str, Field(min_length=1, max_length=MAX_CHARS, pattern=r"^[^\x00]+$")]


class ItemChange(RequestBody):
    """A sample to add, or what to change of one: what is not given stays as it is."""

    id: Id
    image: Annotated[
        str | None, Field(min_length=1, json_schema_extra={"format": IMAGE_FORMAT}, description="A file in base64.")
    ] = None
    captions: Annotated[list[Text] | None, Field(max_length=MAX_CAPTIONS, description="All its captions.")] = None
    metadata: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=MAX_CHARS)], Value | bool | int | FiniteFloat | None] | None,
        Field(max_length=MAX_FIELDS, description="All its further columns."),
    ] = None


class ChangeRequest(RequestBody):
    """Samples to add or to change."""

    items: Annotated[list[ItemChange], Field(min_length=1, max_length=MAX_CHANGED)]


class WithdrawRequest(RequestBody):
    """Samples to take out of the deployed index at once."""

    ids: Annotated[
        list[Id],
        Field(min_length=1, max_length=MAX_WITHDRAWN, description="Ids of samples, as in results."),
    ]
    reason: Annotated[
        str, Field(min_length=1, max_length=MAX_CHARS, pattern=r"^[^\x00]*$", description="Why; it is recorded.")
    ]


def _query_kind(body: Any) -> Literal["text", "image", "cursor"]:  # noqa: ANN401  any JSON value
    names = set(body) if isinstance(body, Mapping) else set()
    return "image" if "image" in names else "cursor" if "cursor" in names and "text" not in names else "text"


AnyQuery = Annotated[
    Annotated[TextQuery, Tag("text")] | Annotated[ImageQuery, Tag("image")] | Annotated[CursorQuery, Tag("cursor")],
    Discriminator(_query_kind),
]


class SearchParameters(BaseModel):
    """Query parameters beside an image in the body."""

    model_config = ConfigDict(extra="forbid")

    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA
    min_score: Score | None = None


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
    best_caption: int | None = Field(
        ge=0, description="Caption most similar to the query, from 0; null if it has none."
    )
    metadata: dict[str, Any] = Field(description="Further columns of the item in its source.")
    frames: int = Field(ge=1, description="Number of stored frames: 1 for an image.")
    preview: str = Field(description="Path of its thumbnail.")
    original: str | None = Field(
        None, description="Path of the file that it was made from; null if it is no image or the service reads none."
    )
    lineage: str = Field(description="Path of its lineage.")


class Answer(BaseModel):
    """Search results, best first."""

    versions: Versions
    milliseconds: float = Field(description="Time from the arrival of the query to its ranking.")
    results: list[Result]
    fits: bool | None = Field(
        description="Whether the best result fits the text, rather than being merely the nearest; null if not known."
    )
    next: str | None = Field(description="Cursor of the next page; null after the last one.")


class ColumnValue(BaseModel):
    """A value of a column of the items."""

    value: str
    items: int = Field(ge=0, description="Number of items with this value.")


class Overview(BaseModel):
    """What the index holds."""

    versions: Versions
    images: int = Field(ge=0, description="Number of images.")
    videos: int = Field(ge=0, description="Number of videos.")
    captions: int = Field(ge=0, description="Number of distinct captions.")
    columns: dict[str, list[ColumnValue]] = Field(
        description="Columns that `where` filters by, each with its most frequent values."
    )
    samples: list[str] = Field(description="Captions that the index answers with an item that they describe.")


class Rejection(BaseModel):
    """Why an item was not stored."""

    id: str
    reason: str
    detail: str


class Changed(BaseModel):
    """What became of each item of a request."""

    accepted: list[str] = Field(description="Ids of the items that are stored.")
    rejected: list[Rejection]
    change: int | None = Field(
        description="Number of this change: its items are found when `indexed` of `GET /items/changes` has reached it; "
        "null if no item was accepted."
    )


class ChangesStatus(BaseModel):
    """How far the index is with the changes that requests have stored."""

    stored: int = Field(ge=0, description="Number of the last change that is stored; 0 without any.")
    indexed: int = Field(ge=0, description="All changes up to this number are in the deployed index.")
    version: str | None = Field(description="Version of the index in which they are found; null at first.")
    trouble: str | None = Field(description="Why later changes are not found yet, if a refresh has failed.")


class Withdrawn(BaseModel):
    """Samples that are no longer in the deployed index."""

    report: str = Field(
        description="Output of `cots data withdraw`: the new version, and those trained on the samples."
    )


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
    init_from: dict[str, str] = Field(
        description="Name and digest of the models that training started from, latest first."
    )
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
