"""The manner of explanations that the teacher is asked for: a sentence, and steps of the run's seed examples.

All that a student is trained on should be written in one manner; the seed examples are in it already.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeelad.config import TeacherConfig
from edgeelad.records import Example

# of all examples together: about 120 tokens in every prompt
MAX_BYTES = 480


def with_examples(config: TeacherConfig, examples: Sequence[Example]) -> TeacherConfig:
    """The configuration with the steps of `teacher.style_examples` seed examples as part of `style`.

    The examples have typical lengths: with one, the median. Any that are too long together are left out.
    """
    shown = _chosen(config.style_examples, examples)
    if not shown:
        return config
    lines = "\n\n".join("\n".join(example.steps) for example in shown)
    sentence = f"{config.style.strip()} As in: " if config.style.strip() else "as in: "
    return config.model_copy(update={"style": f"{sentence}\n{lines}"})


def _chosen(num: int, examples: Sequence[Example]) -> list[Example]:
    ordered = sorted((item for item in examples if item.steps), key=lambda item: (_size(item), item.steps))
    chosen: list[Example] = []
    for index in range(min(num, len(ordered))):
        example = ordered[(2 * index + 1) * len(ordered) // (2 * min(num, len(ordered)))]
        if sum(map(_size, chosen)) + _size(example) <= MAX_BYTES:
            chosen.append(example)
    return chosen


def _size(example: Example) -> int:
    return sum(len(step.encode()) + 1 for step in example.steps)
