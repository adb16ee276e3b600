"""Desired state of endpoints, from the store's rows. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from fairway.serve.endpoint import STAGING, Desired, VersionSpec


def versions_needed(row: Mapping[str, Any]) -> list[int]:
    """Versions that must be loaded: those that serve or score, and the previous one, kept warm for a rollback."""
    if row["state"] != "live" or row["champion"] is None:
        return []
    named = [row["champion"], row["challenger"], row["previous"], *row["shadows"], *map(int, row["shares"])]
    return sorted({int(v) for v in named if v is not None})


def build(
    row: Mapping[str, Any],
    artifacts: Mapping[tuple[str, int], str],
    locate: Callable[[str], tuple[str, str]],
) -> Desired:
    """One endpoint's state.

    row: of table `endpoint`. artifacts: (model, version) -> artifact. locate: artifact -> (folder, socket). Raises:
    KeyError when a version that must serve is not registered; a previous one that is gone is left out.
    """
    model = row["model"]
    versions = {}
    for version in versions_needed(row):
        if (model, version) not in artifacts and version == row["previous"]:
            continue
        artifact = artifacts[model, version]
        folder, socket = locate(artifact)
        versions[str(version)] = VersionSpec(artifact, folder, socket)
    live = row["state"] == "live"
    return Desired(
        endpoint=row["endpoint"],
        model=model,
        epoch=row["epoch"],
        share_epoch=row["share_epoch"],
        champion=row["champion"] if live else None,
        challenger=row["challenger"] if live else None,
        rollout=row["rollout"] if live else None,
        shares={str(v): float(s) for v, s in row["shares"].items()} if live else {},
        shadows=sorted(int(v) for v in row["shadows"]) if live else [],
        salt=row["salt"],
        state=row["state"],
        staging=row["endpoint"].endswith(STAGING),
        versions=versions,
    )
