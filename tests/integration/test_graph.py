"""The fused graphs against torch: prompts, ragged prompts, steps, packed trees, four families, tied and not."""

import collections
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fixtures.fused import CALIBRATION, FusedFolders
from fixtures.students import FAMILIES, StudentFolders, make_student
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.packed.buffers import KeyValueBuffers
from edgeelad.engine.packed.graph import Feed, PackedGraph
from edgeelad.engine.packed.layout import lay_out
from edgeelad.engine.packed.rows import TopRows
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.errors import ModelError
from edgeelad.export.fused.build import traced_graph, write_quantized_graphs, write_student_graphs
from edgeelad.export.fused.families import check_family
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.quantize import BOTH_SCALES
from edgeelad.export.fused.swap import GraphMismatchError, swap_weights
from edgeelad.training.support import has_optimum

TOLERANCE = 1e-4
needs_optimum = pytest.mark.skipif(not has_optimum(), reason="needs optimum-onnx, which transformers 5 excludes")
STUDENTS = [
    pytest.param(family, tied, id=f"{family}{'-tied' if tied else ''}") for family in FAMILIES for tied in (True, False)
]
SHARED_OPS = {"llama": "SkipSimplifiedLayerNormalization", "gpt2": "SkipLayerNormalization"}


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, students: StudentFolders) -> FusedFolders:
    return FusedFolders(tmp_path_factory.mktemp("fused"), students)


def tokens(count: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 300, (count, length))


@torch.inference_mode()
def torch_logits(student: Path, ids: np.ndarray) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    return model(input_ids=torch.from_numpy(np.ascontiguousarray(ids))).logits.numpy()


def step(graph: OnnxGraph, ids: np.ndarray, mask: np.ndarray, cache: list | None = None) -> tuple[np.ndarray, list]:
    positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
    return graph.step(ids, mask, positions, graph.empty_cache(len(ids)) if cache is None else cache)


@pytest.mark.parametrize(("family", "is_tied"), STUDENTS)
def test_whole_prompts(fused: FusedFolders, family: str, is_tied: bool) -> None:
    graph = OnnxGraph(GraphFiles(fused.folder(family, is_tied=is_tied)).standard)
    ids = tokens(3, 100)
    logits, _ = step(graph, ids, np.ones_like(ids))
    assert np.abs(logits - torch_logits(fused.students.plain(family, is_tied=is_tied), ids)).max() < TOLERANCE


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_ragged_prompts_then_steps(fused: FusedFolders, family: str, side: str) -> None:
    graph = OnnxGraph(GraphFiles(fused.folder(family)).standard)
    ids, lengths = tokens(4, 24), (24, 5, 17, 1)
    padded, mask = np.zeros((4, 20 + 1), np.int64), np.zeros((4, 21), np.int64)
    for row, length in enumerate(lengths):
        kept = min(length, 21)
        place = slice(21 - kept, 21) if side == "left" else slice(0, kept)
        padded[row, place], mask[row, place] = ids[row, :kept], 1
    logits, cache = step(graph, padded, mask)
    rows = [[*logits[row][mask[row] == 1]] for row in range(4)]
    sequences = [list(padded[row][mask[row] == 1]) for row in range(4)]
    for fresh in tokens(3, 4, seed=1):
        mask = np.concatenate([mask, np.ones((4, 1), np.int64)], axis=1)
        logits, cache = step(graph, fresh[:, None], mask, cache)
        for row in range(4):
            sequences[row].append(fresh[row])
            rows[row].append(logits[row, 0])
    for row in range(4):
        expected = torch_logits(fused.students.plain(family), np.array([sequences[row]]))[0]
        assert np.abs(np.stack(rows[row]) - expected).max() < TOLERANCE


