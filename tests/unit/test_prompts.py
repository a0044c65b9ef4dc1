"""The prompt format: rendering, saving, and templates that are wrong."""

from pathlib import Path

import pytest

from edgeelad.errors import ConfigError, ModelError
from edgeelad.records import Question
from edgeelad.text.prompts import PromptFormat, question_text

QUESTION = Question("1", "Which is red?", kind="choice", choices=("sky", "blood"))


def test_the_plain_prompt_keeps_its_last_newline() -> None:
    assert PromptFormat().render(Question("1", "1 + 1?")) == "Question: 1 + 1?\nExplanation:\n"


def test_choices_are_labeled() -> None:
    assert question_text(QUESTION) == "Which is red?\n(A) sky\n(B) blood"


def test_a_chat_prompt_carries_the_instruction() -> None:
    template = "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    prompt = PromptFormat(template, is_chat=True, instruction="Think.", bos_token="<s>").render(Question("1", "Why?"))
    assert prompt == "<s>[user] Think.\n\nWhy?"


def test_it_survives_saving(tmp_path: Path) -> None:
    options = {"thinking": False, "budget": 3, "skip": ["a", None]}
    saved = PromptFormat(
        "{{ question }} ü",
        instruction="a",
        eos_token="</s>",
        add_special_tokens=False,
        system_prompt="b",
        template_options=options,
    )
    saved.save(tmp_path)
    assert PromptFormat.load(tmp_path) == saved


def test_options_cannot_replace_the_question() -> None:
    options = {"messages": [], "question": "other", "bos_token": "<x>", "style": "short"}
    prompt = PromptFormat("{{ bos_token }}{{ question }} {{ style }}", template_options=options)
    assert prompt.render(Question("1", "Why?")) == "Why? short"


def test_a_file_without_later_fields_is_read(tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text('{"template": "x", "is_chat": true}', encoding="utf-8")
    assert PromptFormat.load(tmp_path) == PromptFormat("x", is_chat=True)


def test_question_text_is_not_a_template() -> None:
    assert "{{ 7 * 7 }}" in PromptFormat().render(Question("1", "{{ 7 * 7 }}"))


@pytest.mark.parametrize("template", ["{% if %}", "{{ question.__class__.__mro__ }}", "{{ raise_exception('no') }}"])
def test_bad_templates_are_configuration_errors(template: str) -> None:
    with pytest.raises(ConfigError, match="template"):
        PromptFormat(template).render(QUESTION)


def test_missing_and_foreign_files_are_said(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"prompt\.json: missing"):
        PromptFormat.load(tmp_path)
    (tmp_path / "prompt.json").write_text('{"other": 1}', encoding="utf-8")
    with pytest.raises(ModelError, match="not a prompt file"):
        PromptFormat.load(tmp_path)


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}{{ question }}",
        "{% for i in range(200) %}{% for j in range(200) %}{% endfor %}{% endfor %}{{ question }}",
        "{{ 'a' * 10000000000 }}",
        "{{ 10000000000 * ['a'] }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%99999999999d' % 1 }}",
        "{% set n = namespace(x='ab') %}{% for i in range(64) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x='ab') %}{% for i in range(64) %}{% set n.x = n.x + n.x %}{% endfor %}{{ n.x }}",
        "{% set n = namespace(x=3) %}{% for i in range(64) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
        "{{ question.nothing.at.all }}",
        "{{ 1 / 0 }}",
        "{{ question + 1 }}",
        "{{ ''.__class__.__mro__ }}",
    ],
)
def test_what_a_strangers_template_may_not_do_is_one_line(template: str) -> None:
    with pytest.raises(ConfigError, match="the prompt template cannot be rendered") as caught:
        PromptFormat(template).render(Question("q", "What is 1 + 1?"))
    assert "\n" not in str(caught.value)


def test_bounds_leave_room_for_what_templates_do() -> None:
    template = "{% for i in range(100) %}{{ i ~ ', ' ~ question }}{% endfor %}{{ '-' * 80 + question }}"
    prompt = PromptFormat(template)
    for _ in range(200):  # each rendering has its own steps
        assert prompt.render(Question("q", "x")).endswith("99, x" + "-" * 80 + "x")


@pytest.mark.parametrize(
    "content",
    [
        '{"template": 5}',
        '{"template": "x", "add_special_tokens": "no"}',
        '{"template": "x", "is_chat": 1}',
        '{"template": "x", "eos_token": null}',
        '{"template": "x", "unknown": 1}',
        '{"template": "x", "system_prompt": null}',
        '{"template": "x", "template_options": [1]}',
        '["x"]',
        "5",
        "[" * 500_000,
        '{"template": "' + "x" * 2_000_000 + '"}',
    ],
)
def test_a_prompt_file_of_another_shape_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "prompt.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match="not a prompt file of edgeelad"):
        PromptFormat.load(tmp_path)
