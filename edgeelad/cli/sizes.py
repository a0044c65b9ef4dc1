"""Parse sizes in bytes: 512MB, 2GB, 1.5 GiB."""

from __future__ import annotations

import re

from edgeelad.errors import UsageError

UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
    "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
}  # fmt: skip


def parse_size(text: str, option: str) -> int:
    """Parse a size in bytes, a number with a unit: MB is a million bytes, MiB and M are 2^20.

    Raises:
        UsageError: Not a size above 0; the message names the option.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE | re.ASCII)
    if match is not None and match[2].lower() in UNITS:
        size = int(float(match[1]) * UNITS[match[2].lower()])
        if size > 0:
            return size
    raise UsageError(f"{option} {text}: not a size; write for example 512MB or 2GB")
