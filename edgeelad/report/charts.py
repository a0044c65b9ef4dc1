"""Line charts and histograms as plain coordinates; the template draws them as inline SVG.

Takes values in data units; returns strings and numbers in SVG user units, where y grows downward. No colors, no HTML.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 54, 18, 22, 46


@dataclass(frozen=True, slots=True)
class Point:
    """One point in data units; `low` and `high` bound it if they are known; `title` is shown on hover."""

    x: float
    y: float
    title: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A text at a place on the chart."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True)
class Label:
    """A value written beside a point, away from the line."""

    x: float
    y: float
    text: str
    anchor: Literal["start", "end"]


@dataclass(frozen=True, slots=True)
class LineChart:
    """A chart ready to be drawn.

    Attributes:
        name: What it shows, for readers who do not see it.
        x_label: Title of the x axis.
        line: Points attribute of the polyline.
        other_line: The same of a second, dashed line; "" if there is none.
        band: Points attribute of the polygon between the bounds; "" if there are none.
        dots: Where the points are, with their hover titles.
        labels: Values written beside the first and the last point.
        x_ticks: Ticks of the x axis.
        y_ticks: Ticks of the y axis.
        reference: A dashed horizontal line with its label, or None.
    """

    name: str
    x_label: str
    line: str
    other_line: str
    band: str
    dots: tuple[Mark, ...]
    labels: tuple[Label, ...]
    x_ticks: tuple[Mark, ...]
    y_ticks: tuple[Mark, ...]
    reference: Mark | None


@dataclass(frozen=True, slots=True)
class Bar:
    """One bin of a histogram, in SVG units; `selected_height` is the selected part of it."""

    x: float
    width: float
    height: float
    selected_height: float
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """The scores of a round's pool, and of its selected questions; `low` and `high` are the ends of the axis."""

    bars: tuple[Bar, ...]
    low: str
    high: str


def line_chart(
    points: Sequence[Point],
    *,
    name: str,
    x_label: str,
    x_format: Callable[[float], str],
    y_format: Callable[[float], str],
    y_max: float = 1.0,
    other: Sequence[Point] = (),
    has_dots: bool = True,
    reference: tuple[float, str] | None = None,
    whole_x: bool = False,
) -> LineChart | None:
    """Lay out a chart of values from 0 to `y_max` over x; None if there are fewer than two points.

    Args:
        points: In order of x.
        name: What the chart shows.
        x_label: Title of the x axis.
        x_format: How x values are written.
        y_format: How y values are written.
        y_max: The largest possible value; 1 for shares, whose ticks are percentages.
        other: Points of a second, dashed line, in order of x.
        has_dots: Whether each point of the line is marked, and the first and the last are labeled.
        reference: A y value to mark with a dashed line, and its label.
        whole_x: Whether only whole numbers are ticks of x.
    """
    if len(points) < 2:
        return None
    x_values = [point.x for point in (*points, *other)]
    y_values = [y for point in (*points, *other) for y in (point.y, point.low, point.high) if y is not None]
    if reference is not None:
        y_values.append(reference[0])
    x_ticks = ticks(min(x_values), max(x_values), whole=whole_x)
    x_low, x_high = min(x_values), max(max(x_values), min(x_values) + 1e-9)
    margin = 0.02 if y_max == 1.0 else 0.0
    y_ticks = ticks(max(0.0, min(y_values) - margin), min(y_max, max(y_values) + margin), num=5, cover=True)
    y_low = max(0.0, y_ticks[0])
    y_high = max(min(y_max, y_ticks[-1]), y_low + 1e-9)  # equal values have a line, too

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low)
        up = (y - y_low) / (y_high - y_low)
        return round(LEFT + across * (WIDTH - LEFT - RIGHT), 1), round(
            HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1
        )

    def tick_text(y: float) -> str:
        return f"{100 * y:g}%" if y_max == 1.0 else f"{y:g}"

    return LineChart(
        name=name,
        x_label=x_label,
        line=_join([at(point.x, point.y) for point in points]),
        other_line=_join([at(point.x, point.y) for point in other]),
        band=_band(points, at),
        dots=tuple(Mark(*at(point.x, point.y), point.title) for point in points) if has_dots else (),
        labels=_labels(points, at, y_format) if has_dots else (),
        x_ticks=tuple(Mark(at(x, y_low)[0], HEIGHT - BOTTOM, x_format(x)) for x in x_ticks if x_low <= x <= x_high),
        y_ticks=tuple(Mark(LEFT, at(x_low, y)[1], tick_text(y)) for y in y_ticks if y_low <= y <= y_high),
        reference=None if reference is None else Mark(LEFT, at(x_low, reference[0])[1], reference[1]),
    )


