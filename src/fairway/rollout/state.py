"""The states of a rollout and what a decision does to them. Pure."""

from enum import StrEnum


class Decision(StrEnum):
    """What one look says."""

    CONTINUE = "continue"
    ROLLBACK = "rollback"
    PROMOTE = "promote"
    ASK = "ask"


class Phase(StrEnum):
    """Where a rollout is. `guarding`: promoted, the old version still scores in shadow and can come back at once."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    GUARDING = "guarding"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    ENDED = "ended"


LIVE = (Phase.RUNNING, Phase.PAUSED, Phase.GUARDING)  # their predictions enter the sums
OPEN = (Phase.WAITING, *LIVE)  # one at a time per endpoint


def next_phase(phase: Phase, decision: Decision) -> Phase:
    """Next rollout phase. A missing decision never moves traffic forward.

    While guarding, PROMOTE says that the guard time passed without harm.
    """
    if phase not in (Phase.RUNNING, Phase.GUARDING):
        return phase
    if decision is Decision.ROLLBACK:
        return Phase.ROLLED_BACK
    if decision is Decision.PROMOTE:
        return Phase.GUARDING if phase is Phase.RUNNING else Phase.PROMOTED
    return phase  # continue, ask: shares step inside a phase (METHODS 1f)
