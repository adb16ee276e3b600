"""Every change that a command makes to the disk, with a kill, a full disk and an I/O error at it (RELIABILITY 7, 8).

.venv/bin/python bench/bench_disk_faults.py             every 10th change of each command, about 40 minutes
.venv/bin/python bench/bench_disk_faults.py --every 1   all of them, some hours
.venv/bin/python bench/bench_disk_faults.py --smoke     three of each
"""

import argparse
import sys
from pathlib import Path

from common import scratch, table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "faulty"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "journeys"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends"))

from postgres_server import PostgresServer
from sweep import KINDS, Disk, sweep
from swept import commands


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--every", type=int, default=10, metavar="N", help="each N-th change (default 10)")
    arguments.add_argument("--only", action="append", metavar="COMMAND", help="train, deploy, rollback, gc or move")
    arguments.add_argument("--smoke", action="store_true", help="a small size, to see that it runs")
    options = arguments.parse_args()
    folder, server, rows, bad = scratch(), PostgresServer(), [], 0
    disk = Disk(folder)
    try:
        for name, command in commands(folder, server.new_database).items():
            if options.only and name not in options.only:
                continue
            with command.prepare() as root:
                changes = disk.run(command.arguments(), root).changes
            points = range(1, changes + 1, max(1, changes // 3) if options.smoke else options.every)
            found = sweep(disk, command.prepare, command.arguments, points, holds=command.holds)
            wrong = [f for f in found if f.trouble]
            for f in wrong:
                print(f"{name}, {f.kind} at {f.at}: {f.trouble}")
            counted = ", ".join(
                f"{kind} {sum(f.kind == kind for f in wrong)} of {sum(f.kind == kind for f in found)}" for kind in KINDS
            )
            rows.append((f"{name}: bad at {len(points)} of {changes} changes", counted, "0"))
            bad += len(wrong)
    finally:
        server.remove()
    table("a kill, a full disk, an I/O error at a change to the disk", rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