@pytest.mark.parametrize("kind", ["engine", "lanes"])
@pytest.mark.parametrize(("family", "is_tied"), STUDENTS)
def test_packed_tree(fused: FusedFolders, family: str, is_tied: bool, kind: str) -> None:
    """Several sequences in one packed sequence, then two packed steps, against each sequence alone in torch."""
    folder = fused.folder(family, is_tied=is_tied)
    graph = PackedGraph(getattr(GraphFiles(folder), kind))
    prompt = tokens(1, 30)[0].tolist()
    sequences = [prompt, prompt[:7], [*prompt[:12], 9, 8, 7], [*prompt[:12], 9, 8, 3], [5, 4]]
    layout = lay_out(sequences)
    buffers = KeyValueBuffers(graph.shape, 1, 80)
    columns, wanted = len(layout.tokens), np.array([point.end for point in layout.points])
    found = run(graph, buffers, np.array(layout.tokens), np.array(layout.positions), 0, layout.bias(), wanted)
    student = fused.students.plain(family, is_tied=is_tied)
    check_rows(student, sequences, found)
    bias_rows = np.stack([layout.branch_bias(point, 80) for point in layout.points])
    for fresh in tokens(2, len(sequences), seed=2):
        sequences = [[*sequence, token] for sequence, token in zip(sequences, fresh.tolist(), strict=True)]
        every = np.arange(len(sequences))
        bias_rows[every, columns + every] = 0
        total = columns + len(sequences)
        positions = np.array([len(sequence) - 1 for sequence in sequences])
        bias = np.ascontiguousarray(bias_rows[None, None, :, :total])
        check_rows(student, sequences, run(graph, buffers, fresh, positions, columns, bias, every))
        columns = total


def run(
    graph: PackedGraph,
    buffers: KeyValueBuffers,
    ids: np.ndarray,
    positions: np.ndarray,
    past: int,
    bias: np.ndarray,
    wanted: np.ndarray,
    *,
    row: int = 0,
) -> TopRows:
    slot = graph.sequence_slots[-1]
    past_lengths = np.array([past], np.int32)
    feed = Feed(buffers, (row, row + 1), ids[None], positions[None], past_lengths, bias, wanted)
    return graph.run({slot: feed}, 64)[0]


def check_rows(student: Path, sequences: list[list[int]], found: TopRows) -> None:
    for row, sequence in enumerate(sequences):
        logits = torch_logits(student, np.array([sequence]))[0, -1].astype(np.float64)
        normalizer = np.logaddexp.reduce(logits)
        probs = np.exp(logits - normalizer)
        assert np.abs(found.logits[row] - np.sort(logits)[::-1][:64]).max() < TOLERANCE
        assert np.abs(found.logits[row] - logits[found.ids[row]]).max() < TOLERANCE
        assert found.normalizers[row] == pytest.approx(normalizer, abs=TOLERANCE)
        assert found.entropies[row] == pytest.approx(-(probs * np.log(probs)).sum(), abs=TOLERANCE)


