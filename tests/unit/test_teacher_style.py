"""One manner of explaining: what the teacher is shown of the seed examples."""

from edgeelad.config import TeacherConfig
from edgeelad.records import Example, Question
from edgeelad.teacher.prompts.messages import PROMPT_IDS, render_judge_messages, render_messages
from edgeelad.teacher.style import MAX_BYTES, with_examples

QUESTION = Question("q", "What is 2 + 3?")
EXAMPLES = [
    Example(QUESTION, tuple(f"Now {index} + {number} = {index + number}." for number in range(index)), "1")
    for index in range(1, 10)
]


def test_the_example_of_median_length_is_shown():
    config = with_examples(TeacherConfig(), EXAMPLES)
    assert config.style == "as in: \n" + "\n".join(EXAMPLES[4].steps)
    assert with_examples(TeacherConfig(), EXAMPLES[::-1]) == config, "the order of the examples does not matter"
    two = with_examples(TeacherConfig(style="Short.", style_examples=2), EXAMPLES)
    assert two.style.startswith("Short. As in: \nNow ")
    assert two.style.count("\n\n") == 1


def test_none_are_shown_if_there_are_none_or_none_are_wanted():
    config = TeacherConfig(style="Short.")
    assert with_examples(config, []) == config
    assert with_examples(config.model_copy(update={"style_examples": 0}), EXAMPLES).style == "Short."


def test_examples_are_bounded():
    long = [Example(QUESTION, ("x" * MAX_BYTES,), "1")] * 3
    assert with_examples(TeacherConfig(), long) == TeacherConfig()
    many = with_examples(TeacherConfig(style_examples=8), EXAMPLES)
    assert len(many.style.encode()) <= MAX_BYTES + 50


def test_every_prompt_with_steps_shows_them():
    style = with_examples(TeacherConfig(), EXAMPLES).style
    for prompt_id in PROMPT_IDS:
        if prompt_id == "judge_step":
            system = render_judge_messages(QUESTION, "2 + 3 = 5", style=style)[0].content
        else:
            system = render_messages(prompt_id, QUESTION, style=style, reference="5", steps=("2 + 3 = 5",))[0].content
        assert (f"Style of steps: {style}" in system) == (prompt_id != "answer")
