"""Risk high: another person than the author lets a version go live, with a reason, and both are in the audit log."""

import json
from pathlib import Path

from commands import PATIENT, fairway, serving
from train_project import SETTINGS, write_project

from fairway.fingerprint import of_bytes
from fairway.store import audit
from fairway.store.workspace import Workspace

ROW = {"customer": "c1", "tenure": 3, "charges": 80.0, "plan": "pro"}


def make_token(root: Path, name: str, *roles: str) -> str:
    options = [word for role in roles for word in ("--role", role)]
    done = fairway(root, "admin", "token", "create", name, *options)
    assert done.code == 0, done.err
    token = done.out.splitlines()[0]
    assert token.startswith("fw_")
    return token


def test_a_second_person_lets_it_go_live(tmp_path: Path) -> None:
    settings = SETTINGS.replace("[data]", 'risk = "high"\nowner = "risk@example.com"\n[data]')
    root = write_project(tmp_path / "churn", settings=settings + PATIENT)
    workspace = Workspace.find(root)
    ana = make_token(root, "ana", "scientist", "approver")  # the author; being an approver does not help
    bo, kim = make_token(root, "bo", "scientist"), make_token(root, "kim", "approver")

    trained = fairway(root, "train", token=ana)
    assert trained.code == 0, trained.out + trained.err
    with serving(root) as target:

        def ask() -> tuple[int, dict]:
            status, body = target.call("/v1/models/churn/predict", json.dumps({"rows": [ROW]}).encode())
            return status, json.loads(body)

        deployed = fairway(root, "deploy", token=ana)
        assert deployed.code == 3, deployed.out + deployed.err
        assert "fairway answer review-1 approve --why" in deployed.out
        again = fairway(root, "deploy", token=ana)
        assert (again.code, "waiting" in again.err) == (1, True), again.err
        assert fairway(root, "show", "review-1").out.count("approve for production?") == 1

        why = ("--why", "agreed in committee, MC-212")
        for token, more, code, says in [
            (kim, (), 2, "an approval needs a reason; add --why"),
            (ana, why, 1, "refused: ana is the author of churn@1; another person must answer"),
            (bo, why, 1, "refused: review-1 needs the role approver, and bo has scientist"),
            (None, why, 1, "needs the role approver"),  # the person at this machine
            ("fw_" + "x" * 43, why, 1, "the token in FAIRWAY_TOKEN is nobody's here"),
        ]:
            refused = fairway(root, "answer", "review-1", "approve", *more, token=token)
            assert (refused.code, says in refused.err) == (code, True), refused.err
            assert refused.out == "" and len(refused.err.splitlines()) == 1
        status, body = ask()
        assert (status, body["code"]) == (404, "model_not_found")  # nothing was ever deployed

        approved = fairway(root, "answer", "review-1", "approve", *why, token=kim)
        assert approved.code == 0, approved.err
        assert "recorded: approve, by kim" in approved.out
        # The command returned, so every gateway has it.
        for _ in range(10):
            status, body = ask()
            assert (status, body["outputs"][0]["version"]) == (200, 1)
        twice = fairway(root, "answer", "review-1", "approve", *why, token=kim)
        assert (twice.code, "answered already: approve, by kim" in twice.err) == (1, True)
        assert "churn" in fairway(root, "status").out

    entries = audit.entries(workspace.store)
    (answer,) = [entry for entry in entries if entry.action == "review.answer"]
    assert (answer.actor, answer.subject, answer.detail["answer"]) == ("kim", "review-1", "approve")
    assert "MC-212" in answer.detail["why"]
    assert {e.action for e in entries if e.actor == "ana"} >= {"version_registered", "rollout.wait"}
    verified = fairway(root, "admin", "audit", "verify")
    assert (verified.code, f"entries 1 to {len(entries)} unbroken" in verified.out) == (0, True)
    # The tokens themselves are nowhere in the workspace, only their hashes.
    store = (root / ".fairway" / "store.db").read_bytes()
    for token in (ana, bo, kim):
        assert token.encode() not in store and of_bytes(token.encode()).encode() in store
    workspace.store.close()
