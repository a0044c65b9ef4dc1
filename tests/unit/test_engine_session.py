import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fixtures.students import questions

from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import GraphFiles, find_graphs
from edgeelad.engine.open import open_generator
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.session import check_onnxruntime
from edgeelad.engine.shape import CacheShape, cache_shape, max_context
from edgeelad.engine.student import Student
from edgeelad.errors import ModelError


@pytest.fixture
def folder(students, tmp_path) -> Path:
    """A copy of an exported folder, to be damaged."""
    return Path(shutil.copytree(students.onnx(), tmp_path / "onnx-folder"))


def write_graph(path: Path, inputs: dict, outputs: dict, dtype: str = "FLOAT") -> None:
    """A graph with these inputs and outputs (name -> shape) that computes nothing of use."""
    import onnx
    from onnx import TensorProto, helper

    def infos(shapes):
        kind = getattr(TensorProto, dtype)
        return [
            helper.make_tensor_value_info(
                name, TensorProto.INT64 if "_" in name[:6] and "past" not in name else kind, s
            )
            for name, s in shapes.items()
        ]

    tensors = [helper.make_tensor(f"{name}_value", getattr(TensorProto, dtype), [0], []) for name in outputs]
    nodes = [
        helper.make_node("Constant", [], [name], value=tensor) for name, tensor in zip(outputs, tensors, strict=True)
    ]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs))
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), str(path))


