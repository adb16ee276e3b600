"""`fairway admin audit`: the chain, its signed heads, and production as it was at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fairway.cli.run import parse_time
from fairway.cli.terminal import JsonFlag, emit, progress
from fairway.cli.things import allowed, parse_model, workspace_here
from fairway.errors import Refused, UsageError
from fairway.web.words import local

if TYPE_CHECKING:
    from fairway.store.heads import Head
    from fairway.store.workspace import Workspace

Json = dict[str, Any]


class _Audit(TyperGroup):
    """`audit MODEL --as-of TIME` beside `audit verify` and `audit head`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return "of", self.commands["of"], args
        return super().resolve_command(ctx, args)


audit = typer.Typer(
    help="The audit log: verify it, sign its head, or MODEL --as-of TIME: production as it was.",
    cls=_Audit, no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip

HeadOption = Annotated[
    list[Path] | None,
    typer.Option("--head", metavar="FILE", help="A signed head; repeatable. Default: those in FAIRWAY_AUDIT_HEADS."),
]
KeyOption = Annotated[
    list[str] | None, typer.Option("--key", metavar="HEX", help="A public key to trust besides this workspace's.")
]


def register(app: typer.Typer) -> None:
    app.add_typer(audit, name="audit")


@audit.command("verify")
def audit_verify(head: HeadOption = None, key: KeyOption = None, json: JsonFlag = False) -> None:
    """Check that no entry was changed, removed or moved, and compare with the heads kept elsewhere."""
    from fairway.store import audit as log
    from fairway.store import heads

    workspace = workspace_here()
    copies = _copies(workspace, head)
    chain = log.walk(workspace.store, at={copy.entry for copy in copies})
    if chain.broken_at is not None:
        raise Refused(f"audit entry {chain.broken_at} is missing, out of order or changed; entries before it are whole")
    compared = heads.compare(workspace, chain, copies, keys=key or ())
    if compared is not None and compared.outcome != "same":
        raise Refused(compared.text)
    found = None if compared is None else {"outcome": compared.outcome, "text": compared.text}
    emit(
        {"entries": chain.entries, "broken_at": None, "head": found},
        json=json,
        lines=lambda: [
            f"entries 1 to {chain.entries:,} unbroken" if chain.entries else "the audit log is empty",
            f"{compared.text}. Entries after that copy rest on this store alone."
            if compared is not None
            else "A cut tail can't be told from this store alone: that takes a copy of the head kept elsewhere "
            f"({heads.VARIABLE}, or --head FILE).",
        ],
    )


@audit.command("head")
def audit_head(
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Default: to FAIRWAY_AUDIT_HEADS.")] = None,
    json: JsonFlag = False,
) -> None:
    """Sign the newest entry's number and hash; keep the file where nobody who can change this store can change it."""
    from fairway.store import heads

    workspace = workspace_here()
    allowed(workspace, "admin")
    place = heads.elsewhere()
    if out is None and place is None:
        raise UsageError(f"where to? Name a file with --out, or a place with {heads.VARIABLE}", field="out")
    if out is not None:
        made = heads.sign(workspace)
        _write(out, made.to_bytes())
        where = str(out)
    else:
        made, where = heads.write_elsewhere(workspace, str(place)), str(place)
    emit(
        {**vars(made), "written_to": where},
        json=json,
        lines=lambda: [
            f"entry {made.entry:,}, {made.hash[:12]}, {local(made.at)}: signed with key {made.public_key[:12]}",
            f"written to {where}",
        ],
    )


@audit.command("of", hidden=True)
def audit_of(
    model: Annotated[str, typer.Argument(metavar="MODEL")],
    as_of: Annotated[str, typer.Option("--as-of", metavar="TIME", help="A date, or a time with its zone.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE.zip", help="Everything, as one file.")] = None,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Train the version again and compare; takes as long as training.")
    ] = False,
    head: HeadOption = None,
    key: KeyOption = None,
    json: JsonFlag = False,
) -> None:
    """Production as it was: what served, made from what, approved by whom, on which evidence."""
    from fairway import clock
    from fairway.keep import as_of as past

    workspace = workspace_here()
    allowed(workspace, "viewer")
    at = parse_time(as_of, option="--as-of")
    if at > clock.now():
        raise UsageError(f"--as-of {as_of} lies in the future", field="as_of")
    if out is not None and out.suffix != ".zip":
        raise UsageError(f"--out {out} must end in .zip", field="out")
    copies = _copies(workspace, head)
    found = past.evidence(
        workspace, parse_model(model).model, at=at, copies=copies, keys=key or (),
        reproduce=(lambda run: _reproduced(workspace, run)) if reproduce else None,
    )  # fmt: skip
    wrong = past.problems(found)
    lines = as_of_lines(found, wrong)
    if out is not None:
        past.write_zip(workspace, found, out, lines=lines, copies=copies)
    emit(
        {**found, "problems": wrong, "out": str(out) if out else None},
        json=json,
        lines=lambda: [*lines, *([f"written to {out}"] if out else [])],
    )
    if wrong:
        raise typer.Exit(1)


