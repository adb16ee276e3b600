"""The environment variables that processes with the project's code get: this one's, without the keys to our servers.

They need none of them: packages and data are files by the time they start. It keeps keys out of what such code prints,
reports and hands on. It is no wall: code of the same user can read what that user can.
"""

import os

_OURS = {
    "FAIRWAY_STORE", "FAIRWAY_BLOBS", "FAIRWAY_ONLINE", "FAIRWAY_TOKEN", "FAIRWAY_AUDIT_HEADS", "PGPASSWORD",
    "PGPASSFILE", "PGSERVICEFILE",
}  # fmt: skip


def without_keys() -> dict[str, str]:
    """The variables of this process without those that lead to the store, the blobs or the online state."""
    return {name: value for name, value in os.environ.items() if name not in _OURS and not name.startswith("AWS_")}
