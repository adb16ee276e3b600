"""Small charts as inline SVG, drawn by the server: readable without script, in both colour schemes, and printable.

Colours come from the style sheet by class, so that nothing here needs an inline style (the pages' policy forbids it).
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from html import escape

WIDTH, HEIGHT = 960, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 130, 16, 30
_MOST_POINTS = 240  # more can't be told apart at this width

STEPS_S = (
    60, 300, 900, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 1_209_600, 2_592_000, 7_776_000, 31_536_000
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One value at a time; low and high are its 95 % interval. None is a gap, never a zero."""

    at: datetime
    value: float | None
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Line:
    """One series: its name is written at its end."""

    name: str
    points: Sequence[Point]


@dataclass(frozen=True)
class Rule:
    """A horizontal line that means something: a threshold, a reference."""

    value: float
    name: str


def line_chart(
    title: str, lines: Sequence[Line], *, rules: Sequence[Rule] = (), unit: str = "", dots: bool = False
) -> str:
    """An SVG of values over time with their intervals; "" when there is nothing to draw.

    title: what a person who can't see it is told. dots: mark each point, for few points.
    """
    lines = [Line(line.name, _thin([p for p in line.points if p.value is not None])) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    times = [p.at for line in lines for p in line.points]
    values = [v for line in lines for p in line.points for v in (p.value, p.low, p.high) if _usable(v)]
    values += [rule.value for rule in rules if _usable(rule.value)]
    scale = _Scale(min(times), max(times), *_span([v for v in values if v is not None]))
    parts = [*_axes(scale, unit)]
    for rule in rules:
        y = scale.y(rule.value)
        parts.append(f'<line class="rule" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="rule-name" x="{WIDTH - _RIGHT + 6}" y="{y + 4:.1f}">{escape(rule.name)}</text>')
    taken = [scale.y(rule.value) for rule in rules]
    for place, line in enumerate(lines):
        parts += _series(line, scale, place, dots=dots or len(line.points) <= 40, taken=taken)
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def interval_chart(title: str, rows: Sequence[tuple[str, float, float | None, float | None]]) -> str:
    """One row per name: a dot with its 95 % interval, on one scale, so that rows can be compared by eye."""
    rows = [row for row in rows if _usable(row[1])]
    if not rows:
        return ""
    ends = [v for _, value, low, high in rows for v in (value, low, high) if v is not None and _usable(v)]
    bottom, top = _span(ends)
    left, right, step = 190, 90, 28
    height = step * len(rows) + 34
    reach = WIDTH - left - right

    def x(value: float) -> float:
        return left + (value - bottom) / (top - bottom) * reach

    parts = []
    for tick in _ticks(bottom, top):
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="8" y2="{height - 24}"/>')
        parts.append(
            f'<text class="tick" text-anchor="middle" x="{x(tick):.1f}" y="{height - 8}">{_figure(tick)}</text>'
        )
    for place, (name, value, low, high) in enumerate(rows):
        y = 8 + step * place + step / 2
        parts.append(f'<text class="label" text-anchor="end" x="{left - 10}" y="{y + 4:.1f}">{escape(name)}</text>')
        if low is not None and high is not None:
            parts.append(f'<line class="whisker c0" x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<circle class="dot c0" r="4" cx="{x(value):.1f}" cy="{y:.1f}"/>')
        parts.append(f'<text class="label" x="{WIDTH - right + 8}" y="{y + 4:.1f}">{_figure(value, 4)}</text>')
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


@dataclass(frozen=True)
class _Scale:
    start: datetime
    end: datetime
    bottom: float
    top: float

    def x(self, at: datetime) -> float:
        whole = (self.end - self.start).total_seconds()
        share = (at - self.start).total_seconds() / whole if whole else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.bottom) / (self.top - self.bottom)
        return HEIGHT - _BOTTOM - min(max(share, 0.0), 1.0) * (HEIGHT - _TOP - _BOTTOM)