def _reproduced(workspace: "Workspace", run: str) -> Json:
    from fairway.path.reproduce import reproduce

    progress(f"reproducing {run} ...")
    again = reproduce(workspace, run)
    text = f"identical, in {again.seconds:.0f} s"
    if not again.identical:
        text = "differs: " + "; ".join(d.what for d in again.differences[:3])
    return {"outcome": "same" if again.identical else "differs", "text": text, "details": again.as_dict()}


def _copies(workspace: "Workspace", files: Sequence[Path] | None) -> "list[Head]":
    from fairway.store import heads

    if files:
        return [heads.head_file(path) for path in files]
    place = heads.elsewhere()
    return heads.kept(workspace, place) if place is not None else []


def _write(path: Path, data: bytes) -> None:
    try:
        path.write_bytes(data)
    except OSError as exc:
        raise UsageError(f"{path} can't be written: {exc.strerror}", field="out") from exc


# -- lines -----------------------------------------------------------------------------------------------------------

_PAD = 14


def _line(name: str, text: str, *, indent: str = "  ") -> str:
    return f"{indent}{name:<{_PAD - len(indent)}}{text}"


def as_of_lines(found: Json, wrong: Sequence[str]) -> list[str]:
    """The evidence as a person reads it; what contradicts the record comes last."""
    from fairway import clock

    at = clock.parse_iso(found["as_of"])
    state = found["production"]
    lines = [f"production at {at:%Y-%m-%d %H:%M} UTC   " + _served(found["model"], state)]
    for version in found["versions"]:
        lines += _version_lines(version, found, alone=len(found["versions"]) == 1)
    if state is not None and state.get("champion") is not None:
        lines.append(_line("approved by", _approved(found)))
        lines.append(_line("evidence", _evidence(found)))
    day = found["predictions"]
    told = f"{day['rows']:,} that day in the log; labels for {day['labels']:,}"
    if day["dropped"] is not None:
        told = f"dropped by retention on {local(day['dropped']['at'])} (entry {day['dropped']['entry']:,})"
    lines += [_line("predictions", told), _line("chain", _chain(found["chain"]), indent="")]
    lines += [_line("WRONG", text, indent="") for text in wrong]
    return lines


def _served(model: str, state: Json | None) -> str:
    if state is None:
        return f"{model}: nothing had been deployed"
    if state.get("state") == "retired":
        return f"{model}: retired"
    if state.get("champion") is None:
        return f"{model}: no champion; callers got 503"
    since = state["since"]
    shares = ", ".join(f"{share:.0%} @{number}" for number, share in state["shares"].items() if share)
    alone = len([share for share in state["shares"].values() if share]) == 1
    by = f"by {since['rollout']}" if since["rollout"] else f"by {since['action']} of {since['actor']}"
    return f"{model}@{state['champion']}, {'100 %' if alone else shares}, champion since {clock_text(since['at'])} {by}"


def clock_text(at: str) -> str:
    from fairway import clock

    return f"{clock.parse_iso(at):%d %b %Y %H:%M}"


def _version_lines(version: Json, found: Json, *, alone: bool) -> list[str]:
    data = version["dataset"]
    checked = "sha256 checked" if data["checked"] else "NOT checked"
    erased = f", rows erased on {clock_text(data['erased_at'])}" if data["erased_at"] else ""
    code = f"code {version['code'][:7]}" if version["code"] else "code unknown"
    lock = f"environment {version['environment'][:7]}" if version["environment"] else "environment unknown"
    again = found["reproduce"]["text"]
    hint = " (add --reproduce)" if found["reproduce"]["outcome"] == "not run" else ""
    made = f"{(data['dataset'] or 'no dataset')[:11]} ({checked}{erased}), {code}, {lock}; reproduce: {again}{hint}"
    return [_line("made from" if alone else f"@{version['version']} from", made)]


def _approved(found: Json) -> str:
    author = next((v["author"] for v in found["versions"]), "unknown")
    given = found["approval"]
    if given is None:
        return f"nobody: no approval was asked for; author {author}"
    return f'{given["by"]}, {clock_text(given["at"])}, "{given["why"]}"; author {author}'


def _evidence(found: Json) -> str:
    version = found["versions"][0]
    checks = version["checks"]
    told = sum(n for verdict, n in checks.items() if verdict != "skip")
    gate = f"gate {checks.get('pass', 0)} of {told}"
    decision = found["decision"]
    return gate + ("" if decision is None else f"; rollout decision {decision['text']}")


def _chain(chain: Json) -> str:
    if chain["broken_at"] is not None:
        return f"broken at entry {chain['broken_at']:,}; entries before it are whole"
    whole = f"entries 1 to {chain['entries']:,} unbroken"
    if chain["head"] is None:
        return f"{whole}; no head kept elsewhere, so a cut tail can't be told"
    return f"{whole}; {chain['head']['text']}. Entries after that copy rest on this store alone."
