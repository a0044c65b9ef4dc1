"""Families that differ from the main ones in single modules: fused, parity, int8, int4, and weights swapped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx
import pytest
import torch
from fixtures.fused import CALIBRATION
from fixtures.students import MAX_CONTEXT, MORE_FAMILIES, Family, make_student, questions
from transformers import AutoModelForCausalLM

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import BranchPoint, Limits, TreeRequest
from edgeelad.engine.graph_files import GraphFiles
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.plain.reference import generate_one
from edgeelad.engine.sampling import SamplingParams
from edgeelad.engine.student import Student
from edgeelad.export import ExportResult, export_student
from edgeelad.export.empty_past import restore_past
from edgeelad.export.fused.build import traced_graph, write_quantized_graphs, write_student_graphs
from edgeelad.export.fused.edit import attribute, read_graph
from edgeelad.export.fused.files import write_graphs
from edgeelad.export.fused.passes import take_softcap
from edgeelad.export.fused.swap import swap_weights
from edgeelad.export.fused.variants import engine_variant
from edgeelad.package.info import PackageInfo
from edgeelad.package.verify import verify_package
from edgeelad.package.write import write_package
from edgeelad.training.support import FUSED_FAMILIES, transformers_major

ASKED = questions(3)
CONFIG = ExportConfig(num_parity_prompts=2)


@pytest.fixture(scope="module", params=list(MORE_FAMILIES))
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random student whose norms have weights of their own, unlike freshly made ones."""
    if request.param == "stablelm-norms" and transformers_major() < 5:
        pytest.skip("transformers 4.57 cannot initialize norms without a bias")
    return _student(tmp_path_factory.mktemp(request.param) / "student", request.param, seed=0)


def _family(student: Path) -> Family:
    family: Family = student.parent.name[:-1]  # type: ignore[assignment]  # mktemp adds a number
    return family


def _student(folder: Path, family: Family, seed: int) -> Path:
    make_student(folder, family, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(folder)
    return folder


@torch.inference_mode()
def _greedy(student: Path, num_tokens: int) -> list[list[int]]:
    # only this attention has Gemma 2's soft cap
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32, attn_implementation="eager").eval()
    codec = Codec.load(student)
    found = []
    for question in ASKED:
        ids = codec.encode_prompt(question)
        for _ in range(num_tokens):
            token = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if token in codec.eos_ids:
                break
            ids.append(token)
        found.append(ids[len(codec.encode_prompt(question)) :])
    return found


@pytest.fixture(scope="module")
def exported(student: Path) -> ExportResult:
    """Its onnx folder, with int8 graphs."""
    return export_student(student, student.parent / "int8", CONFIG, parity_questions=ASKED)


def test_it_is_fused_and_writes_what_torch_writes(student: Path, exported: ExportResult) -> None:
    assert exported.graphs == "fused"  # parity of the standard graph and both engine graphs was checked
    assert exported.quantized_bytes < 0.45 * exported.model_bytes  # tiny students: norms and scales weigh more
    with Student.open(exported.folder) as opened:
        texts = [tree.text for tree in opened.explain(ASKED, 12)]
    codec = Codec.load(student)
    assert texts == [codec.decode(ids) for ids in _greedy(student, 12)]


def test_int4_is_fused_as_well(student: Path, exported: ExportResult, tmp_path: Path) -> None:
    files = write_student_graphs(traced_graph(student, tmp_path / "scratch"), tmp_path)
    files = write_quantized_graphs(files, tmp_path, "int4", CALIBRATION)
    assert sum(path.stat().st_size for path in (files.standard, files.weights)) < 0.4 * exported.model_bytes
    codec = Codec.load(student)
    limits, prompt = Limits(codec.eos_ids, codec.max_context), codec.encode_prompt(ASKED[0])
    alone = generate_one(OnnxGraph(files.standard), prompt, SamplingParams(12), limits)
    generator = PackedGenerator(PackedGraph(files.engine))
    (packed,) = generator.generate([prompt], SamplingParams(12), limits)
    generator.close()
    assert packed.ids == alone.ids
    # rounding activations to int8 turns the last bits into small steps
    assert packed.logprobs == pytest.approx(alone.logprobs, abs=0.1)


def test_branches_of_trees_are_those_of_separate_sequences(student: Path, exported: ExportResult) -> None:
    codec, files = Codec.load(student), GraphFiles(exported.folder)
    limits, sampling = Limits(codec.eos_ids, codec.max_context), SamplingParams(10, temperature=0.9)
    prompt = codec.encode_prompt(ASKED[0])
    standard = OnnxGraph(files.standard)
    completion = generate_one(standard, prompt, SamplingParams(20), limits).ids
    points = tuple(BranchPoint(end, (end, end + 1)) for end in (0, 5, len(completion)))
    for path in (files.engine, files.lanes):
        generator = PackedGenerator(PackedGraph(path), tree_capacity=1)  # so little room that branches start over
        (tree,) = generator.generate_trees([TreeRequest(tuple(prompt), completion, points)], sampling, limits)
        generator.close()
        for point, branches in zip(points, tree.branches, strict=True):
            prefix = [*prompt, *completion[: point.num_tokens]]
            for seed, branch in zip(point.seeds, branches, strict=True):
                alone = generate_one(standard, prefix, sampling, limits, seed)
                assert branch.ids == alone.ids
                assert branch.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
                assert branch.entropies == pytest.approx(alone.entropies, abs=1e-4)


