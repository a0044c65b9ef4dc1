"""Draw panels of curves with bands as one SVG that follows the reader's light or dark color scheme."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.report.charts import ticks

WIDTH, HEIGHT = 340, 240  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 28, 40
LEGEND, COLUMNS = 22, 3  # height of a row of the legend, and names in it
# Okabe and Ito's colors, which color-blind readers can tell apart; lighter on dark
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#8a6d00", "#56b4e9", "#666666", "#7b3294", "#e69f00")
DARK = ("#5ab4f0", "#ff8a3d", "#3fd6a6", "#f0a3cc", "#e0c04a", "#9bd8ff", "#b0b0b0", "#c78be0", "#ffc85c")


@dataclass(frozen=True, slots=True)
class Curve:
    """A named curve; each point is x, y, and the ends of its band."""

    name: str
    points: list[tuple[float, float, float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves under a title, and a level to compare them with, dashed."""

    title: str
    curves: list[Curve]
    level: float | None = None


def draw(panels: Sequence[Panel], x_label: str, y_label: str, *, is_log: bool = False) -> str:
    """The figure: two panels a row, one legend below."""
    names = list(dict.fromkeys(curve.name for panel in panels for curve in panel.curves))
    assert len(names) <= len(COLORS), "every curve has a color of its own"
    rows = -(-len(panels) // 2)
    width, height = 2 * WIDTH, rows * HEIGHT + LEGEND * (-(-len(names) // COLUMNS)) + 8
    style = (
        "".join(f".c{i}{{stroke:{color};fill:{color}}}" for i, color in enumerate(COLORS))
        + "@media(prefers-color-scheme:dark){text{fill:#ddd}.g{stroke:#444}.d{stroke:#ddd}"
        + "".join(f".c{i}{{stroke:{color};fill:{color}}}" for i, color in enumerate(DARK))
        + "}"
    )
    body = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{html.escape(y_label)} against {html.escape(x_label)}">',
        "<style>text{font:11px system-ui,sans-serif;fill:#222}.t{font-weight:600}.g{stroke:#ddd;stroke-width:1}"
        ".d{stroke:#222;stroke-width:1.5;stroke-dasharray:5 4}"
        f".l{{fill:none;stroke-width:2}}.b{{stroke:none;opacity:.14}}{style}</style>",
    ]
    for index, panel in enumerate(panels):
        body += _panel(panel, (index % 2) * WIDTH, (index // 2) * HEIGHT, names, x_label, y_label, is_log)
    for index, name in enumerate(names):
        x, y = 16 + (index % COLUMNS) * (width / COLUMNS), rows * HEIGHT + 14 + (index // COLUMNS) * LEGEND
        body.append(f'<rect class="c{index}" x="{x:.0f}" y="{y - 8}" width="14" height="4"/>')
        body.append(f'<text x="{x + 20:.0f}" y="{y}">{html.escape(name)}</text>')
    return "\n".join((*body, "</svg>")) + "\n"


def _panel(
    panel: Panel, left: float, top: float, names: Sequence[str], x_label: str, y_label: str, is_log: bool
) -> list[str]:
    points = [point for curve in panel.curves for point in curve.points]
    scale = math.log10 if is_log else float
    x_values = [scale(point[0]) for point in points]
    x_low, x_high = min(x_values), max(x_values)
    if is_log:
        x_low, x_high = x_low - 0.1, x_high + 0.1
    levels = [] if panel.level is None else [panel.level]
    lowest, highest = min([point[2] for point in points] + levels), max([point[3] for point in points] + levels)
    y_ticks = ticks(lowest, highest, num=5, cover=True)
    y_low, y_high = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        across = (scale(x) - x_low) / max(x_high - x_low, 1e-9)
        up = (y - y_low) / max(y_high - y_low, 1e-9)
        return left + LEFT + across * (WIDTH - LEFT - RIGHT), top + HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    lines = [
        f'<text class="t" x="{left + LEFT}" y="{top + 16}">{html.escape(panel.title)}: {html.escape(y_label)}</text>'
    ]
    for tick in y_ticks:
        y = at(points[0][0], tick)[1]
        lines.append(f'<line class="g" x1="{left + LEFT}" x2="{left + WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{left + LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    x_ticks = (
        [v for v in (10, 20, 50, 100, 200, 500, 1000) if x_low <= math.log10(v) <= x_high]
        if is_log
        else [v for v in ticks(x_low, x_high, num=5) if x_low <= v <= x_high]
    )
    for tick in x_ticks:
        x = at(tick, y_low)[0]
        lines.append(f'<text x="{x:.1f}" y="{top + HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for level in levels:
        y = at(points[0][0], level)[1]
        lines.append(f'<line class="d" x1="{left + LEFT}" x2="{left + WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
    middle = left + LEFT + (WIDTH - LEFT - RIGHT) / 2
    lines.append(f'<text x="{middle}" y="{top + HEIGHT - 8}" text-anchor="middle">{html.escape(x_label)}</text>')
    for curve in panel.curves:
        color = f"c{names.index(curve.name)}"
        spots = [at(x, y) for x, y, _, _ in curve.points]
        if len(spots) > 1:
            band = [at(x, high) for x, _, _, high in curve.points]
            band += [at(x, low) for x, _, low, _ in reversed(curve.points)]
            lines.append(f'<polygon class="b {color}" points="{_join(band)}"/>')
            lines.append(f'<polyline class="l {color}" style="fill:none" points="{_join(spots)}"/>')
        for (x, y), (value, _, low, high) in zip(spots, curve.points, strict=True):
            if len(spots) == 1:
                lines.append(
                    f'<line class="{color}" x1="{x:.1f}" x2="{x:.1f}" y1="{at(value, low)[1]:.1f}" '
                    f'y2="{at(value, high)[1]:.1f}"/>'
                )
            lines.append(f'<circle class="{color}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')
    return lines


def _join(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
