"""Quantization of students with outlier channels, and how closely a quantized student follows the float32 one."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from fixtures.fused import CALIBRATION
from fixtures.students import FAMILIES, Family, StudentFolders

from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.errors import ParityError
from edgeelad.export.agreement import StudentText, forced_agreement
from edgeelad.export.fused.build import spread_outliers, traced_graph, write_student_graphs
from edgeelad.export.fused.calibrate import balance, observe
from edgeelad.export.fused.edit import read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.quantize import Inputs, product_inputs, quantize_blocks, quantize_rows
from edgeelad.export.fused.rotate import rotate, rotation_matrix
from edgeelad.export.fused.smooth import Channels, choose_factors, find_channels, smooth
from edgeelad.export.result import Agreement

OUTLIER = 128.0  # times the other channels
HELD_OUT = [StudentText(tuple(range(start, start + 5)), tuple(range(start + 5, start + 90))) for start in (7, 150, 290)]


def plant_outliers(student: Path, folder: Path) -> Path:
    """A Llama that computes the same, in which one channel of each product's input is OUTLIER times as large."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(student, folder)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.startswith("model.layers.")]:
        layer, _, rest = name.removeprefix("model.layers.").partition(".")
        channel = 5 + int(layer)
        if rest in ("input_layernorm.weight", "post_attention_layernorm.weight"):
            weights[name][channel] *= OUTLIER
        elif rest.split(".")[1] in ("q_proj", "k_proj", "gate_proj"):
            weights[name][:, channel] /= OUTLIER
        elif rest.split(".")[1] in ("v_proj", "up_proj"):
            weights[name][:, channel] /= OUTLIER
            weights[name][channel] *= OUTLIER
        elif rest == "mlp.down_proj.weight":
            weights[name][:, channel] /= OUTLIER
        else:  # two query heads, of 16 numbers each, read a key-value head
            weights[name][:, [channel, channel + 16]] /= OUTLIER
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


def fp32_files(student: Path, folder: Path) -> GraphFiles:
    folder.mkdir()
    return write_student_graphs(traced_graph(student, folder / "scratch"), folder)


def share(files: GraphFiles, folder: Path, precision: Precision, calibration: list[list[int]]) -> float:
    """The agreement of a standard graph that is quantized as the graph with lanes is."""
    folder.mkdir()
    graph = read_graph(onnx.load(str(files.standard), load_external_data=False), files.weights)
    inputs = Inputs(spread_outliers(graph, folder, calibration, 1))
    if precision == "int8":
        quantize_rows(graph, inputs)
    else:
        quantize_blocks(graph, 4, inputs)
    write_graphs({folder / "model.onnx": graph}, folder / "model.onnx_data")
    return forced_agreement(OnnxGraph(files.standard), OnnxGraph(folder / "model.onnx"), HELD_OUT).share


def test_planted_outliers_ruin_rows_unless_they_are_spread(
    students: StudentFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = fp32_files(students.plain("llama"), tmp_path / "plain")
    planted = fp32_files(plant_outliers(students.plain("llama"), tmp_path / "student"), tmp_path / "planted")
    assert forced_agreement(OnnxGraph(plain.standard), OnnxGraph(planted.standard), HELD_OUT).share == 1.0
    monkeypatch.setattr("edgeelad.export.fused.build.rotate", lambda graph: False)
    assert share(planted, tmp_path / "without", "int8", []) < 0.3
    # of the random student without outliers 0.9: it has near ties, which every rounding flips
    assert share(planted, tmp_path / "smoothed", "int8", CALIBRATION) > 0.8
    monkeypatch.undo()
    assert share(planted, tmp_path / "rotated", "int8", CALIBRATION) > 0.8
    assert share(plain, tmp_path / "none", "int8", CALIBRATION) > 0.8
    # blocks isolate outliers by themselves; rotation must not hurt
    assert share(planted, tmp_path / "blocks", "int4", CALIBRATION) > share(planted, tmp_path / "nearest", "int4", [])


@pytest.mark.parametrize("family", FAMILIES)
def test_smoothing_changes_no_bit_of_the_fp32_graph(family: Family, students: StudentFolders, tmp_path: Path) -> None:
    graph = traced_graph(students.plain(family), tmp_path / "scratch")
    found = find_channels(graph)
    # two norms per layer, and the inputs of the output and the down projection but in GPT-2
    assert len(found) == (4 if family == "gpt2" else 8)
    paths = [tmp_path / f"{name}.onnx" for name in ("before", "after")]
    write_graphs({paths[0]: graph}, tmp_path / "before_data")
    before = dict(graph.weights)
    rng = np.random.default_rng(0)
    for channels in found:
        width = graph.weights[channels.products[0]].shape[0]
        outliers = rng.lognormal(0, 3, width).astype(np.float32)
        smooth(graph, channels, outliers * rng.normal(size=(50, width)).astype(np.float32))
    write_graphs({paths[1]: graph}, tmp_path / "after_data")
    changed = {name for name in before if not np.array_equal(before[name], graph.weights[name])}
    assert changed >= {name for channels in found for name in channels.products}
    logits = [OnnxGraph(path).read(range(3, 90))[0] for path in paths]
    assert np.array_equal(*logits)


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "smollm3", "granite", "gemma"])
@pytest.mark.parametrize("is_tied", [True, False])
def test_a_rotated_student_computes_the_same(
    family: Family, is_tied: bool, students: StudentFolders, tmp_path: Path
) -> None:
    graph = traced_graph(students.plain(family, is_tied=is_tied), tmp_path / "scratch")
    paths = [tmp_path / f"{name}.onnx" for name in ("before", "after")]
    write_graphs({paths[0]: graph}, tmp_path / "before_data")
    assert rotate(graph)
    write_graphs({paths[1]: graph}, tmp_path / "after_data")
    before, after = (OnnxGraph(path).read(range(3, 90))[0] for path in paths)
    assert np.abs(before - after).max() < 1e-4 * max(1.0, np.abs(before).max() / 10)


