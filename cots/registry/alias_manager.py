"""Moves the champion alias: one change at a time, and never to a version with withdrawn samples."""

import getpass
import json
import os
from collections.abc import Collection, Mapping
from typing import Literal

from cots.digests import text_digest
from cots.errors import BadInput, RunFailed, UnreadableFiles
from cots.registry.client import CHALLENGER, CHAMPION, ENCODERS, INDEX, PREVIOUS, RegistryClient
from cots.registry.evidence import VersionArtifacts
from cots.registry.promotions import Promotion, PromotionLog

WITHDRAWN = "withdrawn."  # prefix of the registered model's tags; the digest of a sample id follows


class AliasManager:
    """Keeps the aliases of `cots-index`, and those of `cots-encoders` in step with them.

    Args:
        client: of the registry.
    """

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._promotions = PromotionLog(client.client, INDEX)

    def promote(self, version: int, *, why: str) -> bool:
        """See `Registry.promote`."""
        completed = self.complete_last()
        self._client.get_version(version)
        follows, champion = self._promotions.get_last_number(), self._client.find_by_alias(CHAMPION)
        if champion == version:
            self._sync_encoders()
            return completed is not None and completed.after == version
        self._record_and_apply("promote", champion, version, why, follows)
        return True

    def rollback(self, *, why: str) -> int:
        """See `Registry.rollback`."""
        completed = self.complete_last()
        if completed and completed.what == "rollback":
            return completed.after  # by this command when it was cut off; a second swap would undo it
        follows = self._promotions.get_last_number()
        champion, previous = self._client.find_by_alias(CHAMPION), self._client.find_by_alias(PREVIOUS)
        if previous is None:
            raise BadInput(
                f"{INDEX} has no previous version to roll back to: `cots registry promote` deploys any of "
                "`cots registry list`"
            )
        self._record_and_apply("rollback", champion, previous, why, follows)
        return previous

    def complete_last(self) -> Promotion | None:
        """See `Registry.complete_promotion`; also restores `previous` if only that alias is missing."""
        last = next(reversed(self._promotions.list_promotions()), None)
        if last is None or (not last.applied and not self._may_deploy(last.after)):
            return None
        champion, previous = self._client.find_by_alias(CHAMPION), self._client.find_by_alias(PREVIOUS)
        if not last.applied or (last.after == champion and last.before != previous):
            self._apply_aliases()
        return None if last.applied else last

    def list_promotions(self) -> list[Promotion]:
        """Every change of the champion, oldest first."""
        return self._promotions.list_promotions()

    def withdraw(self, ids: Mapping[str, str]) -> None:
        """See `Registry.withdraw`."""
        self._client.ensure_model(INDEX)
        for sample_id in ids.keys() - self._load_withdrawn():
            value = json.dumps({"id": sample_id, "reason": ids[sample_id]})
            self._client.client.set_registered_model_tag(INDEX, WITHDRAWN + text_digest(sample_id)[:32], value)

    def find_withdrawn(self, version: int) -> list[str]:
        """See `Registry.find_withdrawn`."""
        model_version = self._client.get_version(version)
        if not (withdrawn := self._load_withdrawn()):
            return []
        artifacts = VersionArtifacts(self._client.client, model_version)
        return sorted(withdrawn & artifacts.load_item_ids())

    def _load_withdrawn(self) -> set[str]:
        tags = self._client.find_model(INDEX).tags
        return {json.loads(tags[name])["id"] for name in tags if name.startswith(WITHDRAWN)}

    def _record_and_apply(
        self, what: Literal["promote", "rollback"], champion: int | None, version: int, why: str, follows: int
    ) -> None:
        """Record the promotion, then set the aliases."""
        self._refuse_unfit(version)
        winner = self._promotions.append(
            what, who=_current_user(), why=why, before=champion, after=version, follows=follows
        )
        if winner:
            change = f"{winner.what} to version {winner.after} by {winner.who} ({winner.why})"
            raise RunFailed(f"a concurrent {change} came first: see `cots registry list`, then repeat")
        self._apply_aliases()

    def _refuse_unfit(self, version: int) -> None:
        VersionArtifacts(self._client.client, self._client.get_version(version)).require_files()
        if withdrawn := self.find_withdrawn(version):
            raise BadInput(
                f"{INDEX} version {version} contains withdrawn samples ({format_ids(withdrawn)}): "
                "run `cots registry refresh` instead"
            )

    def _may_deploy(self, version: int) -> bool:
        try:
            self._refuse_unfit(version)
        except (BadInput, UnreadableFiles):
            return False
        return True

    def _apply_aliases(self) -> None:
        """Set the aliases to the last promotion, then check again, so that a slow writer cannot undo a later one."""
        while True:
            last = self._promotions.list_promotions()[-1]
            # First the alias that serving follows: the others can be restored from it and the last promotion.
            self._client.set_alias(CHAMPION, last.after)
            if last.before is not None and self._client.find_version(INDEX, last.before):
                self._client.set_alias(PREVIOUS, last.before)
            for alias in (PREVIOUS, CHALLENGER):
                if self._client.find_by_alias(alias) == last.after:
                    self._client.delete_alias(alias)
            self._sync_encoders()
            if self._promotions.get_last_number() == last.number:
                self._promotions.set_applied(last.number)
                return

    def _sync_encoders(self) -> None:
        """Point the aliases of `cots-encoders` to the encoders of the aliased index versions, if they still exist."""
        for alias in (CHAMPION, PREVIOUS):
            version = self._client.find_by_alias(alias)
            encoders = self._client.get_version(version).tags.get("encoders.version") if version else None
            if encoders and self._client.find_version(ENCODERS, int(encoders)):
                self._client.set_alias(alias, int(encoders), name=ENCODERS)
            else:
                self._client.delete_alias(alias, name=ENCODERS)


def format_ids(ids: Collection[str]) -> str:
    """The first ids, for a message of one line."""
    return ", ".join([*sorted(ids)[:3], *(["..."] if len(ids) > 3 else [])])


def _current_user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"
