import contextlib
import dataclasses
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeelad.errors import PackageError
from edgeelad.package.manifest import (
    MANIFEST_FILE,
    Manifest,
    check_checksum,
    check_files,
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
        standard_graph="onnx/model_quantized.onnx",
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
    check_files(tmp_path, written)
    for entry in written.files:
        check_checksum(tmp_path, entry)


def test_missing_folder_file_and_manifest(tmp_path):
    with pytest.raises(PackageError, match="no such package folder"):
        read_manifest(tmp_path / "nowhere")
    with pytest.raises(PackageError, match="not a package, or an incomplete one"):
        read_manifest(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    with pytest.raises(PackageError, match="an exported ONNX folder, not a package"):
        read_manifest(tmp_path)
    manifest = make_folder(tmp_path / "package")
    (tmp_path / "package/config.json").unlink()
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        check_files(tmp_path / "package", manifest)
    (tmp_path / "package/config.json").mkdir()
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        check_files(tmp_path / "package", manifest)


@pytest.mark.parametrize("oldest", ["", "1", "1.22.1", "newest", "1.22\n", "9" * 9 + ".1", 1.22, None])
def test_an_oldest_runtime_that_is_no_release(tmp_path, oldest):
    make_folder(tmp_path, oldest_onnxruntime=oldest)
    with pytest.raises(PackageError, match="oldest_onnxruntime is"):
        read_manifest(tmp_path)


def test_truncated_and_altered_files(tmp_path):
    manifest = make_folder(tmp_path)
    (tmp_path / "onnx/model_quantized.onnx").write_bytes(b"gra")
    with pytest.raises(PackageError, match="has 3 bytes instead of 5; copy the package again"):
        check_files(tmp_path, manifest)
    (tmp_path / "onnx/model_quantized.onnx").write_bytes(b"Graph")
    check_files(tmp_path, manifest)
    with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx was altered"):
        check_checksum(tmp_path, next(entry for entry in manifest.files if entry.path.endswith(".onnx")))


def test_a_newer_schema_names_the_remedy(tmp_path):
    make_folder(tmp_path, schema_version=2, something_new=1)
    with pytest.raises(PackageError, match=r"newer edgeelad .*pip install -U edgeelad"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "a/../../outside",
        "/etc/passwd",
        "C:/x",
        "C:x",
        "..\\x",
        "a\\b",
        "",
        "..",
        "onnx/../../x",
        "./x",
        "a//b",
        "a/",
        ".",
        "a:b",
    ],
)
def test_paths_outside_the_package_are_refused(tmp_path, path):
    manifest = make_folder(tmp_path)
    data = manifest.to_json()
    data["files"] = [*data["files"], {"path": path, "size": 0, "sha256": "0" * 64}]
    with pytest.raises(PackageError, match="a path outside the package"):
        parse_manifest(data, "manifest.json")
    with pytest.raises(PackageError, match="a path outside the package"):
        parse_manifest({**manifest.to_json(), "graph": path}, "manifest.json")
    with pytest.raises(PackageError, match="a path outside the package"):
        parse_manifest({**manifest.to_json(), "standard_graph": path}, "manifest.json")


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
        {"name": "tiny\x1b]0;owned\x07"},
        {"base_model": "a\nb"},
        {"name": "\u202eright to left"},
        {"name": "x" * 2000},
        {"answer_format": {"a": 1}},
        {"metrics": {"accuracy": float("nan")}},
        {"metrics": {"accuracy": 1e400}},
        {"metrics": {"accuracy": 10**400}},
        {"metrics": {"accuracy": [1]}},
        {"metrics": {"\x1b[2J": 1}},
        {"versions": {"onnxruntime": "\x1b[2J"}},
        {"certificate": {"upper": {"nested": 1}}},
        {"prompt": {"file": "\x07"}},
        {"max_explanation_tokens": 10**30},
        {"max_explanation_tokens": True},
        {"max_explanation_tokens": 64.0},
        {"standard_graph": "onnx/other.onnx"},
        {"standard_graph": None},
        {"graph": ["onnx/model_quantized.onnx"]},
        {"files": [{"path": "x", "size": -1, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": 2**70, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": True, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": 0, "sha256": "0" * 63}]},
        {"files": [{"path": "x", "size": 0, "sha256": "A" * 64}]},
        {"files": [{"path": "x\0y", "size": 0, "sha256": "0" * 64}]},
        {"files": [{"path": "x\x1b[2J", "size": 0, "sha256": "0" * 64}]},
        {"files": [{"path": "x", "size": 0, "sha256": "0" * 64, "\x1b[2J": 1}]},
        {"files": [{"path": p, "size": 0, "sha256": "0" * 64} for p in ("Model.onnx", "model.onnx")]},
        {"files": [{"path": "manifest.json", "size": 0, "sha256": "0" * 64}]},
        {"files": {"path": "x"}},
        {"files": "x"},
    ],
)
def test_damaged_manifests(tmp_path, changes):
    make_folder(tmp_path, **changes)
    with pytest.raises(PackageError, match=r"manifest\.json: (damaged|not a manifest of edgeelad)") as caught:
        read_manifest(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500


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


@pytest.mark.parametrize("damage", ["file of zeros", "a page of zeros", "zeros at the end"])
def test_files_that_a_power_cut_left_full_of_zeros(tmp_path, damage):
    data = bytes(range(1, 251)) * 100
    (tmp_path / "onnx").mkdir()
    (tmp_path / "onnx/model_quantized.onnx_data").write_bytes(data)
    manifest = make_folder(tmp_path)
    entry = describe_file(tmp_path, "onnx/model_quantized.onnx_data")
    manifest = dataclasses.replace(manifest, files=(*manifest.files, entry))
    check_files(tmp_path, manifest)
    start, end = {"file of zeros": (0, 25_000), "a page of zeros": (4096, 8192), "zeros at the end": (20_480, 25_000)}[
        damage
    ]
    (tmp_path / entry.path).write_bytes(data[:start] + bytes(end - start) + data[end:])
    with pytest.raises(PackageError, match=r"onnx/model_quantized\.onnx_data was altered"):
        check_files(tmp_path, manifest)


def test_zeros_that_belong_there_are_no_damage(tmp_path):
    manifest = make_folder(tmp_path)
    (tmp_path / "zeros").write_bytes(bytes(10_000))
    check_files(tmp_path, dataclasses.replace(manifest, files=(describe_file(tmp_path, "zeros"),)))


def test_links_stay_in_the_package(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    manifest = make_folder(package)
    (package / "config.json").rename(package / "other.json")
    (package / "config.json").symlink_to("other.json")
    check_files(package, manifest)
    (package / "config.json").unlink()
    (tmp_path / "secret").write_bytes(b"{}")
    (package / "config.json").symlink_to(tmp_path / "secret")
    with pytest.raises(PackageError, match=r"config\.json is a link out of the package"):
        check_files(package, manifest)
    (package / "config.json").unlink()
    (package / "config.json").symlink_to("config.json")
    with pytest.raises(PackageError, match=r"config\.json (is missing|: cannot be read)"):
        check_files(package, manifest)


def test_the_hugging_face_cache_keeps_a_package_s_files_as_links(tmp_path):
    package, blobs = tmp_path / "models--me--tiny/snapshots/1234", tmp_path / "models--me--tiny/blobs"
    package.mkdir(parents=True)
    blobs.mkdir()
    manifest = make_folder(package)
    for path in FILES:
        blob = blobs / describe_file(package, path).sha256
        (package / path).rename(blob)
        (package / path).symlink_to(blob)
    check_files(package, manifest)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes with names")
def test_what_is_no_regular_file_is_not_opened(tmp_path):
    """A pipe would keep its reader waiting forever."""
    manifest = make_folder(tmp_path)
    (tmp_path / "config.json").unlink()
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(PackageError, match=r"config\.json is missing"):
        check_files(tmp_path, manifest)
    (tmp_path / MANIFEST_FILE).unlink()
    os.mkfifo(tmp_path / MANIFEST_FILE)
    with pytest.raises(PackageError, match="not a file"):
        read_manifest(tmp_path)


def test_an_edited_model_card_is_no_damage(tmp_path):
    manifest = make_folder(tmp_path)
    (tmp_path / "README.md").write_text("my own words")
    check_files(tmp_path, manifest)
    (tmp_path / "README.md").unlink()
    check_files(tmp_path, manifest)


def test_huge_manifests_are_not_read(tmp_path):
    make_folder(tmp_path, name="x" * (5 << 20))
    with pytest.raises(PackageError, match="larger than any manifest"):
        read_manifest(tmp_path)
