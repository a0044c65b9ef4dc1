"""Export: the graph computes what torch computes, the folder holds what is read later, errors leave nothing behind."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from fixtures.students import FAMILIES, Family, make_gptj, make_student, questions
from transformers import AutoConfig, AutoModelForCausalLM

import edgeelad.export.fused.build
import edgeelad.export.standard
from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import AGREEMENT_FILE, Precision, find_graphs
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.plain.graph import OnnxGraph
from edgeelad.engine.student import Student
from edgeelad.engine.tree import TreeParams
from edgeelad.errors import ModelError, ParityError, StorageError
from edgeelad.export import ExportResult, export_student
from edgeelad.export.fused.rotate import ROTATION
from edgeelad.export.parity import check_parity
from edgeelad.export.standard import write_quantized_standard, write_standard_graph
from edgeelad.records import Question
from edgeelad.training.support import STANDARD_FAMILIES, has_optimum, has_standard_export

needs_optimum = pytest.mark.skipif(not has_optimum(), reason="needs optimum-onnx, which transformers 5 excludes")
ASKED = questions(6)
TREE = TreeParams(2, 2, 0.8, 0, 1.0, 24, 16, probe=True, seed=0)


@pytest.fixture(scope="module")
def students(tmp_path_factory: pytest.TempPathFactory) -> dict[Family, Path]:
    root = tmp_path_factory.mktemp("students")
    return {family: make_student(root / family, family, has_bos=family == "llama") for family in FAMILIES}


@pytest.fixture(scope="module")
def exported(students: dict[Family, Path]) -> dict[Family, ExportResult]:
    return {
        family: export_student(
            student, student.with_name(f"{family}-onnx"), ExportConfig(num_parity_prompts=4), parity_questions=ASKED
        )
        for family, student in students.items()
    }


@pytest.mark.parametrize("family", FAMILIES)
def test_the_result_and_the_folder(
    family: Family, students: dict[Family, Path], exported: dict[Family, ExportResult]
) -> None:
    result, student = exported[family], students[family]
    assert result.max_logit_difference < 1e-4
    assert result.greedy_identical
    assert result.num_parity_prompts == 4
    assert result.parity.num_tokens == 4 * 32
    assert result.parity.max_logprob_difference is not None
    assert result.parity.max_logprob_difference < 1e-4
    assert (result.graphs, result.unserved) == ("fused", None)
    # random students have near ties, which every rounding flips
    assert all("of 520 positions" in warning for warning in result.warnings)
    assert result.quantized is not None
    assert result.model_bytes == result.model.stat().st_size + (result.folder / "model.onnx_data").stat().st_size
    assert result.quantized_bytes < 0.45 * result.model_bytes
    assert result.agreement is not None
    assert result.max_logit_difference < result.agreement.max_logit_difference
    assert result.agreement.share > 0.8
    copied = {path.name for path in student.iterdir()} - {"model.safetensors"}
    names = ("model{}.onnx", "engine{}.graph", "engine_lanes{}.graph")
    graphs = {name.format(suffix) for name in names for suffix in ("", "_quantized")}
    weights = {"model.onnx_data", "model_quantized.onnx_data", "engine_lanes_quantized.graph_data"}
    others = {"engine_rows_quantized.graph", AGREEMENT_FILE}
    assert {path.name for path in result.folder.iterdir()} == copied | graphs | weights | others
    for name in copied:
        assert (result.folder / name).read_bytes() == (student / name).read_bytes()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", ["model", "quantized"])
def test_the_standard_names_and_a_valid_graph(family: Family, which: str, exported: dict[Family, ExportResult]) -> None:
    model = onnx.load(str(getattr(exported[family], which)))
    assert {value.name for value in model.graph.input} == {"input_ids", "attention_mask", "position_ids"} | {
        f"past_key_values.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")
    }
    assert [value.name for value in model.graph.output] == [
        "logits",
        *(f"present.{layer}.{kind}" for layer in range(2) for kind in ("key", "value")),
    ]
    kinds = {node.op_type for node in model.graph.node}
    assert ("MatMulNBits" in kinds) == (which == "quantized")
    if which == "quantized":  # every projection and the head; GPT-2's residual stream is not rotated
        products = [node.input[1] for node in model.graph.node if node.op_type in ("MatMul", "Gemm", "FusedMatMul")]
        assert products == ([] if family == "gpt2" else [ROTATION])


@needs_optimum
@pytest.mark.parametrize("family", FAMILIES)
def test_optimum_generates_from_it_what_torch_generates(
    family: Family, students: dict[Family, Path], exported: dict[Family, ExportResult]
) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM

    codec = Codec.load(students[family])
    prompts = [codec.encode_prompt(question) for question in ASKED]
    width = max(map(len, prompts))
    batch = {
        "input_ids": torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts]),
        "attention_mask": torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]),
    }
    settings = {"max_new_tokens": 24, "do_sample": False}
    expected = AutoModelForCausalLM.from_pretrained(students[family]).generate(**batch, **settings)
    model = ORTModelForCausalLM.from_pretrained(exported[family].folder, file_name="model.onnx")
    assert torch.equal(model.generate(**batch, **settings), expected)
    alone = model.generate(input_ids=torch.tensor([prompts[0]]), **settings)[0, len(prompts[0]) :]
    assert torch.equal(alone, expected[0, width:][: len(alone)])


@needs_optimum
@pytest.mark.parametrize("family", ["qwen3", "phi3", "olmo2", "gemma2"])
def test_optimum_loads_students_whose_cache_it_guesses_wrongly(family: str, tmp_path: Path) -> None:
    """Its guess is hidden size / heads for the head size, and as many key-value heads as heads."""
    from optimum.onnxruntime import ORTModelForCausalLM

    sizes = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32 if family in ("qwen3", "gemma2") else 16,
    }
    config = AutoConfig.for_model(
        family, vocab_size=400, hidden_size=64, intermediate_size=128, num_hidden_layers=2, max_position_embeddings=128,
        initializer_range=0.3, bos_token_id=None, eos_token_id=2, pad_token_id=0, sliding_window=256, **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    student = make_student(tmp_path / "student")
    model.save_pretrained(student)
    result = export_student(
        student, tmp_path / "onnx", ExportConfig(quantize="int8", num_parity_prompts=1), parity_questions=ASKED
    )
    prompt = torch.tensor([Codec.load(student).encode_prompt(ASKED[0])])
    settings = {"max_new_tokens": 12, "do_sample": False}
    onnx_model = ORTModelForCausalLM.from_pretrained(result.folder, file_name="model.onnx")
    assert torch.equal(onnx_model.generate(prompt, **settings), model.generate(prompt, **settings))
    quantized = ORTModelForCausalLM.from_pretrained(result.folder, file_name="model_quantized.onnx")
    assert quantized.generate(prompt, **settings).shape[1] > prompt.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("which", ["int8", "int4"])
def test_a_row_of_a_quantized_student_does_not_depend_on_its_mates(
    family: Family, which: str, students: dict[Family, Path], exported: dict[Family, ExportResult], tmp_path: Path
) -> None:
    path = exported[family].quantized
    if which == "int4":
        config = ExportConfig(quantize="int4", num_parity_prompts=1)
        path = export_student(students[family], tmp_path / "int4", config, parity_questions=ASKED).quantized
    assert path is not None
    graph = OnnxGraph(path)
    rows = np.random.default_rng(0).integers(3, graph.vocab_size, size=(12, 17))
    positions = np.arange(17)[None].repeat(12, axis=0)
    together, cache = graph.step(rows, np.ones_like(rows), positions, graph.empty_cache(12))
    next_tokens, mask = together[:, -1].argmax(axis=-1)[:, None], np.ones((12, 18), dtype=np.int64)
    next_together, _ = graph.step(next_tokens, mask, positions[:, -1:] + 1, cache)
    for index in range(12):
        one = slice(index, index + 1)
        alone, cache = graph.step(rows[one], np.ones((1, 17), np.int64), positions[one], graph.empty_cache(1))
        assert np.array_equal(alone[0], together[index])
        next_alone, _ = graph.step(next_tokens[one], mask[one], positions[one, -1:] + 1, cache)
        assert np.allclose(next_alone[0], next_together[index], atol=1e-5)


def test_int4_is_smaller_and_none_is_none(students: dict[Family, Path], tmp_path: Path) -> None:
    sizes = {}
    for quantize in ("int8", "int4", "none"):
        config = ExportConfig.model_validate({"quantize": quantize, "num_parity_prompts": 1})
        result = export_student(students["llama"], tmp_path / quantize, config, parity_questions=ASKED)
        sizes[quantize] = result.quantized_bytes
        assert (result.quantized is None) == (quantize == "none")
        assert (result.agreement is None) == (quantize == "none")
        assert (tmp_path / quantize / "model_quantized.onnx").exists() == (quantize != "none")
        for precision in ("int8", "int4"):
            if precision == quantize:
                assert find_graphs(tmp_path / quantize, precision).precision == precision
            else:
                there = "fp32" if quantize == "none" else f"fp32 or {quantize}"
                with pytest.raises(ModelError, match=f"has no {precision} graph; use its {there} graph"):
                    find_graphs(tmp_path / quantize, precision)
    assert 0 == sizes["none"] < sizes["int4"] < sizes["int8"]


def test_the_same_student_gives_the_same_files(students: dict[Family, Path], tmp_path: Path) -> None:
    for name in ("first", "again"):
        export_student(students["llama"], tmp_path / name, ExportConfig(num_parity_prompts=1), parity_questions=ASKED)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()


def test_another_students_graph_fails_parity_with_the_figures(
    students: dict[Family, Path], exported: dict[Family, ExportResult], tmp_path: Path
) -> None:
    other = AutoModelForCausalLM.from_pretrained(make_student(tmp_path / "other", "llama", seed=1)).eval()
    codec, graph = Codec.load(students["llama"]), OnnxGraph(exported["llama"].model)
    prompts = [codec.encode_prompt(question) for question in ASKED]
    with pytest.raises(
        ParityError, match=r"logits differ by up to \d\.\d\de[+-]\d\d .*of 192 greedy tokens differ, on 6"
    ):
        check_parity(other, graph, prompts, codec.max_context, 1e-4)


def test_the_limit_follows_the_scale_of_the_logits(students: dict[Family, Path], tmp_path: Path) -> None:
    """A head ten times as large rounds ten times as coarsely, in torch as in ONNX, and changes no token."""
    student = make_student(tmp_path / "student", is_tied=False)
    model = AutoModelForCausalLM.from_pretrained(student)
    with torch.no_grad():
        model.lm_head.weight *= 30
    model.save_pretrained(student)
    config = ExportConfig(num_parity_prompts=4, quantize="none")
    result = export_student(student, tmp_path / "out", config, parity_questions=ASKED)
    assert result.parity.largest_logit > 300
    assert 1e-4 < result.max_logit_difference < result.parity.allowed(1e-4)
    assert result.greedy_identical
    small = dataclasses.replace(result.parity, largest_logit=9.0)
    assert small.allowed(1e-4) == 1e-4
    assert dataclasses.replace(small, largest_logit=40.0).allowed(1e-4) == pytest.approx(4e-4)


def test_positions_of_padding_matter_to_parity(
    students: dict[Family, Path], exported: dict[Family, ExportResult], tmp_path: Path
) -> None:
    """A graph that forgets the attention mask passes on single prompts, and must not pass on ragged batches."""
    model = onnx.load(str(exported["llama"].model))
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            if name == "attention_mask":
                node.input[index] = "all_ones"
    shape = onnx.helper.make_node("Shape", ["attention_mask"], ["mask_shape"])
    one = onnx.helper.make_tensor("value", onnx.TensorProto.INT64, [1], [1])
    ones = onnx.helper.make_node("ConstantOfShape", ["mask_shape"], ["all_ones"], value=one)
    model.graph.node.insert(0, shape)
    model.graph.node.insert(1, ones)
    onnx.save(model, str(tmp_path / "model.onnx"))
    torch_model = AutoModelForCausalLM.from_pretrained(students["llama"]).eval()
    codec = Codec.load(students["llama"])
    prompts = sorted((codec.encode_prompt(question) for question in ASKED), key=len)
    graph = OnnxGraph(tmp_path / "model.onnx")
    assert check_parity(torch_model, graph, prompts[:1], codec.max_context, 1e-4).is_greedy_identical
    assert len(prompts[0]) < len(prompts[-1])
    with pytest.raises(ParityError):
        check_parity(torch_model, graph, prompts, codec.max_context, 1e-4)


def test_an_export_that_fails_leaves_nothing(students: dict[Family, Path], tmp_path: Path) -> None:
    config = ExportConfig(max_logit_difference=1e-12)
    with pytest.raises(ParityError, match=r"export\.max_logit_difference = 1e-12"):
        export_student(students["gpt2"], tmp_path / "out", config, parity_questions=ASKED)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_not_written_over(students: dict[Family, Path], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(StorageError, match="already exists"):
        export_student(students["llama"], tmp_path / "out", ExportConfig(), parity_questions=ASKED)


def test_what_is_no_student_is_refused(students: dict[Family, Path], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such folder"):
        export_student(tmp_path / "nothing", tmp_path / "out", ExportConfig(), parity_questions=ASKED)
    for name in ("prompt.json", "tokenizer.json", "config.json", "tokenizer_config.json", "model.safetensors"):
        broken = tmp_path / f"without {name}"
        shutil.copytree(students["llama"], broken)
        (broken / name).unlink()
        with pytest.raises(ModelError) as caught:
            export_student(broken, tmp_path / "out", ExportConfig(num_parity_prompts=1), parity_questions=ASKED)
        assert "\n" not in str(caught.value)
        assert str(broken) in str(caught.value)
        assert not (tmp_path / "out").exists()


@needs_optimum
def test_what_optimum_raises_becomes_one_line(
    students: dict[Family, Path], unserved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the tracer met\na surprise")

    monkeypatch.setattr(edgeelad.export.fused.build, "trace_fused", fail)
    monkeypatch.setattr(edgeelad.export.standard, "trace_standard", fail)
    for student in (students["llama"], unserved):
        with pytest.raises(ModelError, match=r"Optimum cannot export this student to ONNX: the tracer met$"):
            export_student(student, tmp_path / "out", ExportConfig(), parity_questions=ASKED)


@needs_optimum
def test_optimum_exports_what_is_said_to_fall_back() -> None:
    assert all(has_standard_export(kind) for kind in STANDARD_FAMILIES)
    assert not has_standard_export("deepseek_v3")  # its cache has a shape of its own


@pytest.fixture(scope="module")
def unserved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student of an architecture that has no engine graphs."""
    return make_gptj(make_student(tmp_path_factory.mktemp("unserved") / "student"))


