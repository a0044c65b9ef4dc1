"""The configuration: validated whole, round trips through TOML, errors that help, every key described."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import tomllib
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.config import RunConfig, load_config, make_config, parse_override
from edgeelad.config_toml import Key, describe_keys, dump_toml
from edgeelad.errors import ConfigError

KEYS = {(key.section, key.name): key for key in describe_keys()}


def other_value(key: Key) -> Any:
    """A valid value that is not the default."""
    kind = type(getattr(RunConfig(), key.section)).model_fields[key.name].annotation
    if get_origin(kind) is Literal:
        return next(value for value in get_args(kind) if value != key.default)
    if key.default is None or key.default in ({}, ()):
        return key.example
    if isinstance(key.default, bool):
        return not key.default
    if isinstance(key.default, str):
        return key.default + " other"
    numbers = (key.default + 1, key.default * 0.5, key.default + 0.25)
    return next(value for value in numbers if accepted(key, type(key.default)(value)) and value != key.default)


def accepted(key: Key, value: Any) -> bool:
    try:
        make_config({key.section: {key.name: value}})
    except ConfigError:
        return False
    return True


def dumped(config: RunConfig, path: Path) -> RunConfig:
    path.write_text(dump_toml(config), encoding="utf-8", newline="")
    return load_config(path)


def test_defaults_round_trip_through_toml(tmp_path: Path) -> None:
    assert dumped(RunConfig(), tmp_path / "run.toml") == RunConfig()


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_round_trips(section: str, name: str, tmp_path: Path) -> None:
    key = KEYS[section, name]
    data: dict[str, dict[str, Any]] = {section: {name: other_value(key)}}
    if name == "max_usd":
        data[section] |= {"usd_per_million_prompt": 1.0, "usd_per_million_completion": 2.0}
    if name == "fsdp":
        data[section]["num_processes"] = 2
    config = make_config(data)
    assert getattr(getattr(config, section), name) != key.default
    assert dumped(config, tmp_path / "run.toml") == config


@pytest.mark.parametrize(("section", "name"), KEYS)
def test_every_key_is_described(section: str, name: str) -> None:
    key = KEYS[section, name]
    assert re.fullmatch(r".{10,}\.", key.description), key.description
    assert key.allowed.startswith(("Text", "Integer", "Number", "Boolean", "Table", "List", "One of "))
    assert key.example is not None
    assert accepted(key, key.example) or name == "max_usd"
    assert key.default is not None or f"{name} = " in dump_toml(RunConfig())


@pytest.mark.parametrize(
    ("section", "name", "text"),
    [
        ("scoring", "num_branches", "Sampled continuations per step prefix (m). Integer, 2 to 64. Default: 3."),
        ("training", "epochs", "Passes over the examples. Number, above 0. Default: 3.0."),
        ("training", "lora_dropout", "Dropout before the LoRA matrices. Number, minimum 0, below 1. Default: 0.0."),
        ("training", "method", 'Train all weights, or a LoRA. One of full, lora. Default: "full".'),
        ("export", "fresh", "Export every round from scratch instead of swapping weights. Boolean. Default: false."),
        ("pool", "limit", "Use only the first N questions. Integer, minimum 1."),
    ],
)
def test_range_and_default_are_told(section: str, name: str, text: str) -> None:
    assert KEYS[section, name].text == text


def test_the_text_lists_every_key_once_and_what_is_not_set_as_a_comment() -> None:
    text = dump_toml(RunConfig())
    assert max(map(len, text.splitlines())) <= 120
    for (section, name), key in KEYS.items():
        body = text.partition(f"\n[{section}]")[2].partition("\n\n[")[0] or text.partition(f"[{section}]")[2]
        (line,) = re.findall(rf"^(?:# )?{name} = .*$", body.partition("\n[")[0], re.MULTILINE)
        assert line.startswith("# ") == (key.default is None)


def test_with_its_comments_removed_every_example_is_valid() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", dump_toml(RunConfig()), flags=re.MULTILINE)
    config = make_config(tomllib.loads(text))
    assert config.teacher.max_usd == 20.0
    for (section, name), key in KEYS.items():
        expected = key.example if key.default is None else key.default
        assert getattr(getattr(config, section), name) == expected


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_value_round_trips(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "text.toml"
    teacher = {"style": text, "extra_headers": {"X-Note": f"is {text}"}, "extra_body": {text: text}}
    config = make_config({"teacher": teacher})
    assert dumped(config, path) == config
    assert dump_toml(RunConfig(), header=text).endswith(dump_toml(RunConfig()))
    assert make_config(tomllib.loads(dump_toml(RunConfig(), header=text))) == RunConfig()


JSON_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(body=st.dictionaries(st.text(max_size=5), JSON_VALUES, max_size=3))
def test_any_request_body_round_trips(body: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    config = make_config({"teacher": {"extra_body": body}})
    assert dumped(config, tmp_path_factory.getbasetemp() / "body.toml") == config


def test_what_toml_cannot_hold_is_named() -> None:
    with pytest.raises(ConfigError, match=r"teacher\.extra_body: cannot be written as TOML"):
        dump_toml(make_config({"teacher": {"extra_body": {"stop": None}}}))


def test_the_command_prints_a_configuration_that_it_reads(tmp_path: Path) -> None:
    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", "edgeelad", "config", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    path = tmp_path / "run.toml"
    path.write_text(printed("--set", "training.epochs=2"), encoding="utf-8")
    assert load_config(path) == make_config({"training": {"epochs": 2}})
    assert printed(str(path)) == path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trainin": {}}, "unknown key trainin; did you mean training?"),
        ({"training": {"epoch": 2}}, "unknown key training.epoch; did you mean epochs?"),
        ({"training": {"epochs": -1}}, "training.epochs: input should be greater than 0, found -1"),
        ({"scoring": {"num_branches": 1}}, "scoring.num_branches: input should be greater than or equal to 2, found 1"),
        ({"teacher": {"max_usd": 3}}, "max_usd needs usd_per_million_prompt"),
        ({"selection": {"strategy": 3}}, "selection.strategy: input should be a valid string, found 3"),
        ({"scoring": {"precision": "int4"}}, "scoring.precision is int4, but export.quantize is int8"),
        ({"scoring": {"precision": "int8"}, "export": {"quantize": "none"}}, "set scoring.precision to fp32"),
        ({"training": {"epochs": float("inf")}}, "training.epochs: input should be a finite number, found inf"),
    ],
)
def test_mistakes_are_named(data: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=r"^configuration: ") as error:
        make_config(data)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_mistake_is_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"selection\.num_rounds.*; training\.epochs"):
        make_config({"training": {"epochs": 0}, "selection": {"num_rounds": 0}})


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("training.epochs=2", ("training", "epochs", 2)),
        ("pool.path=a b.jsonl", ("pool", "path", "a b.jsonl")),
        ("teacher.url=http://127.0.0.1:1/v1", ("teacher", "url", "http://127.0.0.1:1/v1")),
        ('run.out="x=y"', ("run", "out", "x=y")),
        ("stopping.stop_when_certified=false", ("stopping", "stop_when_certified", False)),
    ],
)
def test_overrides_parse(text: str, parsed: tuple[str, str, object]) -> None:
    assert parse_override(text) == parsed


@pytest.mark.parametrize("text", ["epochs=2", "training.epochs", ".x=1", "a.=1", ""])
def test_malformed_overrides_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected section\.key=value"):
        parse_override(text)


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text("[training]\nepochs = 1\n", encoding="utf-8")
    assert load_config(path, ["training.epochs=2.5"]).training.epochs == 2.5


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"[training\n", "not valid TOML"), (b"\xff\xfe", "not UTF-8 at byte 0"), (b"training = 3\n", "training")],
)
def test_bad_files_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such configuration file"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "headers",
    [
        {"api-key": "abc"},
        {"Authorization": "abc"},
        {"x-api-key": "abc"},
        {"X-Goog-Api-Key": "abc"},
        {"Ocp-Apim-Subscription-Key": "abc"},
        {"Proxy-Authorization": "abc"},
        {"X-Auth-Token": "abc"},
        {"Cookie": "abc"},
        {"X-Custom": "Bearer abc"},
        {"X-Custom": "sk-abc"},
    ],
)
def test_secrets_are_refused_as_literal_headers(headers):
    (name,) = headers
    with pytest.raises(ConfigError, match=f'extra_headers_env = {{"{name}" = "VARIABLE"}}') as raised:
        make_config({"teacher": {"extra_headers": headers}})
    assert "abc" not in str(raised.value)


def test_other_headers_are_taken():
    headers = {"X-Team": "a", "OpenAI-Organization": "org", "anthropic-version": "2023-06-01", "HTTP-Referer": "x"}
    assert make_config({"teacher": {"extra_headers": headers}}).teacher.extra_headers == headers


@pytest.mark.parametrize("value", ["4.1", "5", "true", "2024-06-01", "gpt-4.1", '"4.1"'])
def test_overrides_of_text_are_text(value):
    assert make_config({}, [f"teacher.model={value}"]).teacher.model == value.strip('"')


OPENAI = {"url": "https://api.openai.com/v1", "model": "gpt-4o-mini"}


def priced(overrides=(), **teacher):
    config = make_config({"teacher": {**OPENAI, **teacher}}, overrides).teacher
    return config.usd_per_million_prompt, config.usd_per_million_completion, config.prices_from


def test_prices_of_known_models_are_looked_up_offline():
    prompt, completion, source = priced(max_usd=1.0)
    assert 0 < prompt < completion
    assert source.startswith("genai-prices ")


@pytest.mark.parametrize(
    "teacher",
    [
        {"model": "gpt-4o-mini-of-ours"},
        {"url": "https://llm.example.com/v1"},
        {"url": "http://127.0.0.1:8000/v1"},
        {"url": "http://gpu-box:8000/v1"},
        {"url": "https://api.openai.com.example.com/v1"},
        # there a name is a deployment, and here the price depends on the hour
        {"url": "https://x.openai.azure.com/openai/deployments/d"},
        {"url": "https://api.deepseek.com/v1", "model": "deepseek-chat"},
    ],
)
def test_prices_are_not_guessed(teacher):
    assert priced(**teacher) == (None, None, None)
    with pytest.raises(ConfigError, match=r"max_usd needs usd_per_million_prompt .*edgeelad\[prices\]"):
        priced(**teacher, max_usd=1.0)


def test_prices_that_are_set_stay():
    given = {"usd_per_million_prompt": 7.0, "usd_per_million_completion": 8.0}
    assert priced(**given) == (7.0, 8.0, None)
    recorded = dict(
        zip(("usd_per_million_prompt", "usd_per_million_completion", "prices_from"), (7.0, 8.0, "x"), strict=True)
    )
    # as they were looked up when the run began, whatever the table says now; unless the model is another
    assert priced(**recorded) == (7.0, 8.0, "x")
    assert priced(["teacher.usd_per_million_prompt=9"], **recorded) == (9.0, 8.0, None)
    changed = priced(["teacher.model=gpt-4.1"], **recorded)
    assert changed[0] not in (7.0, None)
    assert changed[2] != "x"
    assert priced(["teacher.model=unknown"], **recorded)[:2] == (None, None)


def test_a_second_endpoint_has_its_own_prices():
    given = {"usd_per_million_prompt": 7.0, "usd_per_million_completion": 8.0, "max_usd": 1.0}
    elsewhere = {"fallback_url": "https://llm.example.com/v1"}
    with pytest.raises(ConfigError, match="max_usd needs fallback_usd_per_million_prompt"):
        make_config({"teacher": {**OPENAI, **given, **elsewhere}})
    known = {"fallback_url": "https://openrouter.ai/api/v1", "fallback_model": "openai/gpt-4o-mini"}
    config = make_config({"teacher": {**OPENAI, **given, **known, "extra_headers": {"X-Team": "a"}}}).teacher
    second = config.fallback
    assert (second.url, second.model, second.api_key_env) == ("https://openrouter.ai/api/v1", "openai/gpt-4o-mini", "")
    assert second.usd_per_million_prompt < 7.0
    assert (second.extra_headers, second.fallback, config.usd_per_million_prompt) == ({}, None, 7.0)
    with pytest.raises(ConfigError, match="fallback_url and batch exclude each other"):
        make_config({"teacher": {**OPENAI, **known, "batch": True}})


def test_a_byte_order_mark_is_no_part_of_a_configuration(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(b"\xef\xbb\xbf[run]\nseed = 7\n")
    assert load_config(path).run.seed == 7
