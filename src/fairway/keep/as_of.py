"""Production as it was at a time, with the evidence for it: told from the audit chain, checked against what is stored.

What served is read from the chain alone (`history`), since the endpoint's row only knows today. Everything beside it is
checked as far as the store allows: bytes against their hashes, rows against the entry that registered them, the
rollout's decision by deciding again from the sums that it saw.
"""

import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import fairway
from fairway import clock, fingerprint
from fairway.errors import FairwayError, ModelNotFound, StoreError, ThingNotFound
from fairway.registry import versions
from fairway.rollout import controller
from fairway.runtime.package import Manifest, read_manifest
from fairway.store import audit, heads, schema
from fairway.store.base import Store, jsonable
from fairway.store.workspace import Workspace

Json = dict[str, Any]
FORMAT = 1
_PUT = frozenset(("model", "champion", "previous", "challenger", "rollout", "shares", "shadows", "salt", "state"))

Reproduce = Callable[[str], Json]  # run -> {"outcome", "text"}


def history(store: Store, endpoint: str) -> list[Json]:
    """What the endpoint's row was after each change, oldest first: entry, at, actor, action, why, epoch, about and the
    columns of `endpoint`. From the audit chain, so it knows what the row has forgotten."""
    state: Json = dict.fromkeys(_PUT)
    found = []
    for row in audit.entries(store, subject=endpoint):
        if not isinstance(row.detail, Mapping) or "epoch" not in row.detail:
            continue
        state = state | {name: value for name, value in row.detail.items() if name in _PUT}
        found.append(
            state
            | {"entry": row.entry, "at": clock.iso(row.at), "actor": row.actor, "action": row.action}
            | {"why": row.detail.get("why"), "epoch": row.detail["epoch"], "about": row.detail.get("about") or {}}
        )
    return found


def production(store: Store, endpoint: str, at: datetime) -> Json | None:
    """The state of the endpoint at `at`, and since which entry its champion was champion; None before its first."""
    past = [state for state in history(store, endpoint) if clock.parse_iso(state["at"]) <= at]
    if not past:
        return None
    now = past[-1]
    since = now
    for state in reversed(past):
        if state.get("champion") != now.get("champion"):
            break
        since = state
    return now | {"since": {key: since[key] for key in ("entry", "at", "actor", "action", "why", "rollout")}}


def evidence(
    workspace: Workspace,
    model: str,
    *,
    at: datetime,
    copies: Sequence[heads.Head] = (),
    keys: Sequence[str] = (),
    reproduce: Reproduce | None = None,
) -> Json:
    """Everything that an auditor asks about one model at one time; JSON-able.

    copies: heads of the chain that were kept elsewhere. reproduce: trains a run again (minutes) and says what differs.
    Raises: ModelNotFound when the store has never heard of the model.
    """
    store = workspace.store
    state = production(store, model, at)
    _need_model(store, model, state)
    live = sorted({int(n) for n, share in ((state or {}).get("shares") or {}).items() if share})
    champion = (state or {}).get("champion")
    numbers = ([champion] if champion is not None else []) + [n for n in live if n != champion]
    chain = audit.walk(store, at={head.entry for head in copies})
    compared = heads.compare(workspace, chain, copies, keys=keys)
    return {
        "format": FORMAT,
        "fairway": fairway.__version__,
        "workspace": store.workspace,
        "model": model,
        "as_of": clock.iso(at),
        "made_at": clock.iso(clock.now()),
        "production": state,
        "versions": [_version(workspace, model, number, at) for number in numbers],
        "approval": _approval(store, state, at),
        "decision": _decision(store, (state or {}).get("since", {}).get("rollout")),
        "predictions": _predictions(workspace, model, at),
        "reproduce": _reproduced(store, model, champion, reproduce),
        "chain": {
            "entries": chain.entries,
            "broken_at": chain.broken_at,
            "head": None if compared is None else {"outcome": compared.outcome, "text": compared.text},
        },
    }


