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
    saved = PromptFormat("{{ question }} ü", instruction="a", eos_token="</s>", add_special_tokens=False)
    saved.save(tmp_path)
    assert PromptFormat.load(tmp_path) == saved


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
