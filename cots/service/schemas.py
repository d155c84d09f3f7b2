"""What goes into the service and what comes out, as its OpenAPI says it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

from cots.search.queries import DEFAULT_K, DEFAULT_MEDIA, ResultMedia

MAX_K = 100
MAX_CHARS = 1000  # of a text; the model cuts what is over its own length in tokens
PICTURE_FORMAT = "base64-picture"


def _whole(value: object) -> object:
    """JSON's numbers know no difference between 3 and 3.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


K = Annotated[int, Field(ge=1, le=MAX_K, description="Results at most."), BeforeValidator(_whole)]
Media = Annotated[ResultMedia, Field(description="Pictures, clips, captions (text), or pictures and clips (any).")]

Place = Annotated[int, Path(ge=0, le=2**53 - 1)]
VersionName = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,64}$")]


class Strict(BaseModel):
    """Nothing is converted, and no field is ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)


class TextQuery(Strict):
    """A text to look for."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_CHARS, pattern=r"\S")]
    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


class PictureQuery(Strict):
    """A picture to look for, encoded and in base64."""

    image: Annotated[str, Field(min_length=1, json_schema_extra={"format": PICTURE_FORMAT})]
    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


def _kind(body: Any) -> Literal["text", "image"]:  # noqa: ANN401  what a client sent
    return "image" if isinstance(body, Mapping) and "image" in body and "text" not in body else "text"


AnyQuery = Annotated[
    Annotated[TextQuery, Tag("text")] | Annotated[PictureQuery, Tag("image")],
    Discriminator(_kind),
]


class SearchParameters(BaseModel):
    """Beside a picture that is the body."""

    model_config = ConfigDict(extra="forbid")

    k: K = DEFAULT_K
    media: Media = DEFAULT_MEDIA


class Version(BaseModel):
    """A registered version; of a folder that is in no registry, the beginning of its digest, or nothing."""

    name: str
    version: str | None


class EncodersVersion(Version):
    """A version of the encoders; the same digest gives the same vectors."""

    digest: str


class Versions(BaseModel):
    """What answered: always both together."""

    index: Version
    encoders: EncodersVersion


class Result(BaseModel):
    """One thing that was found."""

    rank: int = Field(ge=1)
    score: float = Field(description="Cosine similarity to the query.")
    id: str
    captions: list[str]
    media: Literal["image", "video", "text"]
    split: str
    row: int = Field(ge=0, description="Of the item in this version of the index.")
    frame: int = Field(ge=0, description="Of a clip: the one most similar to the query.")
    preview: str = Field(description="Where its picture is.")
    lineage: str = Field(description="Where it is said what it came from.")


class Answer(BaseModel):
    """Results, best first."""

    versions: Versions
    milliseconds: float = Field(description="From the query's arrival to its ranking.")
    results: list[Result]


class Refusal(BaseModel):
    """Why there is no answer, in one sentence."""

    error: str


class Alive(BaseModel):
    """The process runs."""

    alive: bool


class Ready(BaseModel):
    """A version answers."""

    versions: Versions
    trouble: str | None = Field(description="Why a newer version does not answer, if there is one.")


class Lineage(BaseModel):
    """What a version was made from."""

    versions: Versions
    index_digest: str | None
    params_digest: str | None
    manifest_digest: str | None
    dvc_lock_digest: str | None
    git_commit: str | None
    git_dirty: str | None
    runs: dict[str, str] = Field(description="MLflow's run ids, by stage.")
    gate: dict[str, str] = Field(description="Whether the version was promoted, and why.")
    metrics: dict[str, str] = Field(description="What was measured when it was made.")


class Item(BaseModel):
    """An indexed picture or clip."""

    id: str
    media: Literal["image", "video"]
    split: str
    captions: list[str]
    origin: str = Field(description="What the source called it.")


class ItemLineage(Lineage):
    """What an item's version was made from, and what the item is."""

    item: Item
