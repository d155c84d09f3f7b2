"""Sections of what follows training: measuring, the index, the gate, drift."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cots.config.values import Positive, PositiveFloat, Section, Share, SplitName, Target, Weight


class Evaluate(Section):
    """How retrieval is measured and shown."""

    split: SplitName
    batch: Positive
    folds: Positive  # 1: the whole split alone
    galleries: Positive
    bootstrap: Positive
    seed: int


class Index(Section):
    """The deployed search index."""

    target: Target
    splits: tuple[SplitName, ...]
    kind: str  # "auto", or FAISS's factory string
    recall: Annotated[float, Field(gt=0, le=1)]  # of exact search's ten nearest, that `auto` must find
    max_gb: PositiveFloat | None  # that `auto` may take; null: no limit
    preview: Positive
    recall_queries: Positive


class Gate(Section):
    """What a new version must show to take the champion's place."""

    better: Literal["i2t", "t2i", "v2t", "t2v", "both"] | None  # whose mean recall must gain; null: it need not
    margin: Weight  # points of mean recall that a direction may lose
    max_fall: Weight  # points that the champion itself may lose on changed test queries
    min_recall: Share  # of the index against exact search
    max_ms: PositiveFloat  # a query against the index
    resamples: Positive
    seed: int


class Drift(Section):
    """When incoming queries and new samples are unlike what the deployed encoders learnt from."""

    seed: int
    newest: Positive  # queries that are read
    least: Annotated[int, Field(ge=2)]  # rows a side; fewer are not judged
    sample: Annotated[int, Field(ge=2)]  # rows a side whose vectors are compared, at most
    permutations: Positive
    p: Share
    mmd: Weight
    max_outside: Share
    max_unknown: Share
    max_blank: Share
    max_shift: Share

    @model_validator(mode="after")
    def _p_can_be_reached(self) -> Self:
        if self.p * (self.permutations + 1) < 1:
            raise ValueError(f"p {self.p} cannot be reached by {self.permutations} permutations")
        return self
