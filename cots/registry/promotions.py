"""The history of the champion, which is also what keeps two promotions from happening at once.

Aliases have no history and no compare-and-set. Version numbers have both: MLflow gives each to one writer alone. So a
move of the champion is a version of the registered model `cots-promotions`, and an entry names the one it follows. Of
two that follow the same one, the first counts and the other is void, whoever reads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, Self

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from cots.registry.catalog import Entry

PROMOTIONS = "cots-promotions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Promotion:
    """One move of the champion.

    Attributes:
        number: of the entry, rising.
        what: promote or rollback.
        when: UTC.
        who: the user who asked for it.
        why: the reason given.
        before: the version of `cots-index` that was the champion, if there was one.
        after: the version that is it now.
    """

    number: int
    what: Literal["promote", "rollback"]
    when: datetime
    who: str
    why: str
    before: int | None
    after: int

    @classmethod
    def of(cls, entry: "ModelVersion | Entry") -> Self:
        """The move that an entry tells of."""
        tags: Mapping[str, Any] = entry.tags
        return cls(
            number=int(entry.version),
            what=tags["what"],
            when=datetime.fromtimestamp(entry.creation_timestamp / 1000, UTC),
            who=tags["who"],
            why=tags["why"],
            before=int(tags["before"]) if "before" in tags else None,
            after=int(tags["after"]),
        )


class PromotionLog:
    """The list of moves in one registry.

    Args:
        client: of the registry.
        model: whose versions are moved to.
    """

    def __init__(self, client: "MlflowClient", model: str) -> None:
        self._client, self._model = client, model

    def entries(self) -> list[Promotion]:
        """Every move that counts, oldest first."""
        found = self._client.search_model_versions(f"name = '{PROMOTIONS}'", max_results=10_000)
        return moves_that_count(found)

    def last(self) -> int:
        """The number of the last move; 0 where there is none."""
        moves = self.entries()
        return moves[-1].number if moves else 0

    def append(
        self, what: Literal["promote", "rollback"], *, who: str, why: str, before: int | None, after: int, follows: int
    ) -> Promotion | None:
        """Add a move.

        Args:
            what: promote or rollback.
            who: asks for it.
            why: the reason given.
            before: the champion now.
            after: the champion to be.
            follows: number of the last move when `before` was read; 0 where there was none.

        Returns:
            None where it counts; else the move that another made in the meantime, which counts instead.
        """
        self._exists()
        tags = {"what": what, "who": who, "why": why, "follows": str(follows), "after": str(after)}
        tags |= {"before": str(before)} if before else {}
        made = int(self._client.create_model_version(PROMOTIONS, f"models:/{self._model}/{after}", tags=tags).version)
        moves = self.entries()
        if any(move.number == made for move in moves):
            return None
        return next(move for move in moves if move.number > follows)

    def _exists(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(PROMOTIONS, description=f"Moves of {self._model}@champion.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def moves_that_count(entries: "Iterable[ModelVersion | Entry]") -> list[Promotion]:
    """Of all entries those that follow the one before, oldest first; the others came second and are void."""
    counted: list[Promotion] = []
    last = 0
    for entry in sorted(entries, key=lambda entry: int(entry.version)):
        if int(entry.tags["follows"]) == last:
            counted.append(Promotion.of(entry))
            last = counted[-1].number
    return counted
