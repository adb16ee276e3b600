"""Identities by content: hashes of bytes, values and files, and the ids derived from them."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def of_bytes(data: bytes) -> str:
    """SHA-256, 64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def of_file(path: Path) -> str:
    """SHA-256 of a file's bytes, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values have equal bytes. Raises: TypeError, ValueError (NaN)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def of_value(value: Any) -> str:
    """SHA-256 of a JSON value's canonical form."""
    return of_bytes(canonical(value))


def of_files(files: Mapping[str, Path]) -> str:
    """One hash over named files: renaming or changing any of them changes it; touching one does not."""
    return of_value({name: of_file(path) for name, path in files.items()})


def prediction_id(workspace: str, endpoint: str, request_id: str, row: int) -> str:
    """The id of one row of one request, known to the caller beforehand.

    "p-" and the first 16 bytes of SHA-256 of the four parts joined by the unit separator, in Crockford base32 (26
    digits, most significant first).

    >>> prediction_id("default", "churn", "r-1", 0)
    'p-5CGENE5ZR68CEWSVW4HD4JDWG1'
    """
    digest = hashlib.sha256("\x1f".join((workspace, endpoint, request_id, str(row))).encode()).digest()[:16]
    number, digits = int.from_bytes(digest, "big"), []
    for _ in range(26):
        number, place = divmod(number, 32)
        digits.append(_CROCKFORD[place])
    return "p-" + "".join(reversed(digits))
