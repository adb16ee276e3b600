"""Small charts as inline SVG: coloured by the page's CSS (light, dark, print), readable without script.

Written directly: rendering a Vega-Lite chart costs 0.9 s in a fresh process (Altair 0.3 s, vl-convert 0.6 s), more than
training a small model; these cost under a millisecond, and a browser's dark mode reaches into them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

_W, _H = 340, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 12, 12, 42


@dataclass(frozen=True)
class Line:
    """Points (x, y) joined by a line. tone: 1 (this version), 2 (a rival) or 0 (grey); dots marks each point."""

    name: str
    points: Sequence[Sequence[float]]
    tone: int = 1
    dots: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Bar:
    """A vertical span at x from low to high, as an interval."""

    x: float
    low: float
    high: float


@dataclass(frozen=True)
class Axis:
    """A labelled range. percent writes shares as percentages."""

    label: str
    low: float
    high: float
    percent: bool = False


def ticks(low: float, high: float, *, about: int = 5) -> list[float]:
    """Round numbers within low..high.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    """
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    rough = (high - low) / about
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float, *, percent: bool = False) -> str:
    """As short as an axis needs."""
    if percent:
        return f"{value * 100:.3g} %"
    if value and (abs(value) >= 1e5 or abs(value) < 1e-3):
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-")
    return f"{value:,.6g}" if abs(value) >= 1000 else f"{value:.3g}"


def lines(
    title: str, x: Axis, y: Axis, drawn: Sequence[Line], *, bars: Sequence[Bar] = (), band: Line | None = None
) -> str:
    """A chart of lines on two axes. bars: intervals; band: points (x, low, high) filled behind the lines."""

    def px(value: float) -> float:
        return _LEFT + (value - x.low) / ((x.high - x.low) or 1.0) * (_W - _LEFT - _RIGHT)

    def py(value: float) -> float:
        return _H - _BOTTOM - (value - y.low) / ((y.high - y.low) or 1.0) * (_H - _TOP - _BOTTOM)

    parts = [_frame(x, y, px, py)]
    if band is not None and band.points:
        upper = [(px(p[0]), py(p[2])) for p in band.points]
        lower = [(px(p[0]), py(p[1])) for p in reversed(band.points)]
        parts.append(f'<polygon class="band" points="{_points(upper + lower)}"/>')
    for bar in bars:
        parts.append(f'<path class="t1 thin" d="M{px(bar.x):.1f} {py(bar.low):.1f}V{py(bar.high):.1f}"/>')
    for line in drawn:
        places = [(px(p[0]), py(p[1])) for p in line.points]
        style = f"t{line.tone}" + (" dash" if line.dashed else "")
        parts.append(f'<polyline class="{style}" points="{_points(places)}"/>')
        if line.dots:
            parts += [f'<circle class="f{line.tone}" cx="{a:.1f}" cy="{b:.1f}" r="3"/>' for a, b in places]
    return _svg(title, parts, _H)


def hbars(title: str, values: Sequence[tuple[str, float]], *, unit: str = "") -> str:
    """Horizontal bars, one a row, in the given order; long names are cut and kept whole in a tooltip."""
    row, left = 20, 130
    height = row * len(values) + 26
    low, high = min(0.0, *(v for _, v in values)), max(0.0, *(v for _, v in values))
    span = (high - low) or 1.0
    scale = (_W - left - 52) / span
    parts, zero = [], left + (0.0 - low) * scale
    for i, (name, value) in enumerate(values):
        top, shown = i * row + 3, name if len(name) <= 20 else name[:19] + "…"
        start, width = min(zero, zero + value * scale), max(abs(value) * scale, 0.5)
        parts.append(
            f'<text class="name" x="{left - 6}" y="{top + 12}" text-anchor="end">{escape(shown)}'
            f"<title>{escape(name)}</title></text>"
            f'<rect class="f1" x="{start:.1f}" y="{top}" width="{width:.1f}" height="{row - 6}"/>'
            f'<text x="{max(start + width, zero) + 4:.1f}" y="{top + 12}">{number(value)}</text>'
        )
    parts.append(f'<path class="axis" d="M{zero:.1f} 0V{row * len(values)}"/>')
    parts.append(f'<text x="{left}" y="{height - 6}" class="label">{escape(unit)}</text>')
    return _svg(title, parts, height)


def _frame(x: Axis, y: Axis, px: Callable[[float], float], py: Callable[[float], float]) -> str:
    parts = []
    for tick in ticks(x.low, x.high):
        parts.append(f'<path class="grid" d="M{px(tick):.1f} {_TOP}V{_H - _BOTTOM}"/>')
        shown = number(tick, percent=x.percent)
        parts.append(f'<text x="{px(tick):.1f}" y="{_H - _BOTTOM + 15}" text-anchor="middle">{shown}</text>')
    for tick in ticks(y.low, y.high):
        parts.append(f'<path class="grid" d="M{_LEFT} {py(tick):.1f}H{_W - _RIGHT}"/>')
        parts.append(
            f'<text x="{_LEFT - 6}" y="{py(tick) + 4:.1f}" text-anchor="end">{number(tick, percent=y.percent)}</text>'
        )
    across, middle = (_LEFT + _W - _RIGHT) / 2, (_TOP + _H - _BOTTOM) / 2
    turned = f"translate(12 {middle}) rotate(-90)"
    parts.append(f'<text class="label" x="{across}" y="{_H - 8}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(f'<text class="label" transform="{turned}" text-anchor="middle">{escape(y.label)}</text>')
    return "".join(parts)


def _points(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in places)


def _svg(title: str, parts: Sequence[str], height: int) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {_W} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
