"""The check of ONNX files before they are opened: what students run passes, everything else is refused."""

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fixtures.fused import FusedFolders
from fixtures.students import FAMILIES, StudentFolders
from onnx import TensorProto, helper, numpy_helper

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.onnx_file import check_graph, summarize_graph
from edgeelad.engine.session import open_session
from edgeelad.errors import ModelError


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, students: StudentFolders) -> FusedFolders:
    return FusedFolders(tmp_path_factory.mktemp("fused"), students)


def value(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [4])


def save(path: Path, nodes: Sequence[onnx.NodeProto], tensors: Sequence[TensorProto] = (), **options: Any) -> Path:
    graph = helper.make_graph(nodes, "g", [value("x")], [value("y")], tensors)
    opsets = [helper.make_opsetid(domain, 18 if not domain else 1) for domain in ("", "com.microsoft", "evil")]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9, **options), str(path))
    return path


def external(location: str, name: str = "w") -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    for key, text in (("location", location), ("offset", "0"), ("length", "16")):
        tensor.external_data.add(key=key, value=text)
    return tensor


def body(*nodes: onnx.NodeProto) -> onnx.GraphProto:
    return helper.make_graph(nodes, "body", [value("x")], [value("y")])


IDENTITY = helper.make_node("Identity", ["x"], ["y"])
SCAN = helper.make_node("Scan", ["x"], ["y"], body=body(IDENTITY), num_scan_inputs=1)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        check_graph(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    with pytest.raises(ModelError, match=re.escape(message)):
        open_session(path, 1)
    return message


@pytest.mark.parametrize("family", FAMILIES)
def test_what_the_exporters_write_passes(fused: FusedFolders, students: StudentFolders, family: str) -> None:
    folder = fused.folder(family)
    for precision in ("fp32", "int8"):
        files = GraphFiles(folder, precision)
        for path in (*files.fused, *([files.rows] if precision == "int8" else [])):
            check_graph(path)
            summary, model = summarize_graph(path), onnx.load(str(path), load_external_data=False)
            nested = [node for outer in model.graph.node for a in outer.attribute for node in a.g.node]
            assert summary.operators == {(node.domain, node.op_type) for node in (*model.graph.node, *nested)}
            has_own = precision == "int8" and path in (files.lanes, files.rows)
            assert summary.locations == {(files.lanes_weights if has_own else files.weights).name}
    check_graph(students.standard(students.plain(family)) / "model.onnx")


def _loop(steps: int) -> onnx.NodeProto:
    inputs = [
        helper.make_tensor_value_info(name, kind, [])
        for name, kind in (("i", TensorProto.INT64), ("more", TensorProto.BOOL))
    ]
    nodes = [
        helper.make_node("Identity", ["more"], ["still"]),
        helper.make_node("Add", ["state", "state"], ["next"]),
    ]
    outputs = [helper.make_tensor_value_info("still", TensorProto.BOOL, []), value("next")]
    inner = helper.make_graph(nodes, "body", [*inputs, value("state")], outputs)
    return helper.make_node("Loop", ["steps", "", "x"], ["y"], body=inner)


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([_loop(1 << 62)], "runs the operator 'Loop'"),
        ([helper.make_node("Exec", ["x"], ["y"], domain="evil")], "runs the operator 'evil.Exec'"),
        ([helper.make_node("Exec", ["x"], ["y"], domain="com.microsoft")], "runs the operator 'com.microsoft.Exec'"),
        ([helper.make_node("\x1b[31mRed", ["x"], ["y"])], r"runs the operator '\x1b[31mRed'"),
        ([helper.make_node("Scan", ["x"], ["y"], body=body(SCAN), num_scan_inputs=1)], "graphs nested more than once"),
        ([helper.make_node("Scan", ["x"], ["y"], body=body(_loop(9)), num_scan_inputs=1)], "nested more than once"),
    ],
)
def test_other_operators_are_refused(tmp_path: Path, nodes: list[onnx.NodeProto], message: str) -> None:
    steps = numpy_helper.from_array(np.array(1 << 62), "steps")
    assert message in refused(save(tmp_path / "model.onnx", nodes, [steps]))


def test_functions_are_refused(tmp_path: Path) -> None:
    function = helper.make_function("evil", "F", ["x"], ["y"], [IDENTITY], [helper.make_opsetid("", 18)])
    assert "it defines functions" in refused(save(tmp_path / "model.onnx", [IDENTITY], functions=[function]))


OUTSIDE = ["../weights", "/etc/hostname", "sub/weights", "..\\weights", "C:weights", "", ".", "*/_ORT_MEM_ADDR_/*"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_weights_outside_the_folder_are_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for path in (tmp_path / "weights", folder / "sub" / "weights"):
        path.write_bytes(bytes(16))
    add = helper.make_node("Add", ["x", "w"], ["y"])
    assert f"reads weights from {location!r}" in refused(save(folder / "model.onnx", [add], [external(location)]))
    # the same in an attribute
    constant = helper.make_node("Constant", [], ["w"], value=external(location))
    assert f"reads weights from {location!r}" in refused(save(folder / "model.onnx", [constant, add]))


def test_a_link_out_of_the_folder_is_refused_and_the_links_of_a_cache_are_not(tmp_path: Path) -> None:
    add = helper.make_node("Add", ["x", "w"], ["y"])
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    save(blobs / "01", [add], [external("weights")])
    (blobs / "02").write_bytes(bytes(16))
    for name, blob in (("model.onnx", "01"), ("weights", "02")):
        (snapshot / name).symlink_to(blobs / blob)
    check_graph(snapshot / "model.onnx")
    (tmp_path / "secret").write_bytes(bytes(16))
    (snapshot / "weights").unlink()
    (snapshot / "weights").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="reads weights from 'weights', which is outside its folder"):
        check_graph(snapshot / "model.onnx")


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flip(data: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(data))
    return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(200))


@pytest.mark.parametrize("damage", [_cut, _flip, _noise])
def test_damaged_files_are_refused_or_read(tmp_path: Path, damage: Callable[[bytes, random.Random], bytes]) -> None:
    rng, path = random.Random(0), tmp_path / "model.onnx"
    data = save(path, [SCAN, helper.make_node("Add", ["x", "w"], ["z"])], [external("weights")]).read_bytes()
    num_refused = 0
    for _ in range(300):
        path.write_bytes(damage(data, rng))
        try:
            check_graph(path)
        except ModelError:
            num_refused += 1
    assert num_refused > 20
