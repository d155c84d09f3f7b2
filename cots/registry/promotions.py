"""The history of the champion, which also prevents concurrent promotions.

Aliases have no history and no compare-and-set. Version numbers have both: MLflow gives each number to a single writer.
A promotion is therefore a version of the registered model `cots-promotions` and names its predecessor. If two name the
same predecessor, the first is valid and the second is void, for every reader.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

from cots.registry.client import search_versions

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from cots.registry.catalog import Entry

PROMOTIONS = "cots-promotions"
APPLIED = "applied"  # tag of an entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One change of the champion.

    Attributes:
        number: version number of the entry in `cots-promotions`, increasing.
        what: promote or rollback.
        when: time of the change, UTC.
        who: user who made the change.
        why: reason given by that user, or by the gate.
        before: version of `cots-index` that was the champion, if any.
        after: version of `cots-index` that became the champion.
        applied: False until all aliases follow it; True for entries from before this tag existed.
    """

    number: int
    what: Literal["promote", "rollback"]
    when: datetime
    who: str
    why: str
    before: int | None
    after: int
    applied: bool = True

    @classmethod
    def from_entry(cls, entry: "ModelVersion | Entry") -> Self:
        """Parse a version of `cots-promotions`."""
        tags: Mapping[str, Any] = entry.tags
        return cls(
            number=int(entry.version),
            what=tags["what"],
            when=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
            who=tags["who"],
            why=tags["why"],
            before=int(tags["before"]) if "before" in tags else None,
            after=int(tags["after"]),
            applied=tags.get(APPLIED) != "false",
        )


class PromotionLog:
    """The promotions recorded in one registry.

    Args:
        client: client of the registry.
        model: registered model whose versions are promoted.
    """

    def __init__(self, client: "MlflowClient", model: str) -> None:
        self._client, self._model = client, model

    def list_promotions(self) -> list[Promotion]:
        """Every valid promotion, oldest first."""
        return select_valid(search_versions(self._client, f"name = '{PROMOTIONS}'"))

    def get_last_number(self) -> int:
        """Number of the last valid promotion; 0 if there is none."""
        promotions = self.list_promotions()
        return promotions[-1].number if promotions else 0

    def append(
        self, what: Literal["promote", "rollback"], *, who: str, why: str, before: int | None, after: int, follows: int
    ) -> Promotion | None:
        """Record a promotion, unless another one was recorded first.

        Args:
            what: promote or rollback.
            who: user who makes the change.
            why: reason for the change.
            before: current champion, if any.
            after: new champion.
            follows: number of the last promotion when `before` was read; 0 if there was none.

        Returns:
            None if the promotion is valid; otherwise the concurrent promotion that made it void.
        """
        self._ensure_model()
        tags = {"what": what, "who": who, "why": why, "follows": str(follows), "after": str(after), APPLIED: "false"}
        tags |= {"before": str(before)} if before else {}
        number = int(self._client.create_model_version(PROMOTIONS, f"models:/{self._model}/{after}", tags=tags).version)
        promotions = self.list_promotions()
        if any(promotion.number == number for promotion in promotions):
            return None
        return next(promotion for promotion in promotions if promotion.number > follows)

    def set_applied(self, number: int) -> None:
        """Record that all aliases follow a promotion."""
        self._client.set_model_version_tag(PROMOTIONS, str(number), APPLIED, "true")

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(PROMOTIONS, description=f"Changes of {self._model}@champion.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def select_valid(entries: "Iterable[ModelVersion | Entry]") -> list[Promotion]:
    """The valid promotions among all entries, oldest first: each names the previous valid one as its predecessor."""
    valid: list[Promotion] = []
    last = 0
    for entry in sorted(entries, key=lambda entry: int(entry.version)):
        if entry.tags.get("follows") == str(last):  # one that was registered by hand has no predecessor
            valid.append(Promotion.from_entry(entry))
            last = valid[-1].number
    return valid
