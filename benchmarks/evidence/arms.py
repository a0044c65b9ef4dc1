"""How large the studies are, and how many rounds their arms have. Light: the page is made without torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

WITH_ANSWERS = ", answers"  # ends the mode of an arm on a pool with answers
ASKED_ONLY = ", asked only"  # ends the mode of an arm that is not taught the student's own explanations
SHARE_WITH_ANSWERS = 0.4  # of such a pool, annotated after its last round
PRETRAINED_UPDATES = 250  # per round of a student of 135 million parameters


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a study of students from scratch is.

    Attributes:
        num_pool: Questions in the pool, about.
        batches: Questions annotated per round.
        updates: Optimizer steps per round.
        num_seed_examples: Seed examples mixed into each round.
        base_steps: Optimizer steps of the base student.
    """

    num_pool: int
    batches: tuple[int, ...]
    updates: int
    num_seed_examples: int
    base_steps: int


_SMALL = Sizes(900, (60, 120, 120), 350, 300, 900)
_LARGE = Sizes(2000, (200, 300, 300), 700, 500, 900)  # pool, updates and base student as in the quickstart
SIZES = {
    "words": replace(_SMALL, base_steps=600),
    "varied": _SMALL,
    "chains": replace(_SMALL, base_steps=1600),
    "mawps": _SMALL,
    "words, large": _LARGE,
    # until the base student knows the known kinds, and the student of the whole pool the new ones
    "varied, large": replace(_LARGE, updates=1400, base_steps=4000),
    "chains, large": replace(_LARGE, updates=2800, base_steps=3200),
    # three times the questions: as many as it takes to learn the new kinds in so many wordings
    "varied, very large": Sizes(6000, (600, 900, 600), 3000, 500, 4000),
}
LARGE = " large"  # ends the name of a task with a pool of the quickstart's size or more
PRETRAINED = ", pretrained"  # ends the name of a task in results of a pretrained student


def sizes_of(task: str) -> Sizes:
    """The sizes of a task by its name, in results too."""
    return SIZES[task.removesuffix(PRETRAINED)]


def has_answers(mode: str) -> bool:
    """Whether an arm's pool has answers."""
    return mode.removesuffix(ASKED_ONLY).endswith(WITH_ANSWERS)


def way_of(mode: str) -> str:
    """The teacher's mode in an arm's."""
    return mode.removesuffix(ASKED_ONLY).removesuffix(WITH_ANSWERS)


def batch_sizes(sizes: Sizes, mode: str, num_pool: int) -> tuple[int, ...]:
    """Questions of each round: one round more where a pool with answers is not annotated far enough."""
    missing = int(SHARE_WITH_ANSWERS * num_pool) - sum(sizes.batches)
    return (*sizes.batches, missing) if has_answers(mode) and missing > 0 else sizes.batches


def num_rounds(task: str, mode: str) -> int:
    """Rounds of a complete arm."""
    sizes = sizes_of(task)
    return len(batch_sizes(sizes, mode, sizes.num_pool))
