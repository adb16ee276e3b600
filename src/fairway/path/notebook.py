"""A project in a notebook: the frames that train() would get, to try things on."""

from typing import Any

from fairway import clock
from fairway.data.project import Project
from fairway.data.snapshot import snapshot, source_events
from fairway.errors import UsageError
from fairway.path.split import split
from fairway.runtime.code import import_code
from fairway.training import work
from fairway.training.targets import encode

PARTS = ("train", "heldout")


class NotebookProject(Project):
    """A project whose frames can be looked at. Its code runs here when they are asked for: a run never does that."""

    def frame(self, part: str = "train") -> tuple[Any, Any]:
        """(X, y) of the rows that are trained on ("train") or held back ("heldout"), as features() makes them now.

        Polars, or pandas where train() is annotated so; y as train() gets it: 0 and 1, codes of classes, or numbers.
        model.py is imported anew each time. Raises: DataError, ContractViolation, ModelCodeError, what model.py raises.
        """
        if part not in PARTS:
            raise UsageError(f"no part {part!r} of the rows; it is {' or '.join(PARTS)}", field="part")
        now = clock.now()
        taken = snapshot(self, now=now)
        events = {name: source_events(self, name, now=now) for name in self.settings.sources}
        code = import_code(self.root)
        _, X, _ = work.make_features(code, self.settings, self.contract, taken.frame, events)
        y, _ = encode(taken.frame[self.settings.target], self.contract.column(self.settings.target), self.settings)
        test = split(taken.frame, self.settings).test
        mask = ~test if part == "train" else test
        return work.as_given(code, X.filter(mask), y.filter(mask))


def opened(project: Project) -> NotebookProject:
    return NotebookProject(project.root, project.settings, project.contract, project.workspace)
