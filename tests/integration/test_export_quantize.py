"""Quantized products: what they compute, and that a row's result is its own."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeelad.errors import ModelError
from edgeelad.export.fused.edit import read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.merge import merge_products
from edgeelad.export.fused.quantize import Inputs, quantize_blocks
from edgeelad.export.fused.rounding import BLOCK_SIZES, MIN_BLOCK_SIZE, PackedWeight, pack_blocks, round_channels
from edgeelad.export.standard import prepare_products

Array = NDArray[np.float32]
SIZES = [(16, 5), (40, 24), (64, 64), (100, 30), (128, 352), (352, 128)]


def random_weight(num_inputs: int, num_outputs: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=(num_inputs, num_outputs)).astype(np.float32) * np.float32(0.05)


def unpack(packed: PackedWeight) -> Array:
    """The weight [K, N] that a packed weight stands for, number by number."""
    values, zeros = packed.values.astype(np.int64), np.full(packed.scales.shape, 128)
    if packed.bits == 4:
        assert packed.zero_points is not None
        values = np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:2], -1)
        zeros = np.stack([packed.zero_points & 15, packed.zero_points >> 4], axis=-1).reshape(len(values), -1)
        zeros = zeros[:, : packed.scales.shape[1]].astype(np.int64)
    weight = (values - zeros[..., None]) * packed.scales[..., None]
    flat: Array = weight.reshape(len(values), -1)[:, : packed.num_inputs].T.astype(np.float32)
    return flat


def product_graph(weight: Array, bias: Array | None = None, *, kind: str = "MatMul") -> onnx.ModelProto:
    """y = x·w (+ b) as MatMul, as Gemm with a transposed weight, or by a transposed constant."""
    num_inputs, num_outputs = weight.shape
    stored = weight if kind == "MatMul" or kind == "Gemm" else np.ascontiguousarray(weight.T)
    tensors = [numpy_helper.from_array(stored, "w")]
    if kind == "MatMul":
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    elif kind == "transposed":
        nodes = [
            helper.make_node("Transpose", ["w"], ["w_t"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", "w_t"], ["y"]),
        ]
    else:
        names = ["x", "w"] if bias is None else ["x", "w", "b"]
        nodes = [helper.make_node("Gemm", names, ["y"], transB=int(kind == "Gemm-transposed"))]
        tensors += [] if bias is None else [numpy_helper.from_array(bias, "b")]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", num_inputs])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", num_outputs])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def quantized(model: onnx.ModelProto, bits: int, folder: Path) -> onnx.ModelProto:
    """The model as the export of a standard graph quantizes it, read back from its files."""
    graph = read_graph(model)
    prepare_products(graph)
    quantize_blocks(graph, bits, Inputs({}))
    write_graphs({folder / "product.onnx": graph}, folder / "weights")
    return onnx.load(str(folder / "product.onnx"))


def num_products(model: onnx.ModelProto) -> int:
    return sum(node.op_type == "MatMulNBits" for node in model.graph.node)


def run(model: onnx.ModelProto, rows: Array) -> Array:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result: Array = session.run(None, {"x": rows})[0]
    return result


def test_eight_bits_of_a_weight_worked_by_hand() -> None:
    weight = np.zeros((16, 1), dtype=np.float32)
    weight[:4, 0] = [1.27, -1.27, 0.5, 0.004]  # s = 1.27 / 127 = 0.01: q − 128 = 127, −127, 50, 0
    packed = pack_blocks(weight, 8)
    assert packed.block_size == 16
    assert packed.values[0, 0, :5].tolist() == [255, 1, 178, 128, 128]
    assert packed.scales.tolist() == [[pytest.approx(0.01)]]
    assert packed.zero_points is None


def test_four_bits_of_a_weight_worked_by_hand() -> None:
    weight = np.zeros((16, 1), dtype=np.float32)
    weight[:4, 0] = [1.0, -0.5, 0.32, 0.0]  # s = 1.5 / 15 = 0.1, z = 5: q = 15, 0, 8, 5
    packed = pack_blocks(weight, 4)
    assert packed.values[0, 0, :2].tolist() == [15 | 0 << 4, 8 | 5 << 4]
    assert packed.zero_points is not None
    assert packed.zero_points.tolist() == [[5]]


def test_channels_worked_by_hand() -> None:
    weight = np.array([[1.27, 0.0], [-0.5, 0.0], [0.004, 0.0]], dtype=np.float32)
    tensors = round_channels("w", weight, is_table=False)
    assert tensors["w"].tolist() == [[127, 0], [-50, 0], [0, 0]]
    assert tensors["w.scale"].tolist() == [pytest.approx(0.01), 1.0]
    table = round_channels("w", weight.T, is_table=True)
    assert np.array_equal(table["w"], tensors["w"].T)
    assert np.array_equal(table["w.scale"], tensors["w.scale"])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", SIZES)
def test_no_number_is_rounded_by_more_than_half_a_step(size: tuple[int, int], bits: int) -> None:
    weight = random_weight(*size)
    packed = pack_blocks(weight, bits)
    assert MIN_BLOCK_SIZE <= packed.block_size <= BLOCK_SIZES[bits]
    assert packed.block_size <= size[0]
    steps = np.repeat(packed.scales, packed.block_size, axis=1)[:, : size[0]].T
    # a zero point is rounded too: the largest number of a 4-bit block may be cut by another half step
    assert (np.abs(unpack(packed) - weight) <= (0.5 if bits == 8 else 1.0) * steps + 1e-7).all()


def test_a_block_of_zeros_stays_zero() -> None:
    for bits in (8, 4):
        assert not unpack(pack_blocks(np.zeros((64, 3), dtype=np.float32), bits)).any()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", SIZES)
def test_onnxruntime_computes_with_the_numbers_that_were_packed(
    size: tuple[int, int], bits: int, tmp_path: Path
) -> None:
    weight, rows = random_weight(*size), np.random.default_rng(1).normal(size=(9, size[0])).astype(np.float32)
    model = quantized(product_graph(weight), bits, tmp_path)
    assert num_products(model) == 1
    expected = rows @ unpack(pack_blocks(weight, bits))
    # the rest is the rounding of activations to 8 bits: half a step of 1/127 of a row's largest, K times
    step = np.abs(rows).max() / 127 * np.sqrt(size[0]) * np.abs(weight).max()
    assert np.abs(run(model, rows) - expected).max() < step


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", SIZES)
def test_a_row_has_the_same_bits_in_every_batch(size: tuple[int, int], bits: int, tmp_path: Path) -> None:
    model = quantized(product_graph(random_weight(*size)), bits, tmp_path)
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, size[0])).astype(np.float32)
    together = run(model, rows)
    for count in (1, 2, 3, 7, 16, 39):
        assert np.array_equal(run(model, rows[:count]), together[:count])
    loud = np.concatenate([rows[:5], 1000 * rng.normal(size=(100, size[0])).astype(np.float32)])
    assert np.array_equal(run(model, loud)[:5], together[:5])


@pytest.mark.parametrize("kind", ["MatMul", "transposed", "Gemm", "Gemm-transposed"])
@pytest.mark.parametrize("has_bias", [False, True])
def test_every_form_of_a_product_is_quantized_alike(kind: str, has_bias: bool, tmp_path: Path) -> None:
    weight, rows = random_weight(64, 20), np.random.default_rng(1).normal(size=(4, 64)).astype(np.float32)
    bias = random_weight(1, 20, seed=3)[0] if has_bias and kind.startswith("Gemm") else None
    plain = quantized(product_graph(weight), 8, tmp_path)
    model = quantized(product_graph(weight, bias, kind=kind), 8, tmp_path)
    assert num_products(model) == 1
    assert "w" not in {tensor.name for tensor in model.graph.initializer}
    assert not {"MatMul", "Gemm", "Transpose"} & {node.op_type for node in model.graph.node}
    expected = run(plain, rows) + (0 if bias is None else bias)
    assert np.allclose(run(model, rows), expected, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 4])
def test_a_tied_head_reads_the_embedding_s_own_bytes(bits: int, tmp_path: Path) -> None:
    """The fallback's int8 kept a float32 table and another copy of it for the head: 0.96 GB of 1.07."""
    table = random_weight(300, 64)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]),
        helper.make_node("MatMul", ["x", "head"], ["logits"]),
    ]
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "sequence", 300])
    graph = helper.make_graph(nodes, "tied", [ids], [logits], [numpy_helper.from_array(table, "table")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    model = quantized(model, bits, tmp_path)
    assert num_products(model) == 1  # one operator for one row, where a scale per row takes seven
    assert (tmp_path / "weights").stat().st_size < 1.15 * table.size + 4096
    session = onnxruntime.InferenceSession(str(tmp_path / "product.onnx"), providers=["CPUExecutionProvider"])
    tokens = np.array([[0, 7, 299], [5, 5, 1]])
    (found,) = session.run(None, {"input_ids": tokens})
    expected = table[tokens] @ table.T
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_a_product_that_is_not_with_a_constant_matrix_is_left_alone(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nothing to quantize"):  # fewer inputs than the smallest block
        quantized(product_graph(random_weight(8, 4)), 8, tmp_path)
    scaled = product_graph(random_weight(64, 4), kind="Gemm")
    scaled.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.5))
    with pytest.raises(ModelError, match="nothing to quantize"):
        quantized(scaled, 8, tmp_path)


def test_the_head_keeps_eight_bits(tmp_path: Path) -> None:
    model = product_graph(random_weight(64, 20))
    model.graph.node[0].output[0] = model.graph.output[0].name = "logits"
    (node,) = quantized(model, 4, tmp_path).graph.node
    assert {entry.name: entry.i for entry in node.attribute}["bits"] == 8


def test_subgraphs_keep_what_they_read_of_the_graph_around_them() -> None:
    """An Identity and an unread-looking weight that only the branch of an If reads."""
    inner = [helper.make_node("Add", ["alias", "only_here"], ["sum"])]
    branch = helper.make_graph(inner, "branch", [], [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [2])])
    nodes = [
        helper.make_node("Identity", ["x"], ["alias"]),
        helper.make_node("If", ["flag"], ["y"], then_branch=branch, else_branch=branch),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])
    flag = helper.make_tensor_value_info("flag", TensorProto.BOOL, [])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])
    weight = numpy_helper.from_array(np.array([1, 2], np.float32), "only_here")
    model = helper.make_model(helper.make_graph(nodes, "outer", [x, flag], [y], [weight]))
    graph = read_graph(model)
    graph.prune()
    assert set(graph.weights) == {"only_here"}
    (kept,) = graph.nodes
    assert {name for entry in kept.attribute for name in entry.g.node[0].input} == {"x", "only_here"}


