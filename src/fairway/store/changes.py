"""Waiting for another process's change: Postgres says it (LISTEN/NOTIFY), elsewhere the waiter looks by itself."""

import contextlib
import threading
from types import TracebackType
from typing import Any

from sqlalchemy import exc

from fairway import clock
from fairway.errors import StoreUnavailable
from fairway.store.base import Store
from fairway.store.trouble import explain

_LISTEN_S = 0.5  # one wait of the driver: how long `close` may have to wait for it


class Changes:
    """Wakes when a transaction that called `store.announce` commits, in this workspace. One waiting thread at a time.

    It only saves time: a notice is lost while the connection is away, so who waits also looks at intervals. The
    connection is its own, not one of the store's pool, and is made again when it broke.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._closed = threading.Event()
        self._connection: Any = None

    def wait(self, timeout_s: float) -> bool:
        """True as soon as something changed, or may have while nobody listened; False after `timeout_s` or when closed.

        On SQLite nothing is said: False after `timeout_s`. Raises: StoreUnavailable; then wait a little and call again.
        """
        if not self._store.is_postgres:
            self._closed.wait(timeout_s)
            return False
        until_s = clock.elapsed() + timeout_s
        try:
            if self._connection is None:
                self._connection = self._store.listen()
                return True  # before this nobody listened
            while not self._closed.is_set() and (left_s := until_s - clock.elapsed()) > 0:
                notices = self._connection.notifies(timeout=min(left_s, _LISTEN_S), stop_after=1)
                if any(notice.payload == self._store.workspace for notice in notices):
                    return True
        except exc.DBAPIError as error:  # of making the connection
            raise explain(error, self._store.name) or error from error
        except OSError as error:
            self._drop()
            raise self._lost(error) from error
        except Exception as error:
            if not hasattr(error, "sqlstate"):  # the driver's own kind, which only engine.py may name
                raise
            self._drop()
            raise self._lost(error) from error
        return False

    def _lost(self, error: Exception) -> StoreUnavailable:
        return StoreUnavailable(
            f"the store {self._store.name} can't be listened to: {str(error).strip() or 'it ended'}"
        )

    def close(self) -> None:
        """From any thread: a `wait` under way ends within half a second and returns False."""
        self._closed.set()

    def __enter__(self) -> "Changes":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        self._drop()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it is broken; there is nothing to say to its server
                connection.close()