@needs_optimum
@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_an_architecture_without_engine_graphs_falls_back_and_says_so(
    unserved: Path, tmp_path: Path, quantize: Precision
) -> None:
    config = ExportConfig.model_validate({"num_parity_prompts": 2, "quantize": quantize})
    result = export_student(unserved, tmp_path / "out", config, parity_questions=ASKED)
    assert result.graphs == "standard"
    assert result.unserved == "model type gptj: not a fused family"
    warning = result.warnings[0]
    assert "without packed reasoning trees" in warning
    assert result.max_logit_difference < 1e-4
    assert result.quantized is not None
    assert result.quantized_bytes < result.model_bytes
    names = {"model.onnx", "model.onnx_data", "model_quantized.onnx", "model_quantized.onnx_data"}
    assert {path.name for path in result.folder.glob("*.onnx*")} == names
    kinds = {node.op_type for node in onnx.load(str(result.quantized)).graph.node}
    assert "MatMulNBits" in kinds
    with (
        Student.open(result.folder) as student,
        Student.open(result.folder, EngineOptions(precision=quantize)) as quantized,
    ):
        assert (
            len(list(student.generate_trees(ASKED, TREE)))
            == len(list(quantized.generate_trees(ASKED, TREE)))
            == len(ASKED)
        )
    again = export_student(
        unserved, tmp_path / "again", config, parity_questions=ASKED, previous=result.folder
    )  # there is nothing to swap weights into
    assert again.graphs == "standard"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_next_round_swaps_weights_and_gives_the_same_files(
    family: Family, exported: dict[Family, ExportResult], tmp_path: Path
) -> None:
    later = make_student(tmp_path / "later", family, has_bos=family == "llama", seed=3)
    folders = {}
    for name, is_fresh in (("swapped", False), ("fused", True)):
        config = ExportConfig(num_parity_prompts=2, fresh=is_fresh)
        result = export_student(
            later, tmp_path / name, config, parity_questions=ASKED, previous=exported[family].folder
        )
        assert result.graphs == name
        assert result.max_logit_difference < 1e-4
        folders[name] = {path.name: path.read_bytes() for path in result.folder.iterdir()}
    assert folders["swapped"] == folders["fused"]
    assert folders["fused"]["model.onnx_data"] != (exported[family].folder / "model.onnx_data").read_bytes()


