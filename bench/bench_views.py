"""Views: 1,000,000 rows x 3 views x 1,000,000 events x 10 features, beside Polars' join_asof alone and Feast.

.venv/bin/python bench/bench_views.py            some minutes; the peer's environment is made once, with pip
.venv/bin/python bench/bench_views.py --smoke    20,000 rows, without the peer

"Latest" is each view's last event within 30 days: what join_asof and Feast do. Online: one read of 10 features of one
entity out of 100,000, in process. Larger than memory: ten times the rows and events, by parts of the entities.
"""

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
from common import PYTHON, median, scratch, table

PEER = Path(__file__).resolve().parents[1] / ".cache" / "peers" / "feast"
VIEWS, FEATURES, DAYS = 3, 10, 90
TIME = pl.Datetime("us", "UTC")

OURS = """
import json, resource, sys, time
from datetime import timedelta
from functools import partial
from pathlib import Path
import polars as pl
from fairway.contract.view import Feature, ViewSpec
from fairway.data import views
from fairway.data.view_parts import compute_files
kind, folder = sys.argv[1], Path(sys.argv[2])
hows = ["mean", "sum", "min", "max", "count"] if kind == "window" else ["last"]
specs = [
    ViewSpec(f"v{k}", f"s{k}", "id", timedelta(days=30), None,
             tuple(Feature(f"f{k}_{i}", f"f{k}_{i}", hows[i % len(hows)]) for i in range(10)))
    for k in range(3)
]
event_at = {f"s{k}": "time" for k in range(3)}
files = {f"s{k}": folder / f"s{k}.parquet" for k in range(3)}
read = partial(pl.read_parquet, low_memory=True)  # or reading alone takes 100 MB more than the tables
began = time.perf_counter()
if kind == "parts":
    compute_files(specs, folder / "rows.parquet", files, folder / "out.parquet", at="asked", event_at=event_at,
                  part_rows=1_000_000)
    seconds = time.perf_counter() - began
    out = pl.scan_parquet(folder / "out.parquet").select("row", "f0_3").collect()
else:
    rows, events = read(folder / "rows.parquet"), {n: read(p) for n, p in files.items()}
    if kind == "known":
        late = pl.duration(microseconds=pl.col("time").dt.timestamp("us") % 3_600_000_000)
        events = {name: frame.with_columns(_known_at=pl.col("time") + late) for name, frame in events.items()}
    began = time.perf_counter()
    out = views.compute(specs, rows, events, at="asked", event_at=event_at)
    seconds = time.perf_counter() - began
if kind == "latest":
    out.select("row", *(c for c in out.columns if c.startswith("f"))).write_parquet(folder / "wanted.parquet")
print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "rows": out.height, "found": out["f0_3"].count()}))
"""

ASOF = """
import json, resource, sys, time
from pathlib import Path
import polars as pl
folder = Path(sys.argv[1])
rows = pl.read_parquet(folder / "rows.parquet", low_memory=True)
events = [pl.read_parquet(folder / f"s{k}.parquet", low_memory=True) for k in range(3)]
began = time.perf_counter()
out = rows.sort("asked")
for frame in events:
    out = out.join_asof(frame.sort("time"), left_on="asked", right_on="time", by="id", strategy="backward",
                        tolerance="30d", check_sortedness=False).drop("time")
out = out.sort("row")
seconds = time.perf_counter() - began
print(json.dumps({"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "rows": out.height, "found": out["f0_3"].count()}))
"""

ONLINE = """
import json, random, sys, time
from pathlib import Path
from fairway.data.segment import EventRow
from fairway.serve.online import Ask, Slot, open_online, unpack
place, n = sys.argv[1], int(sys.argv[2])
online, slot, rng, now = open_online(place), Slot("s", "id"), random.Random(0), 1_700_000_000_000_000
online.watch([slot])
for start in range(0, 2 * n, 2_000):
    rows = []
    for i in range(start, start + 2_000):
        data = {"key": f"k{i}", "id": i % n, **{f"f{j}": rng.random() for j in range(10)}}
        rows.append(EventRow(f"k{i}", now + i, data, now + i))
    online.put("s", rows)
at, times = now + 10**9, []
for _ in range(20_000 if "://" not in place else 3_000):
    ask = Ask(slot, str(rng.randrange(n)), 0, at, True)
    began = time.perf_counter_ns()
    (found,) = online.read([ask])
    data = unpack(found[0].data)
    times.append(time.perf_counter_ns() - began)
    assert len(data) == 12
times.sort()
print(json.dumps({"p50": times[len(times) // 2] / 1000, "p99": times[int(len(times) * 0.99)] / 1000}))
"""

