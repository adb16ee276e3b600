"""The grammar: errors in one line, exit codes, --json, and what each verb prints from the store."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fairway.cli.main import ORDER, app, call
from fairway.store import tokens
from fairway.store.workspace import Workspace

Run = Callable[..., Any]
FILLED = Path(__file__).parents[1] / "web" / "filled_store.py"


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


def _filled_store() -> ModuleType:
    spec = importlib.util.spec_from_file_location("filled_store", FILLED)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace with a history. Tests that change something make their own with `fill`."""
    root = Path(tmp_path_factory.mktemp("cli"))
    workspace = _filled_store().fill(root)
    yield root
    workspace.store.close()


@pytest.fixture
def fill() -> Callable[[Path], Any]:
    made: Callable[[Path], Any] = _filled_store().fill
    return made


@pytest.fixture
def fairway(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Said]]:
    before = Path.cwd()

    def run(*arguments: str, at: Path) -> Said:
        os.chdir(at)
        code = call(list(arguments))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    yield run
    os.chdir(before)


EXECUTABLE = [sys.executable, "-m", "fairway.cli.main"]


def test_there_are_fifteen_verbs_in_order(fairway: Run, tmp_path: Path) -> None:
    said = fairway("--help", at=tmp_path)
    assert said.code == 0
    listed = re.findall(r"^  (\w+) ", said.out.split("Commands:")[1], re.MULTILINE)
    assert tuple(listed) == ORDER and len(ORDER) == 15


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from fairway.cli.main import call; call(['--help']);"
        "heavy = ('polars', 'numpy', 'sqlalchemy', 'sklearn', 'fastapi', 'jinja2', 'httpx');"
        "print(sorted(name for name in heavy if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_every_command_has_help_and_json() -> None:
    import typer

    def commands(group: Any, name: str) -> list[tuple[str, Any]]:
        found = []
        for verb, command in group.commands.items():
            full = f"{name} {verb}".strip()
            found += commands(command, full) if hasattr(command, "commands") else [(full, command)]
        return found

    for name, command in commands(typer.main.get_command(app), ""):
        options = {option for parameter in command.params for option in parameter.opts}
        if "not in this version" not in (command.help or ""):
            assert command.help, name
            assert "--json" in options or name == "serve", name
        if name in ("new", "deploy", "rollback", "answer", "admin token create"):
            assert "--dry-run" in options, name


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["trian"], 2, 'no command "trian"; did you mean train?'),
        (["statsu", "--json"], 2, "did you mean status?"),
        (["xyzzy"], 2, "there are: new, check"),
        (["status", "--nope"], 2, "no such option: --nope"),
        (["show"], 2, "missing argument"),
        (["train"], 2, "no fairway.toml in"),
        (["status"], 2, "no fairway workspace at or above"),
        (["score", "--data", "x.parquet"], 2, "fairway score is not in this version"),
        (["export", "churn@1", "out/"], 2, "fairway export is not in this version"),
        (["import", "mlflow", "http://x"], 2, "fairway import is not in this version"),
        (["admin", "retire"], 2, "fairway admin retire is not in this version"),
        (["backtest", "--from", "soon", "--to", "2014-06-01"], 2, "'soon' is no date"),
        (["backtest", "--from", "2014-06-01", "--to", "2014-05-01"], 2, "is not after"),
        (["backtest", "--from", "2014-05-01", "--to", "2014-06-01", "--retrain", "weekly"], 2, "--retrain takes"),
    ],
)
def test_errors_are_one_line_and_an_exit_code(
    arguments: list[str], code: int, text: str, fairway: Run, tmp_path: Path
) -> None:
    said = fairway(*arguments, at=tmp_path)
    assert said.code == code
    assert text in said.err and len(said.err.strip().splitlines()) == 1
    assert "Traceback" not in said.err


def test_json_errors_have_the_api_s_keys(fairway: Run, tmp_path: Path) -> None:
    said = fairway("show", "nope@3", "--json", at=tmp_path)
    assert set(json.loads(said.out)) == {"error", "code", "field"}


def test_our_own_failures_are_said_to_be_ours(monkeypatch: pytest.MonkeyPatch, fairway: Run, filled: Path) -> None:
    from fairway.registry import show

    monkeypatch.setattr(show, "runs", lambda store: 1 / 0)
    said = fairway("show", "runs", at=filled)
    assert said.code == 70 and "our failure: ZeroDivisionError" in said.err and "Traceback" not in said.err
    assert "Traceback" in fairway("show", "runs", "--debug", at=filled).err


def test_a_reader_that_has_gone_is_no_error(filled: Path) -> None:
    command = f"{sys.executable} -m fairway.cli.main show rollout-2 --json | head -c 10"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=filled, capture_output=True, text=True, check=False
    )
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr


# -- seeing ----------------------------------------------------------------------------------------------------------