def ticks(low: float, high: float, *, num: int = 6, whole: bool = False, cover: bool = False) -> list[float]:
    """Round tick values from `low` to `high`, about `num` of them; with `cover`, the ends lie outside.

    >>> ticks(0.0, 430.0)
    [0.0, 100.0, 200.0, 300.0, 400.0]
    """
    span = max(high - low, 1e-9 if not whole else 1.0)
    rough = span / max(num - 1, 1)
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if factor * magnitude >= rough * 0.999)
    if whole:
        step = max(1.0, math.ceil(step))
    first = math.floor(low / step + 1e-9) if cover else math.ceil(low / step - 1e-9)
    last = math.ceil(high / step - 1e-9) if cover else math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def histogram(pool: Sequence[float], selected: Sequence[float], num_bins: int = 28) -> Histogram | None:
    """Bin the scores of a pool and of its selected questions; None if all scores are equal.

    Heights are the square root of the count, in percent of the fullest bin: most questions of a pool are easy, and
    their bin would hide all others. The selected part has a visible minimum.
    """
    parts = [part for part in (pool, selected) if part]
    low, high = min(map(min, parts), default=0.0), max(map(max, parts), default=0.0)
    if low == high:
        return None
    pool_counts = _bin(pool, low, high, num_bins)
    selected_counts = _bin(selected, low, high, num_bins)
    fullest = max(max(pool_counts), max(selected_counts))
    width = 100 / num_bins
    bars = []
    for index, (in_pool, in_batch) in enumerate(zip(pool_counts, selected_counts, strict=True)):
        start = low + (high - low) * index / num_bins
        end = low + (high - low) * (index + 1) / num_bins
        bars.append(
            Bar(
                x=round(index * width, 3),
                width=round(width * 0.86, 3),
                height=round(100 * math.sqrt(max(in_pool, in_batch) / fullest), 2),
                selected_height=max(3.0, round(100 * math.sqrt(in_batch / fullest), 2)) if in_batch else 0.0,
                title=f"score {start:.2f} to {end:.2f}: {in_pool:,} questions, {in_batch:,} selected",
            )
        )
    return Histogram(tuple(bars), f"{low:.2f}", f"{high:.2f}")


def _bin(values: Sequence[float], low: float, high: float, num_bins: int) -> list[int]:
    counts = [0] * num_bins
    for value in values:
        counts[min(num_bins - 1, int((value - low) / (high - low) * num_bins))] += 1
    return counts


def _band(points: Sequence[Point], at: Callable[[float, float], tuple[float, float]]) -> str:
    bounded = [(point.x, point.low, point.high) for point in points if point.low is not None and point.high is not None]
    if len(bounded) < 2:
        return ""
    return _join([*(at(x, high) for x, _, high in bounded), *(at(x, low) for x, low, _ in reversed(bounded))])


def _labels(
    points: Sequence[Point], at: Callable[[float, float], tuple[float, float]], y_format: Callable[[float], str]
) -> tuple[Label, ...]:
    first, second, last = points[0], points[1], points[-1]
    x, y = at(first.x, first.y)
    end_x, end_y = at(last.x, last.y)
    is_rising = second.y >= first.y
    return (
        Label(x + 8, y + 20 if is_rising else y - 11, y_format(first.y), "start"),
        Label(end_x, end_y - 11, y_format(last.y), "end"),
    )


def _join(places: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in places)
