"""How many rounds the arms of the learning study have. Light: the page is made without torch."""

from __future__ import annotations

NUM_ROUNDS = 3
WITH_ANSWERS = ", answers"  # ends the mode of an arm on a pool with answers, which has a round more


def has_answers(mode: str) -> bool:
    """Whether an arm's pool has answers."""
    return mode.endswith(WITH_ANSWERS)


def num_rounds(mode: str) -> int:
    """Rounds of a complete arm."""
    return NUM_ROUNDS + has_answers(mode)