def _series(line: Line, scale: _Scale, place: int, *, dots: bool, taken: list[float]) -> list[str]:
    colour = f"c{place % 4}"
    points = [(scale.x(p.at), p) for p in line.points]
    parts = []
    band = [(x, p) for x, p in points if _usable(p.low) and _usable(p.high)]
    if len(band) > 1:
        upper = [f"{x:.1f},{scale.y(p.high or 0.0):.1f}" for x, p in band]
        lower = [f"{x:.1f},{scale.y(p.low or 0.0):.1f}" for x, p in reversed(band)]
        parts.append(f'<polygon class="band {colour}" points="{" ".join(upper + lower)}"/>')
    elif band:
        x, p = band[0]
        y1, y2 = scale.y(p.low or 0.0), scale.y(p.high or 0.0)
        parts.append(f'<line class="whisker {colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"/>')
    path = " ".join(f"{x:.1f},{scale.y(p.value or 0.0):.1f}" for x, p in points)
    parts.append(f'<polyline class="line {colour}" points="{path}"/>')
    if dots:
        for x, p in points:
            span = f" ({_figure(p.low, 4)} to {_figure(p.high, 4)})" if p.low is not None and p.high is not None else ""
            note = f"; {p.note}" if p.note else ""
            text = f"{p.at:%d %b %Y %H:%M}: {_figure(p.value or 0.0, 4)}{span}{note}"
            y = scale.y(p.value or 0.0)
            parts.append(f'<circle class="dot {colour}" r="3.5" cx="{x:.1f}" cy="{y:.1f}">'
                         f"<title>{escape(text)}</title></circle>")  # fmt: skip
    # Names stand at the right end, moved apart from what is written there already.
    y = scale.y(points[-1][1].value or 0.0)
    places = sorted((y + 13 * k for k in range(-12, 13)), key=lambda place: abs(place - y))
    y = next((p for p in places if 0 < p < HEIGHT and all(abs(p - other) >= 13 for other in taken)), y)
    taken.append(y)
    parts.append(f'<text class="name {colour}" x="{WIDTH - _RIGHT + 6}" y="{y + 4:.1f}">{escape(line.name)}</text>')
    return parts


def _axes(scale: _Scale, unit: str) -> list[str]:
    parts = []
    for tick in _ticks(scale.bottom, scale.top):
        y = scale.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" text-anchor="end" x="{_LEFT - 8}" y="{y + 4:.1f}">{_figure(tick)}{unit}</text>'
        )
    for at, text in _time_ticks(scale.start, scale.end):
        parts.append(_tick(scale.x(at), HEIGHT - 9, text))
    return parts


def _tick(x: float, y: float, text: str, *, anchor: str = "middle") -> str:
    return f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{y:.1f}">{text}</text>'


def _ticks(bottom: float, top: float) -> list[float]:
    """About four round figures between the ends."""
    raw = (top - bottom) / 4
    if raw < sys.float_info.min:  # so near that no round figure lies between
        return [bottom]
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 2.5, 5, 10) if size * m >= raw * 0.999)
    first = math.ceil(bottom / step - 1e-9)
    return [place * step for place in range(first, math.floor(top / step + 1e-9) + 1)]


def _time_ticks(start: datetime, end: datetime) -> list[tuple[datetime, str]]:
    """About six times on round hours or days (UTC)."""
    whole = (end - start).total_seconds()
    step = next((s for s in STEPS_S if whole / s <= 6.5), STEPS_S[-1])
    form = "%H:%M" if step < 86_400 and whole < 172_800 else "%d %b %H:%M" if step < 86_400 else "%d %b"
    if whole == 0:
        return [(start, f"{start:%d %b %H:%M}")]
    first = math.ceil(start.timestamp() / step) * step
    zone, ticks = start.tzinfo, []
    at = datetime.fromtimestamp(first, zone)
    while at <= end:
        ticks.append((at, at.strftime(form)))
        at += timedelta(seconds=step)
    return ticks


def _span(values: Sequence[float]) -> tuple[float, float]:
    bottom, top = min(values), max(values)
    if bottom == top:
        reach = abs(bottom) * 0.1 or 1.0
        return bottom - reach, top + reach
    reach = (top - bottom) * 0.08
    # A scale that starts just above zero should start at zero.
    low = 0.0 if bottom >= 0 and bottom - reach < 0 else bottom - reach
    return low, top + reach


def _figure(value: float, digits: int = 3) -> str:
    if value and (abs(value) >= 1e5 or abs(value) < 1e-4):
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:.{digits}g}" if abs(value) < 1000 else f"{value:,.0f}"


def _thin(points: Sequence[Point]) -> list[Point]:
    if len(points) <= _MOST_POINTS:
        return list(points)
    step = (len(points) - 1) / (_MOST_POINTS - 1)
    return [points[round(place * step)] for place in range(_MOST_POINTS)]


def _usable(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
