"""The prompt format: rendering, saving, and templates that are wrong."""

import json
from pathlib import Path

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

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
        "{% for i in range(9999) %}" + "x" * 100_000 + "{% endfor %}",
        "{% macro m() %}" + "x" * 100_000 + "{% endmacro %}{% for i in range(9999) %}{% set y = m() %}{% endfor %}",
        "{% for a in 'abcdefghij' %}" * 9 + "{% endfor %}" * 9,
        "{% for a in [1] * 20 if a %}" * 5 + "{% endfor %}" * 5,
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for x in [[[1]]] recursive %}{{ loop([[[1]]]) }}{{ loop([[[1]]]) }}{% endfor %}",
        "{% set x = ['a'] %}" + "{% set x = [x, x] %}" * 40 + "{{ x }}",
        "{% set x = ['a'] %}" + "{% set x = (x, x) %}" * 40 + "{{ x|tojson }}",
        "{% set x = {} %}" + "{% set x = {'a': x, 'b': x} %}" * 40 + "{{ x|string }}",
        "{% set x %}ab{% endset %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 64 + "{{ x }}",
        "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 40 + "{{ a == b }}",
        "{% set n = namespace(x=1) %}{% set n.y = n %}{{ n }}",
        "{{ 'x'|center(1000000000) }}",
        "{% filter center(1000000000) %}x{% endfilter %}",
        "{{ question|map('center', 100000000)|list }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ (1).to_bytes(1000000000, 'big') }}",
        "{{ ('a\\n' * 100000)|indent(1000) }}",
        "{{ ('a' * 100000)|replace('a', 'b' * 1000) }}",
        "{{ ('a' * 100000).replace('', 'b' * 1000) }}",
        "{{ ('b' * 10000).join(['a'] * 10000) }}",
        "{{ (['a'] * 10000)|join('b' * 10000) }}",
        "{{ ('a' * 10000).translate({97: 'b' * 10000}) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ '%*d'|format(1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ ('{0}' * 10000).format('a' * 10000) }}",
        "{{ strftime_now('%1000000000d') }}",
        "{{ strftime_now('%9999Y' * 100000) }}",
        "{{ {'a': [1]}|tojson(indent=1000000000) }}",
        "{{ [1]|slice(1000000000)|list }}",
        "{{ [1]|batch(1000000000, 'x')|list }}",
        "{{ ([[1]] * 10000)|sum(start=[]) }}",
        "{% set x = 'a' * 3000000 %}{% for i in range(999) %}{% set y = x[1:] %}{% endfor %}",
        "{% set x = 'a' * 3000000 %}{% for i in range(999) %}{{ 'b' in x }}{% endfor %}",
        "{% set x = 'a' * 3000000 %}{% for i in range(999) %}{% if x is eq x %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 3000000 %}{% for i in range(999) %}{% set y = x.upper() %}{% endfor %}",
        "{% for i in range(999) %}{% set x = ['a'] * 9999 %}{% endfor %}",
        "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{% for x in y %}" * 30 + "{% endfor %}" * 30,
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


CHAT = """{%- macro shown(message) -%}
{{ message.content if message.content is string else message['content']|map(attribute='text')|join('') }}
{%- endmacro -%}
{%- set ns = namespace(system='You are helpful.', count=0) -%}
{%- if messages[0]['role'] == 'system' %}{% set ns.system = messages[0].content|trim %}{% endif -%}
{{- bos_token + '<|system|>\n' ~ ns.system }}{% if tools is not none and tools %}{{ tools|tojson(indent=2) }}{% endif %}
{%- for message in messages if message.role in ('user', 'assistant') %}
    {%- set ns.count = ns.count + loop.index0 -%}
    {{- '\n<|%s|>\n'|format(message.role) }}{{ shown(message).split('</think>')[-1].lstrip('\n')[:5000] }}
    {%- for key, value in {'role': message.role}|dictsort %}{{ '{}={:>3}'.format(key, value) }}{% endfor %}
    {%- if loop.last and (messages|length) % 2 == 1 %}{{ eos_token * 2 }}{% else %}{% continue %}{% endif %}
{%- endfor %}
{%- for i in range(3) %}{{ [i, -i]|sum }},{{ i|string|replace('1', 'one')|upper }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{{ messages|tojson }}{{ [1, [2]] }}"""


def test_a_chat_template_is_rendered_as_jinja2_renders_it() -> None:
    options = {"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}
    plain = ImmutableSandboxedEnvironment(**options)
    plain.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    question = Question("q", "Is </think> a tag? " + "ü < 3 & so on. " * 100)
    expected = plain.from_string(CHAT).render(
        messages=[{"role": "user", "content": question.text}], tools=None, bos_token="<s>", eos_token="</s>",
        add_generation_prompt=True,
    )  # fmt: skip
    assert PromptFormat(CHAT, is_chat=True, bos_token="<s>", eos_token="</s>").render(question) == expected


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