@pytest.mark.parametrize("bits", [8, 4])
def test_merged_products_have_the_same_bits(bits: int, tmp_path: Path) -> None:
    """Three products of one input become one; that of another input stays, though its shape is the same."""
    weights = [random_weight(100, size, seed) for seed, size in enumerate((64, 32, 16, 32))]
    nodes = [helper.make_node("MatMul", ["x" if i < 3 else "z", f"w{i}"], [f"y{i}"]) for i in range(4)]
    graph = helper.make_graph(
        nodes,
        "products",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 100]) for name in "xz"],
        [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, ["rows", None]) for i in range(4)],
        [numpy_helper.from_array(weight, f"w{i}") for i, weight in enumerate(weights)],
    )
    edited = read_graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8))
    quantize_blocks(edited, bits, Inputs({}))
    apart, merged = edited.copy(), edited
    merge_products(merged)
    sessions = []
    for name, each in (("apart", apart), ("merged", merged)):
        write_graphs({tmp_path / f"{name}.onnx": each}, tmp_path / f"{name}_data")
        sessions.append(
            onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        )
    assert [sum(node.op_type == "MatMulNBits" for node in each.nodes) for each in (apart, merged)] == [4, 2]
    for num_rows in (1, 3, 40):
        feeds = {name: random_weight(num_rows, 100, seed) for seed, name in enumerate("xz", start=9)}
        for one, other in zip(*(session.run(None, feeds) for session in sessions), strict=True):
            assert np.array_equal(one, other)
