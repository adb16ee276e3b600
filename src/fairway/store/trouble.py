"""What a database's error means: gone, locked, full, read-only, damaged. Everything else is a mistake of ours."""

from sqlalchemy import exc

from fairway.errors import StoreError, StoreReadOnly, StoreUnavailable

# Said by a server that is starting, stopping or gone, or by the network before it: it may be back in a moment.
_GONE = (
    "connection refused",
    "the database system is",
    "server closed the connection",
    "terminating connection",
    "connection reset",
    "connection timeout",
    "timeout expired",
    "connection is lost",
    "connection is closed",
    "no such file or directory",  # a Unix socket whose server is down
    "too many clients",
    "remaining connection slots",
    "broken pipe",
    "eof detected",
    "could not receive data",
)
_LOCKED = ("database is locked", "database table is locked", "lock timeout", "deadlock detected")
_READ_ONLY = ("attempt to write a readonly", "read-only transaction", "read-only file")
_FULL = ("disk is full", "no space left", "could not extend file")
_DAMAGED = ("malformed", "not a database", "disk i/o error", "unable to open database")


def explain(error: exc.SQLAlchemyError, where: str) -> StoreError | None:
    """The StoreError that says it; None for what is no trouble of the database itself. `where`: the store's name."""
    if isinstance(error, exc.TimeoutError):
        return StoreUnavailable(f"all connections to the store {where} are in use; try again")
    if not isinstance(error, exc.DBAPIError):
        return None
    text = str(error.orig).lower()
    if is_gone(error):
        return StoreUnavailable(f"the store {where} can't be reached: {_line(error)}")
    if any(word in text for word in _LOCKED):
        held = "other writers held it for as long as this one may wait"
        return StoreUnavailable(f"the store {where} is locked: {held}; nothing was changed, try again")
    if any(word in text for word in _READ_ONLY):
        return StoreReadOnly(f"the store {where} is read-only: it can be read and served from, and not changed")
    if any(word in text for word in _FULL):
        return StoreUnavailable(f"the disk of the store {where} is full; nothing was changed, make space and try again")
    if any(word in text for word in _DAMAGED):
        return StoreError(f"the store {where} can't be read: {_line(error)}")
    if type(error.orig).__module__.startswith("psycopg") and isinstance(error, exc.OperationalError):
        return StoreUnavailable(f"the store {where}: {_line(error)}")  # SQLite says so of a wrong statement as well
    return None


def is_gone(error: BaseException) -> bool:
    """Whether the connection was lost, or could not be made because the server is down: worth another try soon."""
    if not isinstance(error, exc.DBAPIError):
        return False
    return error.connection_invalidated or (
        isinstance(error, exc.OperationalError | exc.InterfaceError)
        and any(word in str(error.orig).lower() for word in _GONE)
    )


def _line(error: exc.DBAPIError) -> str:
    lines = str(error.orig).strip().splitlines()
    return lines[0].strip() if lines else type(error.orig).__name__
