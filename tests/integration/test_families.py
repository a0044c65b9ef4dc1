"""Families that differ from the main ones in single modules: fused, parity, int8, int4, and weights swapped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fixtures.students import MAX_CONTEXT, MORE_FAMILIES, Family, make_student, questions
from transformers import AutoConfig, AutoModelForCausalLM

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.student import Student
from edgeelad.export import export_student
from edgeelad.export.fused.families import check_family
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.training.support import FUSED_FAMILIES

ASKED = questions(3)


@pytest.fixture(scope="module", params=list(MORE_FAMILIES))
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random student whose norms have weights of their own, unlike freshly made ones."""
    return _student(tmp_path_factory.mktemp(request.param) / "student", request.param, seed=0)


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
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
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


@pytest.mark.parametrize("quantize", ["int8", "int4"])
def test_it_is_fused_and_writes_what_torch_writes(student: Path, tmp_path: Path, quantize: str) -> None:
    config = ExportConfig.model_validate({"quantize": quantize, "num_parity_prompts": 2})
    result = export_student(student, tmp_path / "onnx", config, parity_questions=ASKED)
    assert result.graphs == "fused"  # parity of the standard graph and both engine graphs was checked
    assert result.quantized_bytes < 0.45 * result.model_bytes  # tiny students: norms and scales weigh more
    with Student.open(tmp_path / "onnx") as opened:
        texts = [tree.text for tree in opened.explain(ASKED, 12)]
    codec = Codec.load(student)
    assert texts == [codec.decode(ids) for ids in _greedy(student, 12)]


def test_the_next_round_swaps_weights_into_its_graphs(student: Path, tmp_path: Path) -> None:
    family: Family = student.parent.name[:-1]  # type: ignore[assignment]  # mktemp adds a number
    later = _student(tmp_path / "later", family, seed=1)
    config = ExportConfig(num_parity_prompts=2)
    first = export_student(student, tmp_path / "first", config, parity_questions=ASKED)
    swapped = export_student(later, tmp_path / "swapped", config, parity_questions=ASKED, previous=first.folder)
    anew = export_student(later, tmp_path / "anew", config, parity_questions=ASKED)
    assert (swapped.graphs, anew.graphs) == ("swapped", "fused")
    for path in sorted(anew.folder.iterdir()):
        assert path.read_bytes() == (swapped.folder / path.name).read_bytes(), path.name


def test_the_context_ends_where_a_sliding_window_would_begin(student: Path) -> None:
    expected = 96 if "gemma3_text" in student.parent.name else MAX_CONTEXT
    assert Codec.load(student).max_context == expected


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
    with Student.open(tmp_path / "onnx") as opened:
        texts = [tree.text for tree in opened.explain(ASKED, 12)]
    assert texts == [Codec.load(student).decode(ids) for ids in _greedy(student, 12)]


def test_partial_rotary_embedding_is_not_fused(tmp_path: Path) -> None:
    student = _phi3(tmp_path / "student", {"partial_rotary_factor": 0.5}, partial_rotary_factor=0.5)
    with pytest.raises(UnservedArchitectureError, match="a part of each head"):
        check_family(AutoConfig.from_pretrained(student))


def test_all_fused_families_are_tested() -> None:
    from fixtures.students import FAMILIES

    assert {*FAMILIES, *MORE_FAMILIES} == set(FUSED_FAMILIES)
