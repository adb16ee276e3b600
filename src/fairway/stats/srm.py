"""Sample ratio mismatch: are units split as the design says?

A mismatch means that assignment, logging or joining is broken, and that no comparison of the
arms can be believed.
"""

import math
from collections.abc import Iterable, Sequence

from scipy.special import gammaln


def srm_log_e(counts: Sequence[int], shares: Sequence[float], *, concentration: float = 100.0) -> float:
    """Log e-value against "units arrive with these shares", within one share epoch.

    counts, shares: shape (k,), assigned units and design shares in the same order.
    Returns: natural log; ln(1000) is the usual alarm. `math.inf` if an arm with share 0 has
    units. Raises: ValueError on other shapes, negative counts or shares that do not sum to 1.
    Source: Lindon and Malek 2020 (Dirichlet-multinomial against multinomial).
    Known weakness: count assigned units, not requests: retries of one entity look like a mismatch.

    >>> round(srm_log_e([1200, 8800], [0.1, 0.9]), 4)
    18.4321
    """
    if len(counts) != len(shares):
        raise ValueError(f"{len(counts)} counts but {len(shares)} shares")
    if any(c < 0 for c in counts):
        raise ValueError(f"negative count in {list(counts)}")
    if any(not share >= 0.0 for share in shares) or abs(math.fsum(shares) - 1.0) > 1e-9:
        raise ValueError(f"shares {list(shares)} must be >= 0 and sum to 1")
    if not concentration > 0.0:
        raise ValueError(f"concentration is {concentration!r}; expected a positive number")
    n = sum(counts)
    parts = [float(gammaln(concentration)) - float(gammaln(n + concentration))]
    for count, share in zip(counts, shares, strict=True):
        if share == 0.0:
            if count:
                return math.inf
            continue
        prior = concentration * share
        parts.append(float(gammaln(count + prior)) - float(gammaln(prior)) - count * math.log(share))
    return math.fsum(parts)


def srm_log_e_over_epochs(
    epochs: Iterable[tuple[Sequence[int], Sequence[float]]], *, concentration: float = 100.0
) -> float:
    """Sum of `srm_log_e` over share epochs, given as (counts, shares) pairs; 0 for none.

    >>> srm_log_e_over_epochs([])
    0
    """
    return sum(srm_log_e(counts, shares, concentration=concentration) for counts, shares in epochs)
