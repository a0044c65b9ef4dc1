"""What `edgeelad serve` makes of its options."""

import click
import pytest

from edgeelad.cli.serve import ServeCommand, _teacher_config, serve


def teacher_config(*arguments):
    """The teacher's configuration for a command line."""
    context = serve.make_context("serve", ["package", "--escalate-below", "0.5", *map(str, arguments)])
    assert isinstance(context, click.Context)
    return _teacher_config(ServeCommand(**context.params))


ENDPOINT = ("--teacher-url", "http://127.0.0.1:9/v1", "--teacher-model", "m", "--set", "teacher.max_requests=9")


@pytest.mark.parametrize(
    ("in_file", "arguments", "expected"),
    [
        ("", (), (15.0, 60.0)),
        ("max_retry_s = 600.0\nread_timeout_s = 120.0", (), (15.0, 60.0)),
        ("max_retry_s = 5.0\nread_timeout_s = 20.0", (), (5.0, 20.0)),
        ("max_retry_s = 5.0", ("--set", "teacher.max_retry_s=100"), (100.0, 60.0)),
        ("", ("--set", "teacher.read_timeout_s=300"), (15.0, 300.0)),
    ],
)
def test_clients_wait_for_the_teacher_for_a_limited_time(tmp_path, in_file, arguments, expected):
    (tmp_path / "run.toml").write_text(f"[teacher]\n{in_file}\n", encoding="utf-8")
    config = teacher_config(*ENDPOINT, "--config", tmp_path / "run.toml", *arguments)
    assert (config.max_retry_s, config.read_timeout_s) == expected


def test_a_server_buys_no_batches(tmp_path):
    (tmp_path / "run.toml").write_text("[teacher]\nbatch = true\n", encoding="utf-8")
    assert not teacher_config(*ENDPOINT, "--config", tmp_path / "run.toml").batch
    assert not teacher_config(*ENDPOINT, "--set", "teacher.batch=true").batch
