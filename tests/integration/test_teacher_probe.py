"""The teacher is tried for nothing before anything is made."""

import json
import socket

import pytest
from fixtures.chaos_server import ChaosServer, Raw

from edgeelad.config import TeacherConfig, make_config
from edgeelad.errors import ConfigError, TeacherRefusedError, TeacherUnavailableError
from edgeelad.loop import distill
from edgeelad.progress import Silent
from edgeelad.teacher.client.probe import probe


def models(*names):
    return Raw(
        200, json.dumps({"object": "list", "data": [{"id": name, "object": "model"} for name in names]}).encode()
    )


def tried(get, model="gpt-4o-mini", **settings):
    """The warnings of a probe, and the paths that it asked for."""
    warnings = []
    with ChaosServer(get=get) as server:
        probe(
            TeacherConfig(url=server.url, model=model, **{"api_key_env": "", **settings}),
            warnings.append,
            lambda s: None,
        )
        assert server.requests == []
    return warnings, server.paths


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        ("gpt-4o-mini", "gpt-4o-mini"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("gemini-2.5-flash", "models/gemini-2.5-flash"),
        ("openai/gpt-4o:nitro", "openai/gpt-4o"),
        ("llama3", "llama3:latest"),
    ],
)
def test_a_model_that_is_listed(model, listed):
    assert tried(lambda path: models("other", listed), model) == ([], ["/v1/models"])


@pytest.mark.parametrize(
    "answer",
    [
        Raw(404, b'{"detail": "Not Found"}'),
        Raw(405),
        Raw(500),
        Raw(429, b"{}", {"Retry-After": "86400"}),
        Raw(403, b'{"error": {"message": "Forbidden"}}'),
        Raw(401, b'{"error": {"message": "You have insufficient permissions. Missing scopes: api.model.read"}}'),
        Raw(200, b"<html>"),
        Raw(200, b"[]"),
        Raw(200, b'{"data": null}'),
        Raw(200, b'{"data": [{"id": 7}, 3]}'),
    ],
)
def test_an_endpoint_without_a_list_is_taken_as_it_is(answer):
    assert tried(lambda path: answer) == ([], ["/v1/models"])


def test_a_server_that_knows_no_get():
    assert tried(None) == ([], ["/v1/models"])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Raw(401, b'{"error": {"message": "Incorrect API key provided", "code": "invalid_api_key"}}'), "api_key_env"),
        (Raw(400, b'[{"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}}]'), "api_key_env"),
        (Raw(200, b'{"error": "Unexpected endpoint or method. (GET /models)"}'), "/v1"),
        (Raw(404, b'{"error": {"message": "no such model", "code": "model_not_found"}}'), "teacher.model"),
        (Raw(403, b'{"error": {"message": "Pay first", "code": "insufficient_quota"}}'), "no money"),
    ],
)
def test_what_is_certain_is_refused(answer, message):
    with pytest.raises(TeacherRefusedError, match=message):
        tried(lambda path: answer)


def test_a_model_that_is_not_listed_and_not_known():
    def get(path):
        unknown = b'{"error": {"message": "The model \'gpt-4o-mimi\' does not exist", "code": "model_not_found"}}'
        return models("gpt-4o-mini", "gpt-4o") if path == "/v1/models" else Raw(404, unknown)

    with pytest.raises(TeacherRefusedError, match="does not list the model gpt-4o-mimi; it lists gpt-4o-mini"):
        tried(get, "gpt-4o-mimi")


def test_a_model_that_is_not_listed_may_be_served_all_the_same():
    (warning,), paths = tried(lambda path: models("local.gguf") if path == "/v1/models" else Raw(404), "gpt-4o")
    assert "does not list the model gpt-4o; it lists local.gguf" in warning
    assert paths == ["/v1/models", "/v1/models/gpt-4o"]
    assert tried(lambda path: models("a") if path == "/v1/models" else Raw(200), "gpt-4o")[0] == []


def test_the_key_goes_with_it_and_the_query_too(monkeypatch):
    monkeypatch.setenv("AZURE_KEY", "abcdefgh")
    with ChaosServer(get=lambda path: models("m")) as server:
        url = f"{server.url}/deployments/m?api-version=2024-10-21"
        probe(TeacherConfig(url=url, model="m", api_key_env="AZURE_KEY"), print)
        assert server.paths == ["/v1/deployments/m/models?api-version=2024-10-21"]


def nowhere():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}/v1"


def test_nobody_there():
    slept = []
    with pytest.raises(TeacherUnavailableError, match=r"does not answer: no connection .*check teacher\.url"):
        probe(TeacherConfig(url=nowhere(), model="m", api_key_env=""), print, slept.append)
    assert len(slept) == 2


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"url": nowhere()}, TeacherUnavailableError),
        ({"model": "unknown"}, TeacherRefusedError),
        ({"model": None}, ConfigError),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, ConfigError),
        ({"url": "http://example.com/v1"}, ConfigError),
    ],
)
def test_a_run_that_cannot_ask_makes_no_folder(tmp_path, settings, error):
    def get(path):
        unknown = b'{"error": {"message": "The model unknown does not exist", "code": "model_not_found"}}'
        return models("m") if path == "/v1/models" else Raw(404, unknown)

    with ChaosServer(get=get) as server:
        teacher = {"url": server.url, "model": "m", "api_key_env": "", **settings}
        sections = {"run": {"out": str(tmp_path / "run")}, "pool": {"path": "pool.jsonl"}, "student": {"model": "s"}}
        with pytest.raises(error):
            distill(make_config({**sections, "teacher": {k: v for k, v in teacher.items() if v is not None}}), Silent())
    assert list(tmp_path.iterdir()) == []
