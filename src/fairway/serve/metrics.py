"""Counters of one gateway, in the text form of Prometheus. A series carries its gateway, so none are merged."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

_HELP = {
    "fairway_requests_total": ("counter", "Requests by endpoint and status."),
    "fairway_predictions_total": ("counter", "Answers by endpoint, version, role and status."),
    "fairway_feedback_total": ("counter", "Feedback rows accepted."),
    "fairway_source_events_total": ("counter", "Events of source tables accepted."),
    "fairway_lookups_failed_total": ("counter", "Rows whose views could not be looked up: null, or refused."),
    "fairway_request_seconds": ("histogram", "Time to answer a prediction request, seconds."),
    "fairway_in_flight_requests": ("gauge", "Requests being answered."),
    "fairway_endpoint_epoch": ("gauge", "Active epoch of an endpoint."),
    "fairway_stale": ("gauge", "1 while the store can't be reached: what was active goes on being served."),
}

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Not for several threads; one event loop owns it."""

    def __init__(self) -> None:
        self._values: defaultdict[tuple[str, Labels], float] = defaultdict(float)
        self._times: dict[Labels, list[float]] = {}

    def add(self, name: str, n: float = 1, **labels: str) -> None:
        self._values[name, tuple(sorted(labels.items()))] += n

    def set(self, name: str, value: float, **labels: str) -> None:
        self._values[name, tuple(sorted(labels.items()))] = value

    def observe(self, seconds: float, **labels: str) -> None:
        key = tuple(sorted(labels.items()))
        counts = self._times.setdefault(key, [0.0] * (len(BUCKETS_S) + 2))
        counts[bisect_left(BUCKETS_S, seconds)] += 1
        counts[-1] += seconds

    def snapshot(self) -> dict[str, Any]:
        """JSON-able; see `render`."""
        return {
            "values": [[name, list(labels), value] for (name, labels), value in sorted(self._values.items())],
            "times": [[list(labels), counts] for labels, counts in sorted(self._times.items())],
        }


def render(snapshots: Sequence[tuple[str, dict[str, Any]]]) -> str:
    """(gateway, snapshot) pairs as one page."""
    lines: dict[str, list[str]] = {name: [] for name in _HELP}
    for gateway, snapshot in snapshots:
        own = [("gateway", gateway)]
        for name, labels, value in snapshot["values"]:
            lines[name].append(f"{name}{_labels(own + labels)} {value:g}")
        for labels, counts in snapshot["times"]:
            name, running = "fairway_request_seconds", 0.0
            for bound, count in zip((*(f"{b:g}" for b in BUCKETS_S), "+Inf"), counts, strict=False):
                running += count
                lines[name].append(f"{name}_bucket{_labels([*own, *labels, ('le', bound)])} {running:g}")
            lines[name].append(f"{name}_sum{_labels(own + labels)} {counts[-1]:.6f}")
            lines[name].append(f"{name}_count{_labels(own + labels)} {running:g}")
    text = []
    for name, (kind, about) in _HELP.items():
        if lines[name]:
            text += [f"# HELP {name} {about}", f"# TYPE {name} {kind}", *lines[name]]
    return "\n".join(text) + "\n"


def _labels(labels: Sequence[Sequence[str]]) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
