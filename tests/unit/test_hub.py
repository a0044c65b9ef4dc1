"""Packages on the Hub: uploaded to one on loopback, downloaded and checked."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.hub import TOKEN, FakeHub, fake_hub
from fixtures.packages import make_package
from fixtures.students import StudentFolders

NAME = "org/sums"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        yield hub


@pytest.fixture
def package(students: StudentFolders) -> Path:
    return make_package(students)


def edgeelad(
    hub: FakeHub | str, home: Path, *arguments: object, token: str = "", **environment: str
) -> tuple[int, str, str]:
    """Run a command with the Hub of a test: exit code, stdout, stderr."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    url = hub if isinstance(hub, str) else hub.url
    settings = {"HF_ENDPOINT": url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "edgeelad", *map(str, arguments)],
        env={**kept, **settings, **({"HF_TOKEN": token} if token else {}), **environment},
        cwd=home,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def content(package: Path) -> dict[str, bytes]:
    return {path.relative_to(package).as_posix(): path.read_bytes() for path in package.rglob("*") if path.is_file()}


def test_a_package_is_uploaded_and_run_from_the_hub(hub: FakeHub, package: Path, tmp_path: Path) -> None:
    hub.commit(NAME, {".gitattributes": b"* -text\n", "onnx/engine_quantized.onnx": b"old", "notes.txt": b"mine"})
    code, out, err = edgeelad(hub, tmp_path, "push", package, NAME, token=TOKEN)
    assert (code, err) == (0, "")
    commit, files = hub.files(NAME)
    assert files == {**content(package), ".gitattributes": b"* -text\n", "notes.txt": b"mine"}
    listed = [line.rpartition("  ")[0] for line in out.splitlines()[:-1]]
    assert listed == sorted(content(package))
    assert out.splitlines()[-1] == f"{hub.url}/{NAME}  {commit}"

    code, out, err = edgeelad(hub, tmp_path, "run", NAME, "What is 2 + 3?", "--json")
    assert (code, err) == (0, "")
    code, same, _ = edgeelad(hub, tmp_path, "run", package, "What is 2 + 3?", "--json")
    assert code == 0
    assert out == same
    assert not [path for path in hub.requests if path.startswith("GET") and path.endswith("notes.txt")]

    # a pinned commit in the cache needs no network, and neither does a branch
    hub.commit(NAME, {})
    for name, settings in ((f"{NAME}@{commit}", {}), (NAME, {"HF_HUB_OFFLINE": "1"})):
        assert edgeelad("http://127.0.0.1:9", tmp_path, "run", name, "What is 2 + 3?", "--json", **settings)[1] == out
    code, _, err = edgeelad(hub, tmp_path, "run", NAME, "What is 2 + 3?")
    assert code == 1
    assert f"{NAME}: no package: it lacks manifest.json" in err


def test_a_new_repository_is_private_unless_it_is_said_to_be_public(
    hub: FakeHub, package: Path, tmp_path: Path
) -> None:
    for name, options, is_private in (("org/a", [], True), ("org/b", ["--public"], False)):
        code, out, _ = edgeelad(hub, tmp_path, "push", package, name, "--json", *options, token=TOKEN)
        assert code == 0
        assert (name in hub.private) == is_private
        assert dict(json.loads(out)["files"]) == {path: len(data) for path, data in content(package).items()}
    code, _, err = edgeelad(hub, tmp_path, "run", "org/a", "What is 2 + 3?")
    assert (code, len(err.splitlines())) == (1, 1)
    assert "org/a: no such folder, and no such repository on the Hub, or no access to it; set HF_TOKEN" in err
    assert edgeelad(hub, tmp_path, "run", "org/a", "What is 2 + 3?", token=TOKEN)[0] == 0


def test_what_cannot_be_uploaded(hub: FakeHub, package: Path, tmp_path: Path) -> None:
    altered = tmp_path / "altered"
    altered.mkdir()
    for path, data in content(package).items():
        (altered / path).parent.mkdir(exist_ok=True)
        (altered / path).write_bytes(data)
    (altered / "model.py").write_text("print(1)")
    for folder, name, message in (
        (package, "sums", "'sums' is not the name of a repository; name it as org/model"),
        (package, "org/sums@main", "is not the name of a repository"),
        (tmp_path / "none", NAME, "no such package folder"),
        (altered, NAME, "not uploaded, because it is not verified here"),
    ):
        code, _, err = edgeelad(hub, tmp_path, "push", folder, name, token=TOKEN)
        assert (code, len(err.splitlines())) == (1, 1)
        assert message in err
    assert hub.requests == []
    code, _, err = edgeelad(hub, tmp_path, "push", package, NAME, token="hf_wrong")
    assert (code, len(err.splitlines())) == (1, 1)
    assert f"{NAME}: the Hub cannot be reached, or refuses" in err
    assert hub.repositories == {}


def test_a_package_on_the_hub_is_a_strangers(hub: FakeHub, package: Path, tmp_path: Path) -> None:
    files = content(package)
    weights = bytearray(files["onnx/model_quantized.onnx_data"])
    weights[len(weights) // 2] ^= 1
    hub.commit("org/altered", {**files, "onnx/model_quantized.onnx_data": bytes(weights)})
    hub.commit("org/outside", {**files, "manifest.json": files["manifest.json"].replace(b"prompt.json", b"../p.json")})
    hub.commit("org/other", {"README.md": b"# words"})
    del files["tokenizer.json"]
    hub.commit("org/incomplete", files)
    for name, message in (
        ("org/altered", "onnx/model_quantized.onnx_data was altered"),
        ("org/altered", "to download it again"),  # once more: it is not taken for checked
        ("org/outside", "names '../p.json', a path outside the package"),
        ("org/other", "org/other: no package: it lacks manifest.json"),
        ("org/incomplete", "org/incomplete: no package: it lacks manifest.json, or a file that this lists"),
        ("org/none", "no such repository on the Hub"),
        ("org/other@v9", "org/other: no such revision"),
    ):
        code, out, err = edgeelad(hub, tmp_path, "run", name, "What is 2 + 3?")
        assert (code, out, len(err.splitlines())) == (1, "", 1)
        assert message in err
    for settings in ({}, {"HF_HUB_OFFLINE": "1"}):
        code, _, err = edgeelad("http://127.0.0.1:9", tmp_path, "run", NAME, "What is 2 + 3?", **settings)
        assert (code, len(err.splitlines())) == (1, 1)
        assert f"{NAME}: no such folder, not in huggingface_hub's cache, and the Hub cannot be reached" in err


def test_a_path_is_no_repository(hub: FakeHub, package: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("runs/a", "./runs/a", "/runs/a", "package", "a/b/c"):
        code, _, err = edgeelad(hub, tmp_path, "run", name, "What is 2 + 3?")
        assert code == 1
        assert "no such folder; name a package or an exported student" in err
    assert hub.requests == []
