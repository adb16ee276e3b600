"""Which arm serves an entity: a weighted rendezvous hash.

Standard library only, because the gateway imports this on its hot path. Nothing is stored:
the same entity, salt and shares give the same arm in every process.
"""

import hashlib
import math
from collections.abc import Mapping

_BELOW_ONE = 1.0 - 2.0**-53


def unit_hash(entity: str, salt: str) -> float:
    """Uniform number in [0, 1) that depends on the entity and the salt alone.

    Raises: UnicodeEncodeError (a ValueError) if a text holds a lone surrogate.
    Source: the first 8 bytes of SHA-256, big-endian, divided by 2^64.
    Known weakness: the parts are joined by the unit separator (0x1F) without escaping, so an
    entity that contains it can share its number with another pair.

    >>> unit_hash("user-1", "exp-7")
    0.3561630915518192
    """
    digest = hashlib.sha256(f"{salt}\x1f{entity}".encode()).digest()
    # The largest 2^10 integers round up to 1.0, whose log(1 - u) does not exist.
    return min(int.from_bytes(digest[:8], "big") / 2.0**64, _BELOW_ONE)


def check_shares(shares: Mapping[str, float]) -> None:
    """Raise ValueError unless all shares are finite, >= 0 and sum to 1 within 1e-9."""
    for arm, share in shares.items():
        if not (math.isfinite(share) and share >= 0.0):
            raise ValueError(f"share of arm {arm!r} is {share!r}; expected a number from 0 to 1")
    total = math.fsum(shares.values())
    if abs(total - 1.0) > 1e-9:
        raise ValueError(f"shares sum to {total!r} over {len(shares)} arms; expected 1")


def assign(entity: str, salt: str, shares: Mapping[str, float]) -> str:
    """Arm of this entity under these shares; its propensity is `shares[arm]`.

    shares: arm name to share, summing to 1. An arm with share 0 is never chosen.
    Every arm's marginal share is exact. With two arms a changed share only moves entities into
    the arm that grew. With more arms that holds when the others shrink in proportion; if one
    arm alone pays, a few entities may also move between arms whose shares did not change.
    Use one salt per experiment: different salts make independent assignments.
    Raises: ValueError if a share is negative or the shares do not sum to 1 (1e-9).
    Source: weighted rendezvous hashing (Thaler and Ravishankar 1998, logarithmic weights).

    >>> [assign(str(i), "exp-7", {"a": 0.45, "b": 0.35, "c": 0.2}) for i in range(5)]
    ['b', 'c', 'a', 'b', 'c']
    """
    check_shares(shares)
    best_arm, best_key = "", math.inf
    for arm, share in shares.items():
        if share == 0.0:
            continue
        key = -math.log1p(-unit_hash(entity, f"{salt}\x1f{arm}")) / share
        # The name breaks a tie, so that the order of the mapping never matters.
        if key < best_key or (key == best_key and arm < best_arm):
            best_arm, best_key = arm, key
    return best_arm
