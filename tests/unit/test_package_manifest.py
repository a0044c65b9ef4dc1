import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.errors import PackageError
from edgeelad.package.manifest import (
    Manifest,
    check_checksums,
    check_sizes,
    describe_file,
    parse_manifest,
    read_manifest,
)

FILES = {"onnx/model_quantized.onnx": b"graph", "config.json": b"{}", "README.md": "naïve\n".encode()}


def make_folder(folder, **changes):
    """A folder with a manifest, of files that are no model."""
    for path, data in FILES.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    manifest = Manifest(
        name="tiny-edgeelad",
        base_model="tiny",
        quantization="int8",
        graph="onnx/model_quantized.onnx",
        prompt={"file": "prompt.json", "is_chat": False},
        answer_kind="number",
        answer_format="The answer is A",
        max_explanation_tokens=64,
        metrics={"accuracy_int8": 0.9, "num_test": None},
        certificate=None,
        versions={"edgeelad": "0.1.0"},
        files=tuple(describe_file(folder, path) for path in FILES),
    )
    (folder / "manifest.json").write_text(json.dumps({**manifest.to_json(), **changes}))
    return manifest


def test_a_manifest_reads_back_as_it_was_written(tmp_path):
    written = make_folder(tmp_path)
    assert read_manifest(tmp_path) == written
    check_sizes(tmp_path, written)
    check_checksums(tmp_path, written)


def test_missing_folder_file_and_manifest(tmp_path):
    with pytest.raises(PackageError, match="no such package folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(PackageError, match="not a package, or a torn one"):
        read_manifest(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(PackageError, match="an exported ONNX folder, not a package"):
        read_manifest(tmp_path)
    manifest = make_folder(tmp_path / "package")
    (tmp_path / "package/config.json").unlink()
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        check_sizes(tmp_path / "package", manifest)
    (tmp_path / "package/config.json").mkdir()
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        check_sizes(tmp_path / "package", manifest)


def test_torn_and_altered_files(tmp_path):
    manifest = make_folder(tmp_path)
    (tmp_path / "onnx/model_quantized.onnx").write_bytes(b"gra")
    with pytest.raises(PackageError, match="has 3 bytes instead of 5; copy the package again"):
        check_sizes(tmp_path, manifest)
    (tmp_path / "onnx/model_quantized.onnx").write_bytes(b"Graph")
    check_sizes(tmp_path, manifest)
    with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx was altered"):
        check_checksums(tmp_path, manifest)


def test_a_newer_schema_names_the_remedy(tmp_path):
    make_folder(tmp_path, schema_version=2, something_new=1)
    with pytest.raises(PackageError, match=r"newer edgeelad .*pip install -U edgeelad"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "path",
    ["../outside", "a/../../outside", "/etc/passwd", "C:/x", "C:x", "..\\x", "a\\b", "", "..", "x\0y", "onnx/../../x"],
)
def test_paths_outside_the_package_are_refused(tmp_path, path):
    manifest = make_folder(tmp_path)
    data = manifest.to_json()
    data["files"] = [*data["files"], {"path": path, "size": 0, "sha256": "0" * 64}]
    with pytest.raises(PackageError, match="a path outside the package"):
        parse_manifest(data, "manifest.json")
    with pytest.raises(PackageError, match="a path outside the package"):
        parse_manifest({**manifest.to_json(), "graph": path}, "manifest.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"written_by": "someone"},
        {"schema_version": "1"},
        {"schema_version": True},
        {"schema_version": 0},
        {"schema_version": None},
        {"files": None},
        {"files": [1]},
        {"files": [{"path": "x"}]},
        {"files": [{"path": 1, "size": 0, "sha256": ""}]},
        {"files": [{"path": "x", "size": "0", "sha256": ""}]},
        {"files": []},
        {"graph": "onnx/other.onnx"},
        {"quantization": "int2"},
        {"answer_kind": "poem"},
        {"max_explanation_tokens": 0},
        {"name": None},
        {"unknown": 1},
        {"metrics": [1]},
        {"certificate": "yes"},
    ],
)
def test_damaged_manifests(tmp_path, changes):
    make_folder(tmp_path, **changes)
    with pytest.raises(PackageError, match=r"manifest\.json: (damaged|not a manifest of edgeelad)") as caught:
        read_manifest(tmp_path)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["schema_version", "files", "graph", "name", "quantization", "metrics", "prompt"]), JSON)
def test_whatever_a_field_holds_it_is_read_or_refused(tmp_path_factory, field, value):
    folder = tmp_path_factory.mktemp("package")
    data = {**make_folder(folder).to_json(), field: value}
    with contextlib.suppress(PackageError):  # any other exception would be ours to prevent
        assert isinstance(parse_manifest(data, "m"), Manifest)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000])
def test_manifests_that_are_no_json_object(tmp_path: Path, data):
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(PackageError, match=r"manifest\.json: (damaged|not a manifest)"):
        read_manifest(tmp_path)