@pytest.mark.parametrize("family", ["gpt2", "olmo2", "gemma3_text"])
def test_what_cannot_be_rotated_is_left_alone(family: Family, students: StudentFolders, tmp_path: Path) -> None:
    """A norm that subtracts the mean, and norms in front of the residual stream."""
    graph = traced_graph(students.plain(family), tmp_path / "scratch")
    nodes, weights = [node.SerializeToString() for node in graph.nodes], dict(graph.weights)
    assert not rotate(graph)
    assert nodes == [node.SerializeToString() for node in graph.nodes]
    assert weights.keys() == graph.weights.keys()
    assert all(graph.weights[name] is value for name, value in weights.items())


def test_the_rotation_is_orthogonal_and_spreads_an_outlier() -> None:
    for width in (1, 8, 576):
        matrix = rotation_matrix(width)
        assert np.allclose(matrix @ matrix.T, np.eye(width), atol=1e-5)
        assert np.array_equal(matrix, rotation_matrix(width))
    assert np.abs(matrix).max() < 1.5 / np.sqrt(width)


def test_factors_take_out_an_outlier_of_all_rows_and_leave_one_of_a_single_row() -> None:
    channels = Channels("x", ["w"])
    rng = np.random.default_rng(0)
    rows, energy = rng.normal(size=(400, 64)).astype(np.float32), np.ones(64, np.float32)
    everywhere = rows.copy()
    everywhere[:, 3] *= 256
    factors = choose_factors(channels, everywhere, energy)
    assert factors[3] >= 32 * np.median(factors)
    assert set(np.frexp(factors)[0]) == {0.5}  # powers of two
    once = rows.copy()
    once[7, 3] = 4000.0
    factors = choose_factors(channels, balance(once), energy)
    assert factors[3] == np.median(factors)


def test_observation_ends_at_a_number_of_bytes(
    students: StudentFolders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = traced_graph(students.plain("llama"), tmp_path / "scratch")
    tensors, sequences = product_inputs(graph), [range(3, 23), range(30, 40), range(50, 55)]
    everything = observe(graph, tensors, sequences, tmp_path)
    assert {len(rows) for rows in everything.values()} == {35}
    per_token = sum(rows.nbytes for rows in everything.values()) // 35
    for num_tokens, num_read in ((34, 30), (29, 20), (1, 20)):  # one sequence is always read
        monkeypatch.setattr("edgeelad.export.fused.calibrate.MAX_BYTES", num_tokens * per_token)
        some = observe(graph, tensors, sequences, tmp_path)
        assert all(np.array_equal(some[name], everything[name][:num_read]) for name in tensors)
    assert not list(tmp_path.glob("calibration*"))


def fake_graph(logits: list[list[float]]) -> SimpleNamespace:
    def step(ids: np.ndarray, *rest: object) -> tuple[np.ndarray, None]:
        return np.array([logits[: ids.shape[1]]], np.float32), None

    return SimpleNamespace(begin=lambda prompts: (None, [list(prompt) for prompt in prompts]), step=step)


def test_agreement_worked_by_hand() -> None:
    """Prompt of two tokens: positions 1 to 3 count, and position 0, which differs, does not."""
    log3 = float(np.log(3))
    reference = fake_graph([[9, 0], [0, log3], [0, log3], [1, 0]])
    other = fake_graph([[0, 9], [0, log3], [log3, 0], [2, 1]])
    found = forced_agreement(reference, other, [StudentText((0, 1), (1, 1))])  # type: ignore[arg-type]
    assert (found.num_tokens, found.num_same) == (3, 2)
    assert found.share == pytest.approx(2 / 3)
    # of (1/4, 3/4) from (3/4, 1/4), once in three positions: 1/2 · log 3
    assert found.mean_divergence == pytest.approx(log3 / 6, rel=1e-6)
    assert found.max_logit_difference == pytest.approx(log3, rel=1e-6)
    assert forced_agreement(reference, reference, [StudentText((0,), ())]) == Agreement(1, 1, 0.0, 0.0)  # type: ignore[arg-type]


def test_logits_that_are_not_finite_are_refused() -> None:
    graph = fake_graph([[1.0, float("nan")]])
    with pytest.raises(ParityError, match="not finite"):
        forced_agreement(fake_graph([[0, 0]]), graph, [StudentText((0,), ())])  # type: ignore[arg-type]