def error_of(action) -> str:
    with pytest.raises(ModelError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


STANDARD = {"input_ids": ["b", "s"], "attention_mask": ["b", "t"], "position_ids": ["b", "s"]}
PAST = {"past_key_values.0.key": ["b", 2, "p", 4], "past_key_values.0.value": ["b", 2, "p", 4]}
PRESENT = {"present.0.key": ["b", 2, "t", 4], "present.0.value": ["b", 2, "t", 4]}
LOGITS = {"logits": ["b", "s", 9]}


HOSTILE = """
import sys
import numpy as np
from edgeelad.engine import session
from edgeelad.errors import ModelError

session.available_memory_bytes = lambda **options: 1
session.limit_memory()
session.limit_memory()
for path in sys.argv[1:]:
    try:
        opened = session.open_session(session.Path(path), 1)
        with session.run_errors(opened):
            opened.run(None, {"x": np.ones(1, dtype=np.float32)})
        print("runs", path)
    except ModelError as error:
        print(error)
"""


def test_a_graph_that_asks_for_too_much_memory(tmp_path):
    """Eight gigabytes from a line; the limit holds for the whole process, so a process of its own is asked."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    ask = 1 << 31
    constants = {"many": [ask], "rows": [ask, 1], "pads": [0, ask], "none": 0, "all": ask, "one": 1, "pair": [0.0, 1.0]}
    tensors = [
        numpy_helper.from_array(np.array(value, dtype=np.float32 if name == "pair" else np.int64), name)
        for name, value in constants.items()
    ]
    nodes = {
        "modest": [helper.make_node("Identity", ["x"], ["z"])],
        "constant": [helper.make_node("ConstantOfShape", ["many"], ["z"])],
        "computed": [
            helper.make_node("Shape", ["x"], ["n"]),
            helper.make_node("Mul", ["n", "many"], ["m"]),
            helper.make_node("ConstantOfShape", ["m"], ["z"]),
        ],
        "expand": [helper.make_node("Expand", ["x", "rows"], ["z"])],
        "tile": [helper.make_node("Tile", ["x", "many"], ["z"])],
        "pad": [helper.make_node("Pad", ["x", "pads"], ["z"])],
        "range": [
            helper.make_node("Range", ["none", "all", "one"], ["r"]),
            helper.make_node("Cast", ["r"], ["z"], to=1),
        ],
        "one_hot": [
            helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
            helper.make_node("OneHot", ["i", "all", "pair"], ["z"]),
        ],
    }
    paths = []
    for name, asking in nodes.items():
        asking.append(helper.make_node("ReduceMax", ["z"], ["y"], keepdims=0))
        x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["n"]), ("y", [])))
        graph = helper.make_graph(asking, "g", [x], [y], tensors)
        paths.append(str(tmp_path / f"{name}.onnx"))
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), paths[-1])
    done = subprocess.run([sys.executable, "-c", HOSTILE, *paths], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs, *refused = done.stdout.splitlines()
    assert runs == f"runs {paths[0]}"
    for line, path in zip(refused, paths[1:], strict=True):
        assert line.startswith(f"{path}: cannot be run (")


def test_a_truncated_graph(folder):
    path = folder / "engine_lanes.graph"
    path.write_bytes(path.read_bytes()[:-1000])
    assert f"{path}: damaged, or no ONNX graph (cut off at byte" in (message := error_of(lambda: Student.open(folder)))
    assert "export the student again" in message


def test_an_empty_graph_and_one_that_is_something_else(folder):
    for content in (b"", b"PK\x03\x04 not a graph", b"<html></html>"):
        (folder / "engine_lanes.graph").write_bytes(content)
        assert "damaged, or no ONNX graph" in error_of(lambda: Student.open(folder))


def test_a_missing_graph_says_which_other_one_is_there(folder):
    (folder / "model_quantized.onnx").unlink()
    assert "use its fp32 graph" in error_of(lambda: Student.open(folder, EngineOptions(precision="int8")))
    (folder / "model.onnx").unlink()
    assert "no model.onnx or model_quantized.onnx" in error_of(lambda: Student.open(folder))
    assert "edgeelad export" in error_of(lambda: Student.open(folder))
    with pytest.raises(ModelError, match="no such folder"):
        Student.open(folder / "nowhere")


def test_weights_that_lie_beside_the_graph_and_are_missing(folder):
    with Student.open(folder) as student:
        assert student.explain(questions(1), 2)
    (folder / "model.onnx_data").unlink()
    assert "model.onnx_data" in error_of(lambda: Student.open(folder))


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ({"pixels": ["b", 3]}, {"scores": ["b", 9]}, "lacks attention_mask, input_ids, logits"),
        (STANDARD, LOGITS, "lacks past_key_values.0.key"),
        (STANDARD | PAST | {"use_cache_branch": [1]}, LOGITS | PRESENT, "wants use_cache_branch"),
        (STANDARD | PAST, LOGITS, "lacks present.0.key, present.0.value"),
        (STANDARD | {name: ["b", "h", "p", 4] for name in PAST}, LOGITS | PRESENT, "its cache is not"),
        (STANDARD | PAST | {"past_key_values.0.key": ["b", 3, "p", 4]}, LOGITS | PRESENT, "its cache is not"),
        (STANDARD | PAST, {"logits": ["b", "s", "v"]} | PRESENT, "not [rows, tokens, vocabulary]"),
    ],
)
def test_graphs_that_are_no_students(tmp_path, inputs, outputs, message):
    path = tmp_path / "model.onnx"
    write_graph(path, inputs, outputs)
    found = error_of(lambda: OnnxGraph(path))
    assert found.startswith(f"{path}: ")
    assert message in found


def test_a_cache_that_holds_something_else(tmp_path):
    write_graph(tmp_path / "model.onnx", STANDARD | PAST, LOGITS | PRESENT, "INT32")
    assert "its cache holds tensor(int32)" in error_of(lambda: OnnxGraph(tmp_path / "model.onnx"))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 3, "3 layers of 2 heads of 16"),
        ("num_key_value_heads", 4, "2 layers of 4 heads of 16"),
        ("head_dim", 32, "2 layers of 2 heads of 32"),
        ("vocab_size", 5000, "config.json 5000"),
    ],
)
def test_a_graph_of_another_student_than_its_configuration(folder, key, value, message):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {key: value}), encoding="utf-8")
    found = error_of(lambda: Student.open(folder))
    assert message in found
    assert "different students" in found


def test_the_cache_shape_by_family(students):
    expected = {"llama": (2, 2, 16), "qwen2": (2, 2, 16), "qwen3": (2, 2, 16), "gpt2": (2, 4, 16)}
    for family, shape in expected.items():
        config = json.loads((students.plain(family) / "config.json").read_text(encoding="utf-8"))
        assert cache_shape(config) == CacheShape(*shape)
    assert cache_shape({"n_layer": 2, "n_head": 4, "n_embd": 64, "multi_query": True}) is None
    assert cache_shape({"model_type": "unheard-of"}) is None
    assert max_context({"max_position_embeddings": True, "n_ctx": 5}, Path("config.json")) == 5


def test_an_onnxruntime_that_is_too_old():
    for version in ("1.22.0", "1.22.0rc1", "1.31.1", "2.0"):
        check_onnxruntime(version)
    for version in ("1.21.1", "1.9", "0.30.0"):
        message = error_of(lambda version=version: check_onnxruntime(version))
        assert f"ONNX Runtime {version} is too old" in message
        assert "pip install" in message


def test_a_student_that_computes_nan_says_so(folder):
    import onnx

    path = folder / "model.onnx"
    model = onnx.load(str(path), load_external_data=False)
    sizes = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in model.graph.initializer
    }
    place = max((entry for entry in sizes.values() if entry), key=lambda entry: int(entry["length"]))
    with (folder / "model.onnx_data").open("rb+") as file:
        file.seek(int(place["offset"]))
        file.write(np.full(int(place["length"]) // 4, np.nan, np.float32).tobytes())
    with Student.open(folder) as student:
        assert "NaN or infinity" in error_of(lambda: student.explain(questions(2), 4))


def test_graphs_are_found_in_folders_and_packages(folder, tmp_path):
    assert find_graphs(folder) == GraphFiles(folder, "fp32")
    assert find_graphs(folder, "int8") == GraphFiles(folder, "int8")
    assert "has no int4 graph; use its fp32 or int8 graph" in error_of(lambda: find_graphs(folder, "int4"))
    package = tmp_path / "package"
    shutil.copytree(folder, package, ignore=shutil.ignore_patterns("*.onnx*", "*.graph"))
    (package / "onnx").mkdir()
    for path in folder.glob("*_quantized.*"):
        shutil.copy(path, package / "onnx")
    assert find_graphs(package).standard == package / "onnx" / "model_quantized.onnx"
    with Student.open(package, EngineOptions(precision="int8")) as student:
        assert student.explain(questions(1), 4)[0].tokens.explanation > 0


@pytest.mark.parametrize(
    ("options", "spin_us"),
    [
        (EngineOptions.for_machine(1), 0),
        (EngineOptions(graph="engine"), 0),
        (EngineOptions(graph="rows"), 20),
        (EngineOptions.for_device(), 1000),
    ],
)
def test_threads_spin_where_no_other_session_runs(students, options, spin_us):
    folder = students.onnx()
    generator = open_generator(folder, Codec.load(folder), options)
    entry = generator.graph.session.get_session_options().get_session_config_entry
    assert entry("session.intra_op.allow_spinning") == str(int(spin_us > 0))
    if spin_us:
        assert entry("session.intra_op.spin_duration_us") == str(spin_us)
        assert entry("session.force_spinning_stop") == "1"  # between runs


def test_each_kind_of_use_has_an_engine_graph(folder):
    graphs = find_graphs(folder, "int8")
    names = {"engine": "engine_quantized.graph"} | {
        kind: f"engine_{kind}_quantized.graph" for kind in ("rows", "lanes")
    }
    for kind, name in names.items():
        assert graphs.find_engine(kind) == folder / name
    for kind in ("lanes", "rows"):
        (folder / names[kind]).unlink()
        assert graphs.find_engine(kind) == folder / names["engine"]
    (folder / names["engine"]).unlink()
    assert graphs.find_engine("lanes") is None
    fp32 = find_graphs(folder, "fp32")
    assert fp32.find_engine("rows") == folder / "engine.graph"  # its weights are those for many rows
    fp32.engine.unlink()
    assert fp32.find_engine("rows") == folder / "engine_lanes.graph"
    options = EngineOptions(precision="int8")
    assert "engine_quantized.graph is missing" in error_of(lambda: Student.open(folder, options))