def test_graphs_of_another_kind_are_not_swapped_into(
    students: dict[Family, Path], exported: dict[Family, ExportResult], tmp_path: Path
) -> None:
    config = ExportConfig(num_parity_prompts=1)
    other = exported["qwen2"].folder
    result = export_student(students["llama"], tmp_path / "out", config, parity_questions=ASKED, previous=other)
    assert result.graphs == "fused"
    four = ExportConfig(num_parity_prompts=1, quantize="int4")
    own = exported["llama"].folder
    result = export_student(students["llama"], tmp_path / "int4", four, parity_questions=ASKED, previous=own)
    assert result.graphs == "swapped"
    assert result.quantized is not None
    assert "MatMulNBits" in {node.op_type for node in onnx.load(str(result.quantized)).graph.node}


def test_prompts_that_do_not_fit_are_passed_over(students: dict[Family, Path], tmp_path: Path) -> None:
    long = Question("long", "1 + " * 200)
    config = ExportConfig(quantize="none")
    result = export_student(students["llama"], tmp_path / "out", config, parity_questions=[long, *ASKED[:2]])
    assert result.num_parity_prompts == 2
    result = export_student(students["llama"], tmp_path / "fallback", config, parity_questions=[])
    assert result.num_parity_prompts == 1
    tiny = make_student(tmp_path / "tiny", max_context=8)
    with pytest.raises(ModelError, match="no prompt fits the student's context of 8 tokens"):
        export_student(tiny, tmp_path / "none", config, parity_questions=ASKED)