SHOWS = {
    ("status",): ["NEEDS A PERSON", "review-1", "ROLLING OUT", "AUC 0.640", "fairway serve"],
    ("show", "late-flights"): ["90 % @2, 10 % @3", "rollout-2", "late-flights@3"],
    ("show", "late-flights@3"): ["waits for a person", "0.645 - 0.665", "210 ms"],
    ("show", "rollout-2"): ["canary 10 % here", "1,440", "acts at 40", "--recompute"],
    ("show", "alarm-1"): ["0.186", "retrain"],
    ("show", "review-1"): ["the shift is wanted", "fairway answer review-1 continue --why"],
    ("show", "run-bad1"): ['column "dist" not found', "--log"],
    ("show", "run-bad1", "--log"): ['column "dist" not found'],
    ("show", "run-0002"): ["58,000 rows", "report.html"],
    ("show", "runs"): ["run-bad1", "failed"],
    ("show", "reviews"): ["review-2", "open"],
    ("show", "alarms"): ["alarm-2"],
    ("show", "rollouts"): ["1 -> 2", "promoted"],
    ("show", "versions"): ["late-flights@2", "AUC 0.658"],
    ("show", "models"): ["churn"],
    ("show", "defaults"): ["fairway@1", "another named person approves"],
    ("rollback", "late-flights", "--dry-run"): ["would end rollout-2 and go back to @2"],
    ("answer", "review-1", "continue", "--dry-run"): ["would be recorded"],
    ("admin", "audit", "verify"): ["entries 1 to 2 unbroken", "cut tail"],
    ("admin", "token", "list"): ["this machine, .fairway/token", "never"],
}


@pytest.mark.parametrize("arguments", SHOWS, ids=" ".join)
def test_what_is_printed(arguments: tuple[str, ...], fairway: Run, filled: Path) -> None:
    said = fairway(*arguments, at=filled)
    assert said.code == 0, said.err
    assert not [text for text in SHOWS[arguments] if text not in said.out]
    as_json = fairway(*arguments, "--json", at=filled)
    assert as_json.code == 0
    json.loads(as_json.out)


@pytest.mark.parametrize("thing", ["run-none", "rollout-99", "alarm-99", "review-99", "data-none", "p-NONE", "x@9"])
def test_what_is_not_there_is_named(thing: str, fairway: Run, filled: Path) -> None:
    said = fairway("show", thing, at=filled)
    assert said.code == 2 and (thing in said.err or "no model 'x'" in said.err)


def test_recompute_says_equal(fairway: Run, filled: Path) -> None:
    said = fairway("show", "rollout-2", "--recompute", "--json", at=filled)
    assert json.loads(said.out)["equal"] is True
    lines = fairway("show", "rollout-2", "--recompute", at=filled).out.splitlines()
    assert lines[0].endswith("decided again from its stored sums: equal")
    assert any("ln evidence" in line for line in lines) and not any("differs" in line for line in lines)


def test_a_decision_without_tests_is_shown(fairway: Run, filled: Path) -> None:
    said = fairway("show", "rollout-1", at=filled)
    assert said.code == 0 and "promote" in said.out


# -- making ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path: Path) -> Path:
    import random

    draw = random.Random(7)
    lines = ["customer,months,plan,left"]
    for number in range(400):
        months, plan = draw.randint(0, 60), draw.choice(["basic", "plus"])
        left = "yes" if draw.random() < 0.6 - months / 120 - 0.1 * (plan == "plus") else "no"
        lines.append(f"c-{number},{months},{plan},{left}")
    path = tmp_path / "customers.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_new_says_what_it_decided_and_writes_a_project(fairway: Run, tmp_path: Path, table: Path) -> None:
    arguments = ["new", "leavers", "--data", table.name, "--target", "left"]
    tried = fairway(*arguments, "--dry-run", at=tmp_path)
    assert tried.code == 0 and "Nothing was written" in tried.out and not (tmp_path / "leavers").exists()
    said = fairway(*arguments, "--yes", at=tmp_path)
    assert said.code == 0, said.err
    assert "task" in said.out and "entity" in said.out and "Next: cd leavers && fairway train" in said.out
    assert (tmp_path / "leavers" / "fairway.toml").exists()
    assert fairway(*arguments, at=tmp_path).code == 2  # it is there already
    said = fairway("new", "other", "--data", table.name, "--target", "lef", "--json", at=tmp_path)
    assert said.code == 2 and "did you mean left?" in json.loads(said.out)["error"]


# -- acting ----------------------------------------------------------------------------------------------------------


def test_deploy_needs_something_that_serves(fairway: Run, filled: Path) -> None:
    said = fairway("deploy", "late-flights@2", at=filled)
    assert (said.code, said.err) == (
        2, "Nothing serves this workspace, so there is no traffic to move. Start it with: fairway serve\n"
    )  # fmt: skip