@pytest.mark.parametrize("kind", ["engine", "lanes"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keys_and_values_stay_where_they_are(fused: FusedFolders, family: str, kind: str) -> None:
    graph = PackedGraph(getattr(GraphFiles(fused.folder(family)), kind))
    buffers = KeyValueBuffers(graph.shape, 3, 40)
    for array in buffers.arrays:
        array[:] = 7
    run(graph, buffers, tokens(1, 5)[0], np.arange(5), 0, np.zeros((1, 1, 5, 5), np.float32), np.array([4]), row=1)
    for array in buffers.arrays:
        assert (array[[0, 2]] == 7).all()
        assert (array[1, :, 5:] == 7).all()
        assert (array[1, :, :5] != 7).all()


@needs_optimum
@pytest.mark.parametrize("family", FAMILIES)
def test_generates_in_optimum(fused: FusedFolders, family: str, tmp_path: Path) -> None:
    """Batched, ragged and padded on the left, as transformers' generate has it."""
    from optimum.onnxruntime import ORTModelForCausalLM

    student = fused.students.plain(family)
    files = GraphFiles(fused.folder(family))
    for path in (files.standard, files.weights, student / "config.json", student / "generation_config.json"):
        shutil.copyfile(path, tmp_path / path.name)
    ids, mask = torch.from_numpy(tokens(2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": 399, "pad_token_id": 0}
    fused_ids = ORTModelForCausalLM.from_pretrained(tmp_path).generate(input_ids=ids, attention_mask=mask, **options)
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    assert torch.equal(fused_ids, model.generate(input_ids=ids, attention_mask=mask, **options))


@pytest.mark.parametrize(("family", "is_tied"), STUDENTS)
def test_nothing_is_left_over(fused: FusedFolders, family: str, is_tied: bool) -> None:
    """One attention node a layer, fused norms, no transposes, weights stored once."""
    folder = fused.folder(family, is_tied=is_tied)
    files = GraphFiles(folder)
    model = onnx.load(str(files.engine), load_external_data=False)
    counts = collections.Counter(node.op_type for node in model.graph.node)
    assert counts["GroupQueryAttention"] == 2
    assert counts[SHARED_OPS.get(family, SHARED_OPS["llama"])] >= 4
    assert not counts.keys() & {"Transpose", "Where", "Pow", "Sqrt", "Sigmoid", "Tanh"}
    parameters = AutoModelForCausalLM.from_pretrained(fused.students.plain(family, is_tied=is_tied)).parameters()
    num_bytes = 4 * sum(parameter.numel() for parameter in parameters)
    assert files.weights.stat().st_size < num_bytes + 4096 * 40  # the rest is alignment
    assert files.engine.stat().st_size < 90_000
    assert files.standard.stat().st_size < 90_000


def test_all_graphs_read_the_same_bytes(fused: FusedFolders) -> None:
    for precision in ("fp32", "int8"):
        files = GraphFiles(fused.folder("llama"), precision)
        places = []
        for path in files.fused:
            model = onnx.load(str(path), load_external_data=False)
            places.append({t.name: {e.key: e.value for e in t.external_data} for t in model.graph.initializer})
        shared = {name for name in places[0] if places[0][name]}
        assert len(shared) > 10
        for name in shared:
            assert places[0][name] == places[1][name]
            assert places[0][name]["location"] == files.weights.name
        if precision == "int8":  # for many rows, weights are quantized in another way
            own = {entry["location"] for entry in places[2].values() if entry}
            assert own == {files.lanes_weights.name}
        else:
            assert all(places[2][name] == places[0][name] for name in shared)


@pytest.mark.parametrize("family", FAMILIES)
def test_int8_is_close_and_small(fused: FusedFolders, family: str) -> None:
    folder = fused.folder(family)
    ids = tokens(4, 60)
    logits = [step(OnnxGraph(GraphFiles(folder, q).standard), ids, np.ones_like(ids))[0] for q in ("fp32", "int8")]
    error = np.sqrt(((logits[1] - logits[0]) ** 2).mean()) / logits[0].std()
    assert error < 0.12  # wide random weights magnify rounding
    sizes = [GraphFiles(folder, precision).weights.stat().st_size for precision in ("fp32", "int8")]
    assert sizes[1] < 0.45 * sizes[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_gated_row_is_scaled_once(fused: FusedFolders, family: str) -> None:
    """The gate's factor goes unscaled into the quantization of the gated row, in each of the two layers."""
    model = onnx.load(str(GraphFiles(fused.folder(family), "int8").lanes), load_external_data=False)
    nodes = model.graph.node
    both = {node.output[0] for node in nodes if node.output[0].startswith(BOTH_SCALES)}
    assert len(both) == (0 if family == "gpt2" else 2)
    scaled = [node for node in nodes if node.op_type == "Mul" and node.input[1] in both]
    assert len(scaled) == len(both)
    for name in (node.input[0] for node in scaled):
        assert next(node for node in nodes if name in node.output).op_type == "MatMulIntegerToFloat"


def test_int4_runs(fused: FusedFolders, tmp_path: Path) -> None:
    student = fused.students.plain("qwen2")
    graph = traced_graph(student, tmp_path / "scratch")
    files = write_quantized_graphs(write_student_graphs(graph, tmp_path), tmp_path, "int4", CALIBRATION)
    ids = tokens(2, 20)
    logits, _ = step(OnnxGraph(files.standard), ids, np.ones_like(ids))
    assert np.isfinite(logits).all()
    assert PackedGraph(files.engine).vocab_size == logits.shape[-1]


@pytest.mark.parametrize(("family", "is_tied"), STUDENTS)
def test_swapping_weights_is_exporting_anew(fused: FusedFolders, family: str, is_tied: bool, tmp_path: Path) -> None:
    """File by file and byte by byte, for another student of the same architecture."""
    later = make_student(tmp_path / "later", family, is_tied=is_tied, seed=5)
    anew, swapped = tmp_path / "anew", tmp_path / "swapped"
    anew.mkdir()
    swapped.mkdir()
    graph = traced_graph(later, tmp_path / "scratch")
    earlier = traced_graph(fused.students.plain(family, is_tied=is_tied), tmp_path / "other")
    (tmp_path / "earlier").mkdir()
    shutil.copyfile(later / "config.json", tmp_path / "earlier" / "config.json")
    write_student_graphs(earlier, tmp_path / "earlier")
    fresh, other = write_student_graphs(graph, anew), swap_weights(tmp_path / "earlier", later, swapped)
    for precision in ("int8", "int4"):  # they have the same file names
        write_quantized_graphs(fresh, anew, precision, CALIBRATION)
        write_quantized_graphs(other, swapped, precision, CALIBRATION)
        names = sorted(path.name for path in anew.iterdir())
        assert names == sorted(path.name for path in swapped.iterdir())
        for name in names:
            assert (anew / name).read_bytes() == (swapped / name).read_bytes(), name


def test_weights_of_another_architecture_are_refused(fused: FusedFolders, tmp_path: Path) -> None:
    folder = fused.folder("llama")
    shutil.copyfile(fused.students.plain("llama") / "config.json", folder / "config.json")
    with pytest.raises(GraphMismatchError, match="another architecture"):
        swap_weights(folder, fused.students.plain("qwen2"), tmp_path)
    with pytest.raises(GraphMismatchError, match=r"no model\.onnx"):
        swap_weights(fused.students.plain("llama"), fused.students.plain("llama"), tmp_path)


def test_tracing_leaves_torch_as_it_was(fused: FusedFolders, tmp_path: Path) -> None:
    student = fused.students.plain("qwen3")
    ids = tokens(1, 12)
    before = torch_logits(student, ids)
    update = DynamicLayer.update
    modeling = sys.modules[type(AutoModelForCausalLM.from_pretrained(student)).__module__]
    rotate = modeling.apply_rotary_pos_emb
    traced_graph(student, tmp_path)
    assert DynamicLayer.update is update
    assert modeling.apply_rotary_pos_emb is rotate
    assert np.array_equal(torch_logits(student, ids), before)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model_type": "gptj"}, "gptj"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "dynamic"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"head_dim": 20}, "head size 20"),
    ],
)
def test_what_cannot_be_served(students: StudentFolders, changes: dict, told: str) -> None:
    config = AutoConfig.from_pretrained(students.plain("llama"))
    for name, value in changes.items():
        if name == "model_type":
            config = AutoConfig.for_model(value)
        elif name == "rope_scaling" and hasattr(config, "rope_parameters"):  # transformers 5
            config.rope_parameters = {"rope_theta": 1e4, **value}
        else:
            setattr(config, name, value)
    with pytest.raises(UnservedArchitectureError, match=told):
        check_family(config)


def test_a_foreign_graph_is_refused(fused: FusedFolders) -> None:
    with pytest.raises(ModelError, match="not an engine graph"):
        PackedGraph(GraphFiles(fused.folder("llama")).standard)
