"""Format figures for the page, one way for each kind; "–" if a figure is not known."""

from __future__ import annotations

import math

UNKNOWN = "–"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] as a percentage.

    >>> percent(0.4451), percent(None)
    ('44.5%', '–')
    """
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}%"


def points(difference: float | None) -> str:
    """A difference of two shares in percentage points, signed.

    >>> points(0.25)
    '+25.0 points'
    """
    return UNKNOWN if difference is None else f"{100 * difference:+.1f} points"


def count(number: float | None) -> str:
    """A whole number with thousands separators.

    >>> count(12345)
    '12,345'
    """
    return UNKNOWN if number is None else f"{number:,.0f}"


def short_count(number: float | None) -> str:
    """A number in up to five characters, for axes and tiles.

    >>> short_count(950), short_count(12345), short_count(3_400_000)
    ('950', '12.3k', '3.4M')
    """
    if number is None:
        return UNKNOWN
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.99995 * size:
            scaled = number / size
            return f"{scaled:.0f}{unit}" if abs(scaled) >= 100 or scaled == int(scaled) else f"{scaled:.1f}{unit}"
    return f"{number:g}"


def dollars(cost_usd: float | None) -> str:
    """An amount in dollars, with more digits if it is small.

    >>> dollars(12.5), dollars(0.0042), dollars(0.00004), dollars(0)
    ('$12.50', '$0.0042', '$0.000040', '$0.00')
    """
    if cost_usd is None:
        return UNKNOWN
    if cost_usd >= 1 or cost_usd == 0:
        return f"${cost_usd:,.2f}"
    return f"${cost_usd:.{max(4, 1 - math.floor(math.log10(abs(cost_usd))))}f}"


def duration(seconds: float | None) -> str:
    """A duration in its two largest units.

    >>> duration(7.25), duration(312), duration(7500)
    ('7.2 s', '5 min 12 s', '2 h 5 min')
    """
    if seconds is None:
        return UNKNOWN
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def loss(value: float | None) -> str:
    """A loss in nats per token.

    >>> loss(1.23456)
    '1.235'
    """
    return UNKNOWN if value is None else f"{value:.3f}"


def score(value: float | None) -> str:
    """An uncertainty score."""
    return UNKNOWN if value is None else f"{value:.2f}"
