"""SmolLM2-135M-Instruct and Gemma-3-270M with real weights: export, packages and scores (run with -m weights).

EDGEELAD_WEIGHTS names the folder in which benchmarks/real_weights.py keeps the checkpoints.
"""

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from fixtures.students import questions
from transformers import AutoModelForCausalLM

import edgeelad
from edgeelad.config import ExportConfig, StudentConfig
from edgeelad.engine.codec import Codec
from edgeelad.export import ExportResult, export_student
from edgeelad.package.golden import read_golden
from edgeelad.package.info import PackageInfo
from edgeelad.package.verify import verify_package
from edgeelad.package.write import write_package
from edgeelad.training import prepare_student
from edgeelad.training.support import has_optimum

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from real_weights import WEIGHTS, WeightsMissingError, checkpoint

del sys.path[0]

pytestmark = pytest.mark.weights
ASKED = questions(5)
NUM_TOKENS = 24


@dataclass(frozen=True)
class Made:
    """A real student, exported as int8 with its fp32 graph, and packaged."""

    student: Path
    result: ExportResult
    package: Path


@pytest.fixture(scope="module", params=list(WEIGHTS))
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    cache = os.environ.get("EDGEELAD_WEIGHTS")
    if not cache:
        pytest.skip("EDGEELAD_WEIGHTS names no folder for checkpoints")
    try:
        raw = checkpoint(request.param, Path(cache))
    except WeightsMissingError as error:
        pytest.skip(str(error))
    work = tmp_path_factory.mktemp(request.param)
    student = prepare_student(str(raw), work / "student", StudentConfig(model=str(raw)))
    result = export_student(
        student, work / "onnx", ExportConfig(num_parity_prompts=2), parity_questions=ASKED, previous=None
    )
    info = PackageInfo(request.param, "int8", tuple(ASKED), max_explanation_tokens=NUM_TOKENS, include_fp32=True)
    return Made(student, result, write_package(work / "onnx", work / "package", info))


def test_the_fused_graph_writes_what_torch_writes(made: Made) -> None:
    assert made.result.graphs == "fused"  # and parity held, or the export would have failed
    model = AutoModelForCausalLM.from_pretrained(made.student, dtype=torch.float32).eval()
    codec = Codec.load(made.student)
    with edgeelad.load(made.result.folder, precision="fp32") as student:
        for question in ASKED:
            prompt = codec.encode_prompt(question)
            ids = model.generate(torch.tensor([prompt]), max_new_tokens=NUM_TOKENS, do_sample=False)[0, len(prompt) :]
            assert student.explain(question, max_tokens=NUM_TOKENS).text == codec.decode(ids.tolist())


def test_int8_takes_a_quarter_and_the_package_is_right(made: Made) -> None:
    assert made.result.quantized_bytes < 0.27 * made.result.model_bytes
    report = verify_package(made.package)
    assert report.is_ok, report.text()
    assert all(row.text.strip() for row in read_golden(made.package))


@pytest.mark.skipif(not has_optimum(), reason="needs optimum-onnx, which needs transformers 4")
def test_optimum_writes_what_the_package_records(made: Made) -> None:
    from optimum.onnxruntime import ORTModelForCausalLM

    model = ORTModelForCausalLM.from_pretrained(made.package, subfolder="onnx", file_name="model_quantized.onnx")
    num_same = 0
    for row in read_golden(made.package):
        prompt = torch.tensor([row.prompt_ids])
        ids = model.generate(prompt, max_new_tokens=NUM_TOKENS, do_sample=False)[0, len(row.prompt_ids) :].tolist()
        expected = list(row.completion_ids[:NUM_TOKENS])
        num_same += ids[: len(expected)] == expected
    assert num_same == len(ASKED)


def test_its_trees_are_scored(made: Made) -> None:
    options = {"branches": 2, "explanations": 2, "max_tokens": NUM_TOKENS, "num_workers": 1}
    scored = list(edgeelad.score(made.package, ASKED, strategy="elad", **options))
    assert [row.question for row in scored] == ASKED
    assert all(row.score is not None and math.isfinite(row.score) for row in scored)
    assert any(row.num_tokens > NUM_TOKENS for row in scored)  # more than the explanation: branches