def test_a_prompt_that_almost_fills_the_context_is_compared_as_far_as_it_goes(tmp_path: Path) -> None:
    student = make_student(tmp_path / "student", "gpt2", max_context=64)
    codec = Codec.load(student)
    filler = max(n for n in range(200) if len(codec.encode_prompt(Question("q", "q" * n))) < 64)
    config = ExportConfig(quantize="none")
    question = Question("full", "q" * filler)
    result = export_student(student, tmp_path / "out", config, parity_questions=[question])
    assert result.parity.num_tokens == 64 - len(codec.encode_prompt(question))


@needs_optimum
@pytest.mark.parametrize("is_tied", [True, False])
def test_standard_graphs_store_each_weight_once_and_can_be_moved(
    tmp_path: Path, is_tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_tied:
        monkeypatch.setenv("FORCE_ONNX_EXTERNAL_DATA", "1")  # Optimum's own switch, which 2 GB would throw
    student = make_student(tmp_path / "student", "llama", is_tied=is_tied)
    num_parameters = sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(student).parameters())
    folders = {}
    quantizations: tuple[Precision, ...] = ("int8", "int4")
    for quantize in quantizations:
        folder = folders[quantize] = tmp_path / quantize
        folder.mkdir()
        write_quantized_standard(write_standard_graph(student, folder), folder, quantize, [])
    sizes = {quantize: (folder / "model_quantized.onnx_data").stat().st_size for quantize, folder in folders.items()}
    padding = 4096 * 40  # large tensors begin at page boundaries
    assert (folders["int8"] / "model.onnx_data").stat().st_size < 4 * num_parameters + padding
    assert sizes["int8"] < 1.1 * num_parameters + padding
    assert sizes["int4"] < sizes["int8"]
    moved = Path(shutil.move(folders["int8"], tmp_path / "moved"))
    ids = np.arange(3, 63)[None]
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    for name, tolerance in (("model.onnx", 1e-4), ("model_quantized.onnx", 2.0)):
        graph = OnnxGraph(moved / name)
        logits, _ = graph.step(ids, np.ones_like(ids), np.arange(60)[None], graph.empty_cache(1))
        assert np.abs(logits - expected).max() < tolerance