def test_pause_resume_and_rollback(fairway: Run, tmp_path: Path, fill: Callable[[Path], Any]) -> None:
    fill(tmp_path)
    assert "paused" in fairway("deploy", "late-flights", "--pause", at=tmp_path).out
    assert fairway("deploy", "late-flights", "--finish", at=tmp_path).code == 2  # it wants a reason
    said = fairway("rollback", "late-flights", "--why", "slow", at=tmp_path)
    assert said.code == 0
    assert said.out.startswith("late-flights: 3 -> 2 in ") and "Undo: fairway deploy late-flights@3" in said.out
    assert "no rollout of late-flights is open" in fairway("deploy", "late-flights", "--resume", at=tmp_path).err


def test_only_a_named_approver_approves(
    fairway: Run, tmp_path: Path, fill: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    said = fairway("answer", "review-2", "approve", "--why", "x", at=tmp_path)
    assert said.code == 1 and "needs the role approver" in said.err
    made = fairway("admin", "token", "create", "kim@example.com", "--role", "approver", "--json", at=tmp_path)
    monkeypatch.setenv("FAIRWAY_TOKEN", json.loads(made.out)["token"])
    said = fairway("rollback", "late-flights", at=tmp_path)
    assert said.code == 1 and "kim@example.com has no role scientist" in said.err
    said = fairway("answer", "review-2", "perhaps", at=tmp_path)
    assert said.code == 2 and "choices: approve, reject" in said.err
    monkeypatch.setenv("FAIRWAY_TOKEN", "fw_wrong")
    assert "is nobody's here" in fairway("rollback", "late-flights", at=tmp_path).err


def test_an_answer_is_recorded_with_its_reason(fairway: Run, tmp_path: Path, fill: Callable[[Path], Any]) -> None:
    fill(tmp_path)
    said = fairway("answer", "review-1", "continue", "--why", "wanted", at=tmp_path)
    assert said.code == 0 and said.out.startswith("recorded: continue, by ")
    assert "why        wanted" in fairway("show", "review-1", at=tmp_path).out
    assert fairway("answer", "review-1", "continue", at=tmp_path).code == 1


def test_a_changed_audit_entry_is_found(fairway: Run, tmp_path: Path, fill: Callable[[Path], Any]) -> None:
    import sqlalchemy as sa

    from fairway.store import schema

    workspace = fill(tmp_path)
    with workspace.store.write() as tx:
        tx.execute(sa.update(schema.audit).where(schema.audit.c.entry == 2).values(actor="somebody else"))
    said = fairway("admin", "audit", "verify", at=tmp_path)
    assert said.code == 1 and "audit entry 2" in said.err
    assert fairway("admin", "doctor", at=tmp_path).code == 1


def test_doctor_names_a_changed_blob(fairway: Run, tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    digest = workspace.blobs.put(b"bytes")
    assert fairway("admin", "doctor", at=tmp_path).code == 0
    workspace.blobs.path(digest).write_bytes(b"bytez")
    said = fairway("admin", "doctor", at=tmp_path)
    assert said.code == 1 and digest[:12] in said.out


# -- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_are_shown_once_and_kept_as_hashes(tmp_path: Path, fairway: Run) -> None:
    workspace = Workspace.create(tmp_path)
    said = fairway("admin", "token", "create", "kim", "--role", "viewer", "--role", "approver", at=tmp_path)
    token = said.out.splitlines()[0]
    assert token.startswith("fw_")
    identity = tokens.identify(workspace.store, token)
    assert identity is not None and identity.may("approver") and identity.may("viewer") and not identity.may("admin")
    assert tokens.identify(workspace.store, token + "x") is None
    assert token not in (tmp_path / ".fairway" / "store.db").read_bytes().decode(errors="replace")
    assert fairway("admin", "token", "create", "kim", "--role", "viewer", at=tmp_path).code == 2
    assert fairway("admin", "token", "create", "lee", "--role", "king", at=tmp_path).code == 2
    assert "approver" in fairway("admin", "token", "list", at=tmp_path).out


def test_an_expired_token_is_nobodys(tmp_path: Path) -> None:
    from datetime import timedelta

    from fairway import clock

    workspace = Workspace.create(tmp_path)
    token = tokens.create(
        workspace.store, name="old", roles=["admin"], actor="t", expires_at=clock.now() - timedelta(seconds=1)
    )
    assert tokens.identify(workspace.store, token) is None


def test_the_owner_is_no_approver(tmp_path: Path) -> None:
    workspace = Workspace.create(tmp_path)
    owner = tokens.identify_any(workspace, workspace.token())
    assert owner is not None and owner.local and owner.may("admin") and not owner.may("approver")


def test_no_terminal_is_needed(filled: Path) -> None:
    done = subprocess.run(
        [*EXECUTABLE, "status"], cwd=filled, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
        timeout=60, env={**os.environ, "NO_COLOR": "1"},
    )  # fmt: skip
    assert done.returncode == 0 and done.stderr == "" and "late-flights" in done.stdout


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from fairway.cli.main import main

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["trian"])
    assert ended.value.code == 2
    assert call(["--version"]) == 0
