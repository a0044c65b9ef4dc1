"""Limits of `edgeelad serve` that are not given otherwise."""

from __future__ import annotations

# explanations that run together, and that wait
MAX_RUNNING = 32
MAX_WAITING = 224
MAX_BODY_MIB = 1