FEAST = """
import json, resource, sys, time, warnings
from datetime import timedelta
from pathlib import Path
warnings.filterwarnings("ignore")
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64
folder, kind = Path(sys.argv[1]), sys.argv[2]
store = FeatureStore(config=RepoConfig(
    project="bench", provider="local", registry=str(folder / f"registry-{kind}.db"),
    offline_store={"type": kind}, online_store={"type": "sqlite", "path": str(folder / f"online-{kind}.db")},
    entity_key_serialization_version=3,
))
entity = Entity(name="id", join_keys=["id"], value_type=ValueType.INT64)
views = [
    FeatureView(name=f"v{k}", entities=[entity], ttl=timedelta(days=30),
                schema=[Field(name=f"f{k}_{i}", dtype=Float64) for i in range(10)],
                source=FileSource(path=str(folder / f"s{k}.parquet"), timestamp_field="time"))
    for k in range(3)
]
store.apply([entity, *views])
rows = pd.read_parquet(folder / "rows.parquet").rename(columns={"asked": "event_timestamp"})
began = time.perf_counter()
out = store.get_historical_features(rows, [f"v{k}:f{k}_{i}" for k in range(3) for i in range(10)]).to_df()
seconds = time.perf_counter() - began
wanted = pd.read_parquet(folder / "wanted.parquet").set_index("row")
got = out.drop_duplicates("row").set_index("row")["f0_3"]
told = wanted["f0_3"].dropna()
right = int((got.reindex(told.index) == told).sum())
result = {"seconds": seconds, "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "rows": len(got),
          "found": right}
if kind == "duckdb":
    frame = pd.read_parquet(folder / "s0.parquet").drop_duplicates("id").head(1000)
    store.write_to_online_store("v0", frame)
    ids, times = frame["id"].tolist(), []
    for n in range(300):
        began = time.perf_counter_ns()
        store.get_online_features([f"v0:f0_{i}" for i in range(10)], [{"id": ids[n]}]).to_dict()
        times.append(time.perf_counter_ns() - began)
    result["online_p50"] = sorted(times)[150] / 1000
print("RESULT" + json.dumps(result))
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--smoke", action="store_true", help="a small size, to see that it runs")
    smoke = arguments.parse_args().smoke
    n, folder = (20_000 if smoke else 1_000_000), scratch()
    make_tables(folder, n)
    runs = 1 if smoke else 3
    ours = {kind: [ask([PYTHON, "-c", OURS, kind, str(folder)]) for _ in range(runs)] for kind in
            ("latest", "known", "window")}  # fmt: skip
    asof = [ask([PYTHON, "-c", ASOF, str(folder)]) for _ in range(runs)]
    ours_s, asof_s = median([r["seconds"] for r in ours["latest"]]), median([r["seconds"] for r in asof])
    rows = [
        (f"latest values, {VIEWS} views of {FEATURES}", figure(ours["latest"]), "<= 3 s, <= 700 MB"),
        ("the same, events known up to 1 h late", figure(ours["known"]), ""),
        ("windows of 30 d: mean, sum, min, max, count", figure(ours["window"]), ""),
        ("Polars' join_asof alone, by the same key", figure(asof), f"ours / it: {ours_s / asof_s:.2f}"),
        ("rows kept; values found", f"{ours['latest'][0]['rows']:,}; {ours['latest'][0]['found']:,} of "
                                    f"{asof[0]['found']:,} of join_asof", "all"),
    ]  # fmt: skip
    feast = {} if smoke else {kind: peer(folder, kind) for kind in ("duckdb", "file")}
    for kind, found in feast.items():
        if "error" in found:
            rows.append((f"Feast, {kind} offline store", f"failed: {found['error']}", ""))
            continue
        told = (
            f"{found['seconds']:.2f} s, {found['mb']:,.0f} MB; {found['found']:,} of {asof[0]['found']:,} values right"
        )
        rows.append((f"Feast, {kind} offline store", told, f"it / ours: {found['seconds'] / ours_s:.1f}"))
    table(f"views over {n:,} rows and {n:,} events each (medians of {runs}; MB: whole process with its tables)", rows)

    online = ask([PYTHON, "-c", ONLINE, str(folder / "online.db"), str(1_000 if smoke else 100_000)])
    rows = [("SQLite in process, p50 (p99)", f"{online['p50']:.1f} us ({online['p99']:.1f})", "<= 15 us")]
    for name, url in servers(folder):
        found = ask([PYTHON, "-c", ONLINE, url, "1000"])
        rows.append((f"{name} on this machine, p50 (p99)", f"{found['p50']:.0f} us ({found['p99']:.0f})", ""))
    if (theirs := feast.get("duckdb", {}).get("online_p50")) is not None:
        ratio = theirs / online["p50"]
        rows.append(
            ("Feast's SQLite online store, 1,000 entities, p50", f"{theirs:,.0f} us", f"it / ours: {ratio:,.0f}")
        )
    table("one read of 10 features of one entity, exact for its `at`", rows)

    large = folder / "large"
    large.mkdir()
    make_tables(large, n * 10)
    found = ask([PYTHON, "-c", OURS, "parts", str(large)])
    size = sum(p.stat().st_size for p in large.glob("[rs]*.parquet")) / 1e6
    told = f"{found['seconds']:.1f} s, {found['mb']:,.0f} MB, {found['rows']:,} rows kept"
    table(
        f"larger than memory: {n * 10:,} rows, {size:,.0f} MB of Parquet, by parts of 1,000,000",
        [("latest values", told, "")],
    )
    shutil.rmtree(folder)


def make_tables(folder: Path, n: int) -> None:
    """rows (row, id, asked) and per view a source (id, time, 10 features); ids and times drawn alike."""
    rng = np.random.default_rng(0)

    def drawn() -> tuple[np.ndarray, pl.Series]:
        times = rng.integers(0, DAYS * 86_400_000_000, n) + 1_700_000_000_000_000
        return rng.integers(0, n // 10, n), pl.Series(times).cast(TIME)

    ids, times = drawn()
    pl.DataFrame({"row": np.arange(n), "id": ids, "asked": times}).write_parquet(folder / "rows.parquet")
    for k in range(VIEWS):
        ids, times = drawn()
        columns = {f"f{k}_{i}": rng.normal(size=n) for i in range(FEATURES)}
        pl.DataFrame({"id": ids, "time": times, **columns}).write_parquet(folder / f"s{k}.parquet")


def ask(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def figure(found: list[dict[str, float]]) -> str:
    return f"{median([r['seconds'] for r in found]):.2f} s, {median([r['mb'] for r in found]):,.0f} MB"


def peer(folder: Path, kind: str) -> dict:
    python = PEER / "bin" / "python"
    if not python.exists() or subprocess.run([python, "-c", "import feast"], capture_output=True).returncode:
        PEER.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "venv", PEER], check=True)
        subprocess.run([PEER / "bin" / "pip", "install", "--quiet", "feast[duckdb]"], check=True)
    done = subprocess.run([python, "-c", FEAST, str(folder), kind], capture_output=True, text=True, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    if not told:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:90]}
    return json.loads(told[-1].removeprefix("RESULT"))


def servers(folder: Path):
    """URLs of a Postgres and a Redis of our own, where they are installed; ended afterwards."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "backends"))
    import postgres_server
    import redis_server

    if shutil.which("redis-server"):
        redis = redis_server.RedisServer()
        try:
            yield "Redis", redis.new_url()
        finally:
            redis.remove()
    if postgres_server.binaries() is not None:
        postgres = postgres_server.PostgresServer()
        try:
            yield "Postgres", postgres.new_database()
        finally:
            postgres.remove()


if __name__ == "__main__":
    main()