def test_attention_rotates_as_the_operator_does(student: Path, exported: ExportResult, tmp_path: Path) -> None:
    """Folded into attention, rotary embedding keeps its bits, in prompts, in rows of a batch and in packed trees."""
    files = GraphFiles(exported.folder)
    standard = read_graph(onnx.load(str(files.standard), load_external_data=False), files.weights)
    take_softcap(standard)
    restore_past(standard)
    apart = tmp_path / "apart.graph"
    write_graphs({apart: engine_variant(standard)}, tmp_path / "apart.data")
    kept = [
        node
        for node in onnx.load(str(files.engine), load_external_data=False).graph.node
        if node.op_type == "RotaryEmbedding"
    ]
    assert all(attribute(node, "rotary_embedding_dim", 16) % 16 for node in kept)
    codec = Codec.load(student)
    limits, sampling = Limits(codec.eos_ids, codec.max_context), SamplingParams(10, temperature=0.9)
    prompts = [codec.encode_prompt(question) for question in ASKED]
    written = []
    for path in (apart, files.engine):
        generator = PackedGenerator(PackedGraph(path))
        found = generator.generate(prompts, sampling, limits, seeds=[0, 1, 2])
        points = tuple(BranchPoint(end, (end, end + 1)) for end in (0, len(found[0].ids) // 2))
        trees = generator.generate_trees([TreeRequest(tuple(prompts[0]), found[0].ids, points)], sampling, limits)
        written.append((found, trees))
        generator.close()
    assert written[0] == written[1]


def test_its_package_writes_the_same(exported: ExportResult, tmp_path: Path) -> None:
    """On the device's graph, whose golden outputs were recorded when the package was written."""
    info = PackageInfo("org/tiny", "int8", tuple(ASKED), max_explanation_tokens=12)
    assert verify_package(write_package(exported.folder, tmp_path / "package", info)).is_ok


def test_the_next_round_swaps_weights_into_its_graphs(student: Path, exported: ExportResult, tmp_path: Path) -> None:
    later = _student(tmp_path / "later", _family(student), seed=1)
    swapped = export_student(later, tmp_path / "swapped", CONFIG, parity_questions=ASKED, previous=exported.folder)
    anew = export_student(later, tmp_path / "anew", CONFIG, parity_questions=ASKED)
    assert (swapped.graphs, anew.graphs) == ("swapped", "fused")
    for path in sorted(anew.folder.iterdir()):
        assert path.read_bytes() == (swapped.folder / path.name).read_bytes(), path.name


@pytest.mark.parametrize("family", ["gemma", "stablelm"])
def test_weights_that_were_equal_are_swapped_apart(tmp_path: Path, family: Family) -> None:
    """A fresh student's norms are all ones, of which the tracer keeps one."""
    first = make_student(tmp_path / "first", family)
    later = _student(tmp_path / "later", family, seed=1)
    for student, name in ((first, "previous"), (later, "anew")):
        (tmp_path / name).mkdir()
        write_student_graphs(traced_graph(student, tmp_path / f"scratch-{name}"), tmp_path / name)
    shutil.copyfile(first / "config.json", tmp_path / "previous" / "config.json")
    (tmp_path / "swapped").mkdir()
    swap_weights(tmp_path / "previous", later, tmp_path / "swapped")
    for path in sorted((tmp_path / "anew").iterdir()):
        assert path.read_bytes() == (tmp_path / "swapped" / path.name).read_bytes(), path.name


def test_the_context_goes_past_sliding_windows(student: Path, exported: ExportResult, tmp_path: Path) -> None:
    assert Codec.load(student).max_context == Codec.load(exported.folder).max_context == MAX_CONTEXT
    if (window := MORE_FAMILIES[_family(student)].get("sliding_window")) is None:
        return
    longest = max(len(Codec.load(student).encode_prompt(question)) for question in ASKED)
    assert longest > window  # so what the other tests compare is past the window
    # a graph whose layers all attend to all tokens, as earlier versions wrote it
    shutil.copytree(exported.folder, tmp_path / "old")
    graph = onnx.load(str(tmp_path / "old" / "model.onnx"), load_external_data=False)
    del graph.metadata_props[:]
    onnx.save(graph, str(tmp_path / "old" / "model.onnx"))
    assert Codec.load(tmp_path / "old").max_context == window


def _phi3(folder: Path, rope: dict[str, object], **changes: object) -> Path:
    student = make_student(folder, "phi3")
    settings = json.loads((student / "config.json").read_text(encoding="utf-8"))
    if "rope_parameters" in settings:  # transformers 5
        settings["rope_parameters"] |= {**rope, "rope_type": rope.get("type", "default")}
    elif "type" in rope:
        settings["rope_scaling"] = rope
    (student / "config.json").write_text(json.dumps({**settings, **changes}), encoding="utf-8")
    return student


def test_longrope_is_right_up_to_the_original_context_and_ends_there(tmp_path: Path) -> None:
    short, long = [1.0, 1.1, 1.2, 1.3, 1.5, 1.7, 1.9, 2.0], [2.0 + i for i in range(8)]
    rope = {"type": "longrope", "short_factor": short, "long_factor": long}
    student = _phi3(tmp_path / "student", rope, original_max_position_embeddings=64)
    assert Codec.load(student).max_context == 64
    result = export_student(student, tmp_path / "onnx", ExportConfig(num_parity_prompts=2), parity_questions=ASKED)
    assert result.graphs == "fused"
    assert "capped at 64 of 128 tokens" in result.warnings[-1]
    with Student.open(tmp_path / "onnx") as opened:
        texts = [tree.text for tree in opened.explain(ASKED, 12)]
    assert texts == [Codec.load(student).decode(ids) for ids in _greedy(student, 12)]


def test_all_fused_families_are_tested() -> None:
    from fixtures.students import FAMILIES

    assert {family.partition("-")[0] for family in (*FAMILIES, *MORE_FAMILIES)} == set(FUSED_FAMILIES)
