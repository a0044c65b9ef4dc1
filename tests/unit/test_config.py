"""The configuration: validated whole, round trips through TOML, errors that help."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.config import RunConfig, dump_toml, load_config, make_config, parse_override
from edgeelad.errors import ConfigError


def test_defaults_round_trip_through_toml(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(dump_toml(RunConfig(), header="two\nlines"), encoding="utf-8")
    assert load_config(path) == RunConfig()


@given(text=st.text(st.characters(codec="utf-8"), max_size=40))
def test_any_text_value_round_trips(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "text.toml"
    config = make_config({"teacher": {"style": text, "extra_headers": {"X-Note": text}}})
    path.write_text(dump_toml(config), encoding="utf-8", newline="")
    assert load_config(path) == config


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"trainin": {}}, "unknown key trainin; did you mean training?"),
        ({"training": {"epoch": 2}}, "unknown key training.epoch; did you mean epochs?"),
        ({"training": {"epochs": -1}}, "training.epochs: input should be greater than 0, found -1"),
        ({"scoring": {"num_branches": 1}}, "scoring.num_branches: input should be greater than or equal to 2, found 1"),
        ({"teacher": {"max_usd": 3}}, "max_usd needs usd_per_million_prompt"),
        ({"selection": {"strategy": 3}}, "selection.strategy: input should be a valid string, found 3"),
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