def problems(found: Json) -> list[str]:
    """What contradicts the record, in sentences; empty when everything that was checked holds."""
    said = []
    for version in found["versions"]:
        said += [f"{version['name']}: {text}" for text in version["problems"]]
    decision = found["decision"]
    if decision is not None and decision["same"] is False:
        said.append(f"{decision['rollout']}: its stored sums give another decision than the stored one")
    approval = found["approval"]
    if approval is not None and not approval["in_chain"]:
        said.append(f"{approval['review']}: its answer is not the one in the audit log")
    said += found["predictions"]["problems"]
    if found["chain"]["broken_at"] is not None:
        said.append(f"audit entry {found['chain']['broken_at']} is missing, out of order or changed")
    head = found["chain"]["head"]
    if head is not None and head["outcome"] != "same":
        said.append(head["text"])
    if found["reproduce"].get("outcome") == "differs":
        said.append(f"reproducing gave something else: {found['reproduce']['text']}")
    return said


def _need_model(store: Store, model: str, state: Json | None) -> None:
    if state is not None:
        return
    table = schema.model
    with store.read() as tx:
        known = list(tx.scalars(sa.select(table.c.model).where(table.c.workspace == store.workspace)))
    if model not in known:
        raise ModelNotFound(model, known=sorted(known))


# -- a version -------------------------------------------------------------------------------------------------------


def _version(workspace: Workspace, model: str, number: int, at: datetime) -> Json:
    row = versions.get(workspace.store, model, number)
    name, wrong = f"{model}@{number}", []
    registered = next(
        (e for e in audit.entries(workspace.store, subject=name) if e.action == "version_registered"), None
    )
    changes = [e for e in audit.entries(workspace.store, subject=name) if e.action == "version_erased"]
    expected = dict(registered.detail) if registered is not None else {}
    for change in changes:  # an erasure took a person out of the held-out sample: the chain says so
        expected |= {key: change.detail[key] for key in ("artifact", "content") if key in change.detail}
    for key in ("artifact", "dataset", "verdict", "run"):
        if registered is not None and expected.get(key) != getattr(row, key):
            wrong.append(f"its {key} is not the one that was registered (entry {registered.entry})")
    if expected.get("content") not in (None, versions.content_of(row)):
        wrong.append("its metrics, checks or settings are not those that were registered")
    manifest, package = _package(workspace, row.artifact)
    if manifest is None:
        wrong.append(package)
    dataset = _dataset(workspace, row.dataset)
    wrong += [dataset["problem"]] if dataset["problem"] else []
    verdicts: dict[str, int] = {}
    for check in row.checks:
        verdicts[check["verdict"]] = verdicts.get(check["verdict"], 0) + 1
    report = workspace.folder / "runs" / row.run / "report.html"
    code = {n: d for n, d in manifest.files.items() if n.startswith("code/")} if manifest else {}
    return {
        "name": name,
        "version": number,
        "run": row.run,
        "author": row.author,
        "created_at": clock.iso(row.created_at),
        "trained_until": clock.iso(row.trained_until) if row.trained_until else None,
        "registered_by_entry": registered.entry if registered is not None else None,
        "erasures": [e.entry for e in changes],
        "artifact": row.artifact,
        "package": package,
        "dataset": dataset,
        "contract": row.contract,
        "code": fingerprint.of_value(code) if code else None,
        "files": manifest.files if manifest else {},
        "environment": (manifest.environment.get("digest") or None) if manifest else None,
        "verdict": row.verdict,
        "checks": verdicts,
        "checks_listed": jsonable(row.checks),
        "metrics": jsonable(row.metrics),
        "settings": jsonable(row.settings),
        "report_sha256": fingerprint.of_file(report) if report.is_file() else None,
        "problems": wrong,
    }