def test_a_sliding_window_does_not_cap_the_context(tmp_path: Path) -> None:
    student = make_student(tmp_path / "student", "qwen2")
    config = json.loads((student / "config.json").read_text())
    config |= {"use_sliding_window": True, "sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}
    (student / "config.json").write_text(json.dumps(config))
    result = export_student(student, tmp_path / "out", ExportConfig(quantize="none"), parity_questions=ASKED)
    assert (result.max_context, result.num_positions, result.warnings) == (128, 128, ())


def test_an_untied_head_is_served_as_well(tmp_path: Path) -> None:
    student = make_student(tmp_path / "student", "llama", is_tied=False)
    config = ExportConfig(num_parity_prompts=2)
    result = export_student(student, tmp_path / "out", config, parity_questions=ASKED)
    assert result.max_logit_difference < 1e-4
    assert result.quantized is not None
    products = [n for n in onnx.load(str(result.quantized)).graph.node if n.op_type == "MatMulNBits"]
    assert len(products) == 2 * 4 + 1  # query, key and value are one product, gate and up another


def test_nothing_is_written_to_the_screen(
    students: dict[Family, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export_student(students["qwen3"], tmp_path / "out", ExportConfig(), parity_questions=ASKED)
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_result_is_a_frozen_record(exported: dict[Family, ExportResult]) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        exported["llama"].seconds = 0.0  # type: ignore[misc]
