"""The example's own demo, when what comes back is nonsense: nothing that learned from it goes live."""

import os
import subprocess
import sys
from pathlib import Path

from fairway.data.project import load_project
from fairway.registry import show
from fairway.testing.summary import outcomes

EXAMPLE = Path(__file__).parents[2] / "examples" / "late-flights"


def test_shuffled_labels_end_with_the_candidate_refused_and_the_old_champion_serving(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "demo.py", "--days", "7", "--folder", str(tmp_path / "demo")],
        cwd=EXAMPLE,
        env=os.environ | {"FAULT": "labels_shuffled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    project = load_project(tmp_path / "demo")
    found = outcomes(project)
    verdicts = {version["version"]: version["verdict"] for version in found["versions"]}
    assert verdicts.pop(1) == "pass"
    assert verdicts and set(verdicts.values()) == {"fail"}, "the loop retrained, and the gate refused"
    assert any(alarm["kind"] == "performance" for alarm in found["alarms"])
    assert [(r["challenger"], r["phase"]) for r in found["rollouts"]] == [(1, "promoted")]
    assert show.endpoint(project.workspace.store, "late-flights")["champion"] == 1