def _package(workspace: Workspace, artifact: str) -> tuple[Manifest | None, str]:
    """Every file of a package against its hash, where it lies."""
    try:
        manifest = read_manifest(workspace.blobs.get(artifact))
        for digest in manifest.files.values():
            workspace.blobs.verify(digest)
    except FairwayError as exc:
        return None, str(exc)
    return manifest, "sha256 checked"


def _dataset(workspace: Workspace, dataset: str | None) -> Json:
    table = schema.dataset
    found: Json = {"dataset": dataset, "checked": False, "erased_at": None, "rows": None, "problem": None}
    if dataset is None:
        return found
    with workspace.store.read() as tx:
        row = tx.execute(
            sa.select(table).where(table.c.workspace == workspace.store.workspace, table.c.dataset == dataset)
        ).first()
    if row is None:
        return found | {"problem": f"{dataset} is not in the store any more"}
    found |= {"rows": row.rows, "erased_at": clock.iso(row.erased_at) if row.erased_at else None}
    try:
        for blob in {row.blob, *(row.parts or ())}:
            workspace.blobs.verify(blob)
    except FairwayError as exc:
        return found | {"problem": str(exc)}
    return found | {"checked": True}


# -- who and why -----------------------------------------------------------------------------------------------------


def _approval(store: Store, state: Json | None, at: datetime) -> Json | None:
    """The answered approval of the rollout that made the champion; None where none was asked for."""
    rollout = (state or {}).get("since", {}).get("rollout")
    if rollout is None:
        return None
    table = schema.review
    with store.read() as tx:
        row = tx.execute(
            sa.select(table)
            .where(
                table.c.workspace == store.workspace, table.c.kind == "approve", table.c.subject == rollout,
                table.c.answer == "approve", table.c.answered_at <= at,
            )
            .order_by(table.c.answered_at.desc())
        ).first()  # fmt: skip
    if row is None:
        return None
    entry = next((e for e in audit.entries(store, subject=row.review) if e.action == "review.answer"), None)
    same = entry is not None and (entry.actor, entry.detail.get("answer"), entry.detail.get("why")) == (
        row.answered_by, row.answer, row.why,
    )  # fmt: skip
    return {
        "review": row.review, "by": row.answered_by, "at": clock.iso(row.answered_at), "why": row.why,
        "not_by": row.not_by, "entry": entry.entry if entry is not None else None, "in_chain": same,
    }  # fmt: skip


def _decision(store: Store, rollout: str | None) -> Json | None:
    """The rollout's deciding look, decided again from its stored sums."""
    if rollout is None:
        return None
    with store.read() as tx:
        try:
            row = controller.find(store, tx, rollout)
        except ThingNotFound:
            return {"rollout": rollout, "same": None, "text": f"{rollout} is not in the store"}
    decided = row.decision or {}
    if decided.get("rule") == "person":
        return {"rollout": rollout, "same": None, "text": f"a person's: {decided.get('text')}", "stored": decided}
    try:
        again = controller.recompute(store, rollout)
    except ThingNotFound:
        return {"rollout": rollout, "same": None, "text": "no look was taken: there was no champion to compare with"}
    text = "recomputed from its stored sums: " + ("same" if again.equal else "differs")
    return {
        "rollout": rollout, "same": again.equal, "text": text, "look": again.look, "stored": again.stored,
        "computed": again.computed,
    }  # fmt: skip


