import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.report import charts, figures
from edgeelad.report.questions import diff


def chart(points, **changes):
    settings = {"name": "n", "x_label": "x", "x_format": figures.short_count, "y_format": figures.percent}
    return charts.line_chart(points, **{**settings, **changes})


def test_line_chart_by_hand():
    made = chart([charts.Point(0, 0.0, "first", 0.0, 0.5), charts.Point(100, 1.0, "last", 0.5, 1.0)])
    left, right = charts.LEFT, charts.WIDTH - charts.RIGHT
    bottom, top, middle = charts.HEIGHT - charts.BOTTOM, charts.TOP, (charts.HEIGHT - charts.BOTTOM + charts.TOP) / 2
    assert made.line == f"{left},{bottom} {right},{top}"
    assert made.band == f"{left},{middle:g} {right},{top} {right},{middle:g} {left},{bottom}"
    assert [mark.text for mark in made.dots] == ["first", "last"]
    assert [mark.text for mark in made.x_ticks] == ["0", "20", "40", "60", "80", "100"]
    assert made.y_ticks[0].text == "0%"
    assert made.y_ticks[-1].text == "100%"
    assert made.reference is None


def test_equal_values_have_a_line():
    for value in (0.0, 0.1, 1.0):
        assert chart([charts.Point(x, value, "here") for x in range(3)]).line


def test_line_chart_needs_two_points_and_draws_the_reference():
    assert chart([charts.Point(0, 0.5, "only")]) is None
    made = chart([charts.Point(0, 0.5, "a"), charts.Point(1, 0.5, "b")], reference=(0.9, "target"), whole_x=True)
    assert made.reference.text == "target"
    assert charts.TOP <= made.reference.y < made.dots[0].y
    assert [mark.text for mark in made.x_ticks] == ["0", "1"]
    assert made.band == ""


def test_losses_are_drawn_as_they_are():
    losses = [charts.Point(0, 2.0, "a"), charts.Point(10, 0.5, "b")]
    made = chart(losses, y_max=math.inf, other=[charts.Point(0, 3.0, "c"), charts.Point(20, 1.0, "d")], has_dots=False)
    assert made.dots == ()
    assert made.y_ticks[-1].text == "3"
    assert made.x_ticks[-1].text == "20"
    top, right = charts.TOP, charts.WIDTH - charts.RIGHT
    assert made.other_line.startswith(f"{charts.LEFT},{top} {right},")
    assert float(made.line.split(",")[-1]) > float(made.other_line.split(",")[-1])  # a lower loss is drawn lower


@given(st.floats(0, 1e7), st.floats(0.001, 1e7), st.booleans(), st.booleans())
def test_ticks_are_round_sorted_and_cover(low, span, whole, cover):
    values = charts.ticks(low, low + span, whole=whole, cover=cover)
    assert values == sorted(set(values))
    assert len(values) <= 13
    step = values[1] - values[0] if len(values) > 1 else 1
    if cover:
        assert values[0] <= low + 1e-6 * step + 1e-9
        assert values[-1] >= low + span - 1e-6 * step - 1e-9
    if whole:
        assert all(value == math.floor(value) for value in values)


def test_histogram_counts_everything_and_shows_a_small_batch():
    made = charts.histogram([0.0] * 97 + [1.0] * 3, [1.0], num_bins=4)
    assert [bar.height for bar in made.bars] == [100.0, 0.0, 0.0, pytest.approx(100 * (3 / 97) ** 0.5, abs=0.01)]
    assert made.bars[-1].selected_height == pytest.approx(100 * (1 / 97) ** 0.5, abs=0.01)
    assert charts.histogram([0.0] * 9999 + [1.0], [1.0]).bars[-1].selected_height == 3.0
    assert made.bars[-1].title.endswith("3 questions, 1 selected")
    assert (made.low, made.high) == ("0.00", "1.00")
    assert charts.histogram([], []) is None
    assert charts.histogram([0.5, 0.5], [0.5]) is None


@given(st.text(max_size=60), st.text(max_size=60))
def test_diff_keeps_every_character(before, after):
    old, new = diff(before, after)
    assert "".join(part.text for part in old) == before
    assert "".join(part.text for part in new) == after
    same = ["".join(part.text for part in parts if not part.is_changed) for parts in (old, new)]
    assert same[0] == same[1]


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (figures.percent, 1.0, "100.0%"),
        (figures.short_count, 999_990, "1.0M"),
        (figures.short_count, 999, "999"),
        (figures.short_count, 250_000, "250k"),
        (figures.dollars, 1234.5, "$1,234.50"),
        (figures.duration, 59.6, "1 min"),
        (figures.duration, 3600, "1 h 0 min"),
        (figures.duration, None, "–"),
        (figures.points, -0.013, "-1.3 points"),
    ],
)
def test_figures(function, value, expected):
    assert function(value) == expected
