"""The workspace as the process of a job sees it: nothing is written once the job is in other hands."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

from sqlalchemy import Connection

from fairway.store import jobs
from fairway.store.base import Store
from fairway.store.jobs import Claim
from fairway.store.workspace import Workspace


class FencedStore(Store):
    """A store whose every write transaction begins with `jobs.guard`.

    So whatever the job's code writes carries its fence, without knowing of it: once another holder has taken the job,
    the former one, slow or cut off, can write nothing.
    """

    def __init__(self, url: str, held: Claim, *, workspace: str) -> None:
        self._held: Claim | None = None  # opening the store writes nothing of the job's
        super().__init__(url, workspace=workspace)
        self._held = held

    @contextmanager
    def write(self, *, closed_too: bool = False) -> Iterator[Connection]:
        """As of `Store`. Raises: LeaseLost."""
        with super().write(closed_too=closed_too) as tx:
            if self._held is not None:
                jobs.guard(self, tx, self._held)
            yield tx


@dataclass(frozen=True)
class FencedWorkspace(Workspace):
    """A workspace with a `FencedStore`."""

    held: Claim | None = field(default=None, compare=False)

    @cached_property
    def store(self) -> Store:
        opened = Workspace(self.root, self.name).store
        if self.held is None:
            return opened
        opened.close()
        return FencedStore(opened.url, self.held, workspace=opened.workspace)
