"""Warms a loaded model with its own held-out rows, so that the first caller doesn't wait for lazy imports."""

import logging
from pathlib import Path
from typing import Any

from fairway.runtime.loader import LoadedModel
from fairway.runtime.package import read_heldout
from fairway.serve import scoring

log = logging.getLogger(__name__)


def warm_rows(model: LoadedModel, folder: Path) -> None:
    """Score one row, then a few, of the package's held-out rows; an error is logged: a request will meet it too."""
    heldout = read_heldout(folder)
    rows: list[dict[str, Any]] = heldout["rows"][:8]
    at_name = model.settings.at
    for part in (rows[:1], rows):
        if not part:
            return
        columns = {c.name: [row.get(c.name) for row in part] for c in model.contract.request_columns}
        at_us: list[Any] = columns.pop(at_name) if at_name in columns else [0] * len(part)
        scored = scoring.score(model, columns, at_us, [None] * len(part))
        if failed := [error for error in scored["errors"] if error]:
            log.warning("a held-out row can't be scored: %s", failed[0])
