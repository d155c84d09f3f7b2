"""Tags of registered versions as MLflow stores them: some that people read or machines search by, the rest as one."""

import json
from collections.abc import Mapping

DETAILS = "technical"  # tag: all others as a JSON object; a name that comes last on MLflow's page
SHOWN = {
    "target",
    "items",
    "metrics.rsum",
    "git.commit",
    "git.dirty",
    "params.digest",
    "manifest.digest",
    "queries.digest",
    "encoder.digest",
    "encoders.content",
    "encoders.version",
    "content.digest",
}


def pack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """The tags to store for a version."""
    details = {name: value for name, value in sorted(tags.items()) if name not in SHOWN}
    shown = {name: value for name, value in tags.items() if name in SHOWN}
    return shown | ({DETAILS: json.dumps(details, ensure_ascii=False)} if details else {})


def unpack_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """All tags of a version; those of earlier releases are stored one by one."""
    details: dict[str, str] = json.loads(tags.get(DETAILS, "{}"))
    return details | {name: value for name, value in tags.items() if name != DETAILS}
