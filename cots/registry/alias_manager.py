"""Which version is deployed: moves of the champion, one at a time, and never to what was withdrawn."""

import getpass
import json
import os
from collections.abc import Mapping
from typing import Literal

from cots.digests import text_digest
from cots.errors import BadInput, RunFailed
from cots.registry.client import CHALLENGER, CHAMPION, ENCODERS, INDEX, PREVIOUS, RegistryClient
from cots.registry.evidence import VersionArtifacts
from cots.registry.promotions import Promotion, PromotionLog

WITHDRAWN = "withdrawn."  # before the digest of an id, in tags of the model


class AliasManager:
    """The aliases of `cots-index`, and those of `cots-encoders`, which follow.

    Args:
        models: of the registry.
    """

    def __init__(self, models: RegistryClient) -> None:
        self._models = models
        self._promotions = PromotionLog(models.client, INDEX)

    def promote(self, version: int, *, why: str) -> bool:
        """As `Registry.promote`."""
        follows = self._repair()
        self._models.get(version)
        champion = self._models.at(CHAMPION)
        if champion == version:
            self._sync_encoders()
        else:
            self._move("promote", champion, version, why, follows)
        return champion != version

    def rollback(self, *, why: str) -> int:
        """As `Registry.rollback`."""
        follows = self._repair()
        champion, previous = self._models.at(CHAMPION), self._models.at(PREVIOUS)
        if champion is None or previous is None:
            raise BadInput(f"there is no version of {INDEX} to go back to: see `cots registry list`")
        self._move("rollback", champion, previous, why, follows)
        return previous

    def promotions(self) -> list[Promotion]:
        """Every move of the champion, oldest first."""
        return self._promotions.entries()

    def withdraw(self, ids: Mapping[str, str]) -> None:
        """As `Registry.withdraw`."""
        if self._models.model(INDEX):
            for one, reason in ids.items():
                value = json.dumps({"id": one, "reason": reason})
                self._models.client.set_registered_model_tag(INDEX, WITHDRAWN + text_digest(one)[:32], value)

    def _withdrawn(self) -> set[str]:
        tags = self._models.model(INDEX).tags
        return {json.loads(tags[name])["id"] for name in tags if name.startswith(WITHDRAWN)}

    def _move(
        self, what: Literal["promote", "rollback"], champion: int | None, version: int, why: str, follows: int
    ) -> None:
        """Write the move down, and move."""
        self._refuse_withdrawn(version)
        first = self._promotions.append(what, who=_who(), why=why, before=champion, after=version, follows=follows)
        if first:
            told = f"version {first.after} by {first.who} ({first.why})"
            raise RunFailed(f"another {first.what} came first, to {told}: see `cots registry list`, then repeat")
        self._apply_aliases()

    def _refuse_withdrawn(self, version: int) -> None:
        withdrawn = self._withdrawn()
        if withdrawn and (held := withdrawn & VersionArtifacts(self._models.client, self._models.get(version)).items()):
            names = ", ".join(sorted(held)[:3]) + (", ..." if len(held) > 3 else "")
            raise BadInput(
                f"{INDEX} version {version} holds withdrawn {names}: run `cots registry refresh` in its place"
            )

    def _repair(self) -> int:
        """Finish a move that was cut off behind its first alias; the number of the last move."""
        moves = self._promotions.entries()
        if not moves:
            return 0
        if moves[-1].after == self._models.at(CHAMPION) and moves[-1].before != self._models.at(PREVIOUS):
            self._apply_aliases()
        return moves[-1].number

    def _apply_aliases(self) -> None:
        """Set the aliases as the last move says, and look again: a slower writer must not undo a later move."""
        while True:
            last = self._promotions.entries()[-1]
            # First the one that serving follows: the others can be made up from it and the last move.
            self._models.set_alias(CHAMPION, last.after)
            if last.before is not None:
                self._models.set_alias(PREVIOUS, last.before)
            if self._models.at(CHALLENGER) == last.after:
                self._models.client.delete_registered_model_alias(INDEX, CHALLENGER)
            self._sync_encoders()
            if self._promotions.last() == last.number:
                return

    def _sync_encoders(self) -> None:
        """Let the aliases of the encoders say what those of the index say."""
        for alias in (CHAMPION, PREVIOUS):
            version = self._models.at(alias)
            if version is not None:
                encoders = self._models.get(version).tags["encoders.version"]
                self._models.client.set_registered_model_alias(ENCODERS, alias, encoders)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"
