"""Erasure of one entity: its rows leave the datasets, the log, the packages' samples, and every text that names it.

Each piece is one transaction that also notes what it did, so a killed erasure goes on where it stood: run the same
command again. Ids stay (a dataset keeps its id, with `erased_at`), the audit chain stays whole and holds only a hash.
Models are not changed: what they learned can't be taken out of them; the versions that saw the rows are listed.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fairway.errors import UsageError
from fairway.keep import erasure_data, erasure_log, erasure_quotes
from fairway.keep.erasure_log import Forget
from fairway.keep.erasure_work import Work
from fairway.store.workspace import Workspace

Json = dict[str, Any]


@dataclass(frozen=True)
class Erased:
    """What an erasure did, or with `dry_run` would do.

    counts: rows and files by kind. versions: that were trained on rows which are gone; their models are as they were.
    waits: pieces of the log that are not folded yet and may hold rows of the entity; then it is not finished.
    yours: files outside the workspace that it does not touch.
    """

    erasure: str | None
    model: str
    counts: dict[str, int]
    versions: tuple[str, ...]
    waits: int
    yours: tuple[str, ...]
    dry_run: bool
    done: bool

    def as_dict(self) -> Json:
        """JSON form."""
        return {**vars(self), "versions": list(self.versions), "yours": list(self.yours)}


def erase(
    workspace: Workspace,
    model: str,
    *,
    entity: str | None = None,
    prediction: str | None = None,
    why: str,
    actor: str,
    now: datetime,
    dry_run: bool = False,
    wait_s: float = 0.0,
    forget: Forget = lambda source, column, value: 0,
) -> Erased:
    """Erase an entity of a model by its value, or one prediction by its id. Repeat it after a kill.

    wait_s: for pieces of the log to be folded that were begun before. forget: takes the events of an entity out of the
    online state.
    Raises: ModelNotFound; ThingNotFound for an unknown prediction; UsageError for a model without an entity column, or
    a reason that names the entity (it would stay in the audit log); Unfinished while runs of the model are under way.
    """
    work = Work(workspace, model, entity=entity, prediction=prediction, actor=actor, dry_run=dry_run)
    if work.person.is_in(why):
        raise UsageError("--why names what is to be erased, and the reason stays in the audit log", field="why")
    if not dry_run:
        work.begin(why, now)
        work.wait_for_fold(wait_s)
    erasure_log.log(work)
    if work.by_entity:
        erasure_log.units(work)
        erasure_data.datasets(work, now)
        erasure_log.sources(work, forget)
        erasure_data.packages(work)
        erasure_quotes.quotes(work)
        erasure_quotes.folders(work)
    waits = 0 if dry_run else work.waiting()
    if not dry_run:
        work.bury()
        work.end(done=not waits)
    return Erased(
        work.name, model, dict(sorted(work.counts.items())), tuple(sorted(work.versions)), waits, work.yours(), dry_run,
        not waits and not dry_run,
    )  # fmt: skip
