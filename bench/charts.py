# SPDX-License-Identifier: Apache-2.0
"""Series of numbers to a line chart as SVG: both axes logarithmic, readable on light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 200, 50, 60
_COLOURS = ("#2563eb", "#16a34a", "#d97706", "#dc2626", "#7c3aed")
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#475569}.title{font-size:16px;font-weight:600}"
    ".grid{stroke:#94a3b8;stroke-opacity:.35}@media(prefers-color-scheme:dark){text{fill:#cbd5e1}}"
)


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its name and its points."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: what it shows, and the values that are written at it."""

    title: str
    ticks: Sequence[float]

    def place(self, value: float, start: float, end: float) -> float:
        """Return where a value lies between two ends."""
        low, high = math.log(self.ticks[0]), math.log(self.ticks[-1])
        share = (math.log(value) - low) / (high - low) if high > low else 0.5
        return start + share * (end - start)


def line_chart(title: str, horizontal: Axis, vertical: Axis, series: Sequence[Series]) -> str:
    """Return the chart as an SVG document."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style>",
        _text(_LEFT, 26, title, css="title"),
        *_grid(horizontal, vertical),
    ]
    for index, one in enumerate(series):
        parts += _line(one, _COLOURS[index % len(_COLOURS)], horizontal, vertical)
    parts += _legend(series, vertical)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(axis: Axis, value: float) -> float:
    return axis.place(value, _LEFT, WIDTH - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return axis.place(value, HEIGHT - _BOTTOM, _TOP)


def _grid(horizontal: Axis, vertical: Axis) -> list[str]:
    parts = []
    for tick in vertical.ticks:
        y = _y(vertical, tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    parts += [
        _text(_x(horizontal, tick), HEIGHT - _BOTTOM + 20, f"{tick:,.0f}", anchor="middle") for tick in horizontal.ticks
    ]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    parts.append(_text(middle, HEIGHT - 16, horizontal.title, anchor="middle"))
    parts.append(_text(_LEFT, _TOP - 8, vertical.title))
    return parts


def _line(one: Series, colour: str, horizontal: Axis, vertical: Axis) -> list[str]:
    places = [(_x(horizontal, x), _y(vertical, y)) for x, y in one.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in places]
    return [f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>', *dots]


def _legend(series: Sequence[Series], vertical: Axis) -> list[str]:
    """Names at the right, each near its line's end, pushed apart where they would overlap."""
    wanted = sorted((_y(vertical, one.points[-1][1]), index) for index, one in enumerate(series) if one.points)
    parts, lowest = [], 0.0
    for y, index in wanted:
        lowest = max(y, lowest + 18)
        colour = _COLOURS[index % len(_COLOURS)]
        parts.append(f'<circle cx="{WIDTH - _RIGHT + 18}" cy="{lowest:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(WIDTH - _RIGHT + 30, lowest + 4, series[index].name))
    return parts


def _text(x: float, y: float, text: str, *, anchor: str = "start", css: str = "") -> str:
    name = f' class="{css}"' if css else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{name}>{escape(text)}</text>'
