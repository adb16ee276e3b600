"""Every error that fairway raises on purpose, as one tree; `code` names the cause for machines.

FairwayError
  UsageError            the command, a name or a setting is wrong            exit 2
    SettingsError       fairway.toml or contract.toml
    ProjectNotFound, ModelNotFound, VersionNotFound, ThingNotFound
    NotServed           nothing serves this workspace
    MissingExtra        an optional dependency is not installed
  Refused               gate, data, model code, rollout or a rule said no    exit 1
    DataError           the table: file, row, column and reason
    ContractViolation   rows break a declared rule
    ModelCodeError      model.py raised, hung, exited or was killed
    GateFailed, RolloutRefused, NotAllowed
    TamperFound         bytes differ from their recorded hash
  RequestError          a caller's mistake over HTTP (4xx), with its field
  Unfinished            not decided, or waiting for a person                 exit 3
    SourceHeld          a table is late, empty or shrunk, and its owner is asked
    EnvironmentFailed   a run's environment can't be built again
  StoreError            the store cannot be read or written                  exit 70
    LeaseLost           another process has this job, or it was ended
    StoreUnavailable    not now: connection lost, locked, disk full; the same again may succeed
      StoreReadOnly     it can only be read                                  exit 2
    StoreMoved          this workspace lives in another store now, or is on its way                          exit 2
    SegmentBroken       a piece of the prediction log is damaged; it is set aside
"""

from collections.abc import Sequence


class FairwayError(Exception):
    """Base of all; `str(error)` is one readable sentence, `code` is stable, `exit_code` is the command line's."""

    code = "internal"
    exit_code = 70

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field


class UsageError(FairwayError):
    """The command, a name or an argument is wrong; nothing was run."""

    code = "usage"
    exit_code = 2


class SettingsError(UsageError):
    """fairway.toml or contract.toml can't be read: file, line, key and what was expected."""

    code = "settings"

    def __init__(self, message: str, *, file: str, line: int | None = None, field: str | None = None) -> None:
        self.file, self.line = file, line
        where = f"{file} line {line}: " if line else f"{file}: "
        super().__init__(where + message, field=field)


class ProjectNotFound(UsageError):
    """No fairway.toml at or above the folder."""

    code = "project_not_found"


class ModelNotFound(UsageError, LookupError):
    """No such model in the workspace."""

    code = "model_not_found"

    def __init__(self, model: str, *, known: Sequence[str] = ()) -> None:
        self.model, self.known = model, tuple(known)
        hint = f"; known: {', '.join(known)}" if known else "; none registered yet"
        super().__init__(f"no model {model!r}{hint}")


class VersionNotFound(UsageError, LookupError):
    """No such version of this model in the registry."""

    code = "version_not_found"

    def __init__(self, model: str, version: int, *, known: Sequence[int] = ()) -> None:
        self.model, self.version, self.known = model, version, tuple(known)
        hint = f"; known: {', '.join(map(str, self.known))}" if known else "; none registered yet"
        super().__init__(f"model {model!r} has no version {version}{hint}")


class ThingNotFound(UsageError, LookupError):
    """No run, rollout, alarm, review, dataset or prediction with this id."""

    code = "not_found"


class NotServed(UsageError):
    """Nothing serves this workspace, so there is no traffic to move."""

    code = "not_served"


class MissingExtra(UsageError, ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    code = "missing_extra"


class Refused(FairwayError):
    """Something that must hold did not; what was there before stays."""

    code = "refused"
    exit_code = 1


class DataError(Refused):
    """The table can't be used: file, row, column, value and what to try."""

    code = "data"

    def __init__(
        self, message: str, *, file: str | None = None, row: int | None = None, column: str | None = None
    ) -> None:
        self.file, self.row, self.column = file, row, column
        where = ", ".join(
            part for part in (file, f"row {row:,}" if row is not None else None, f"column {column}" if column else None)
            if part
        )  # fmt: skip
        super().__init__(f"{where}: {message}" if where else message, field=column)


class ContractViolation(DataError):
    """Rows break a rule that a person declared in contract.toml."""

    code = "contract"


class ModelCodeError(Refused):
    """model.py raised, hung, exited or was killed; `trace` has the details for the run's log."""

    code = "model_code"

    def __init__(self, message: str, *, trace: str = "") -> None:
        self.trace = trace
        super().__init__(message)


class GateFailed(Refused):
    """A version exists but may not be deployed: which checks failed."""

    code = "gate"


class RolloutRefused(Refused):
    """This rollout can't start, or can't be changed like this."""

    code = "rollout"


class NotAllowed(Refused):
    """The caller's token or role does not permit this."""

    code = "not_allowed"


class TamperFound(Refused):
    """Stored bytes differ from the hash they were registered with."""

    code = "tamper"


class RequestError(FairwayError):
    """A caller's mistake over HTTP. `status` is its 4xx or 503, `code` is per instance."""

    exit_code = 1

    def __init__(self, message: str, *, code: str, status: int, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.code, self.status = code, status


class Unfinished(FairwayError):
    """Not decided, or waiting for a person or a process; says for what."""

    code = "unfinished"
    exit_code = 3


class SourceHeld(Unfinished):
    """A table is late, empty or shrunk: nothing is trained on it until its owner has answered, or it is as before."""

    code = "source_held"

    def __init__(self, message: str, *, review: str) -> None:
        self.review = review
        super().__init__(message)


class EnvironmentFailed(Unfinished):
    """A run's recorded environment can't be built again here: a package or Python itself is not to be had."""

    code = "environment"


class StoreError(FairwayError):
    """The store can't be read or written, or is newer than this fairway."""

    code = "store"


class StoreUnavailable(StoreError):
    """The store can't be reached or written at the moment; nothing is half written, and the same again may succeed.

    When the connection broke during the commit itself, the transaction may be there: a repeated command must look.
    """

    code = "store_unavailable"


class StoreReadOnly(StoreUnavailable):
    """The store can be read and served from, and not written."""

    code = "store_read_only"
    exit_code = 2


class StoreMoved(StoreError):
    """The workspace was moved to another store, or is being moved: nothing is written here."""

    code = "store_moved"
    exit_code = 2


class SegmentBroken(StoreError):
    """A sealed piece of the prediction log can't be read; no try will succeed."""

    code = "segment_broken"


class LeaseLost(StoreError):
    """A job's holder lost it: its lease ended and another took it, or it was ended. Nothing more may be written."""

    code = "lease_lost"