def _predictions(workspace: Workspace, model: str, at: datetime) -> Json:
    """What the log holds of the UTC day of `at`; its files are checked against their hashes."""
    store = workspace.store
    start = at.replace(hour=0, minute=0, second=0, microsecond=0)
    end = start + timedelta(days=1)
    table, files = schema.prediction, schema.log_file
    that_day = sa.and_(
        table.c.workspace == store.workspace, table.c.endpoint == model, table.c.at >= start, table.c.at < end
    )
    with store.read() as tx:
        total = int(tx.scalar(sa.select(sa.func.count()).select_from(table).where(that_day)) or 0)
        labelled = int(
            tx.scalar(sa.select(sa.func.count()).select_from(table).where(that_day, table.c.label_at.is_not(None))) or 0
        )
        arms = tx.execute(sa.select(table.c.arm, sa.func.count()).where(that_day).group_by(table.c.arm)).all()
        blobs = tx.scalars(
            sa.select(files.c.blob).where(
                files.c.workspace == store.workspace, files.c.kind == "prediction", files.c.model == model,
                files.c.hour >= start, files.c.hour < end,
            )
        ).all()  # fmt: skip
    wrong = []
    for blob in blobs:
        try:
            workspace.blobs.verify(blob)
        except FairwayError as exc:
            wrong.append(f"log of {start:%d %b %Y}: {exc}")
    return {
        "day": start.strftime("%Y-%m-%d"), "rows": total, "labels": labelled, "files": len(blobs),
        "by_version": {str(arm): int(n) for arm, n in arms if arm is not None},
        "dropped": _dropped(store, model, start), "problems": wrong,
    }  # fmt: skip


def _dropped(store: Store, model: str, day: datetime) -> Json | None:
    """The entry that says this day's predictions were dropped, if they were."""
    for entry in audit.entries(store, subject=model):
        if entry.action == "log_dropped" and clock.parse_iso(entry.detail["before"]) > day:
            return {"entry": entry.entry, "at": clock.iso(entry.at)}
    return None


def _reproduced(store: Store, model: str, champion: int | None, reproduce: Reproduce | None) -> Json:
    if reproduce is None or champion is None:
        return {"outcome": "not run", "text": "not run"}
    return reproduce(versions.get(store, model, champion).run)


# -- the archive -----------------------------------------------------------------------------------------------------

_README = """What this archive holds

evidence.json    production of the model at the time asked for, and every check of it
summary.txt      the same in a few lines
report.html      the training report of the version that was champion; package/ what it was packaged with
entries.jsonl    the whole audit log, an entry per line. `hash` is the SHA-256 of the line's other fields as JSON with
                 sorted keys, no spaces, UTF-8; `previous` is the hash of the line before (64 zeros for the first)
head.json        the newest entry, signed (ed25519 over the other fields as JSON, as above)
copies/          heads of this log that were kept elsewhere, with which it was compared
"""


def write_zip(
    workspace: Workspace, found: Json, out: Path, *, lines: Iterable[str], copies: Sequence[heads.Head]
) -> Path:
    """All of it as one file, complete or not there. Raises: StoreError."""
    temporary = out.with_name(f".{out.name}.part")
    head = heads.sign(workspace)
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:

            def add(name: str, data: bytes) -> None:
                archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

            add("README.txt", _README.encode())
            add("evidence.json", fingerprint.canonical(jsonable(found)))
            add("summary.txt", ("\n".join(lines) + "\n").encode())
            for version in found["versions"][:1]:
                report = workspace.folder / "runs" / version["run"] / "report.html"
                if report.is_file():
                    add("report.html", report.read_bytes())
                for name in ("contract.toml", "fairway.toml"):
                    if (digest := version["files"].get(name)) is not None and digest in workspace.blobs:
                        add(f"package/{name}", workspace.blobs.get(digest))
                if version["artifact"] in workspace.blobs:
                    add("package/manifest.json", workspace.blobs.get(version["artifact"]))
            with archive.open(zipfile.ZipInfo("entries.jsonl"), "w") as file:
                for line in audit.lines(workspace.store):
                    file.write(line)
            add("head.json", head.to_bytes())
            for copy in copies:
                add(f"copies/{copy.workspace}-{copy.entry:010d}.json", copy.to_bytes())
        temporary.rename(out)
    except OSError as exc:
        raise StoreError(f"{out} can't be written: {exc.strerror}") from exc
    finally:
        temporary.unlink(missing_ok=True)
    return out
