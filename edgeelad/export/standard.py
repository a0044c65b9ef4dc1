"""The export itself: Optimum's graph with its standard names, parity with torch, quantization, all in one new folder.

Another graph over the same student (`graph_*`) can be written into the same folder beside these.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from onnx import ModelProto
from optimum.exporters.onnx import main_export
from transformers import PreTrainedModel

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.session import OnnxGraph
from edgeelad.errors import EdgeeladError, ModelError
from edgeelad.export.parity import check_parity, largest_difference
from edgeelad.export.quantize import quantize_graph
from edgeelad.export.result import ExportResult
from edgeelad.files import make_folder, storage_errors
from edgeelad.prompts import PROMPT_FILE
from edgeelad.records import Question
from edgeelad.training.extra import quiet
from edgeelad.training.load import EXPORT_TASK, load_config, load_model
from edgeelad.training.save import refuse_existing

MODEL_FILE = "model.onnx"
QUANTIZED_FILE = "model_quantized.onnx"
BITS = {"int8": 8, "int4": 4}
# what an onnx folder needs of the student's own files; those in the second line not every student has
STUDENT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", PROMPT_FILE)
OPTIONAL_FILES = ("special_tokens_map.json", "chat_template.jinja")
MAX_INLINE_BYTES = 1_500_000_000  # a protobuf file ends at 2 GB; beyond this weights lie in a file of their own
NUM_QUANTIZED_PROMPTS = 2  # a figure for the reader: what decides is the answers' agreement, measured by evaluation
FALLBACK_QUESTION = Question("parity", "Tom has 3 apples and buys 4 more. How many apples does Tom have?")


def export_student(
    student: Path, out: Path, config: ExportConfig, parity_questions: Sequence[Question]
) -> ExportResult:
    """Export, check and quantize a student; see `edgeelad.export.export_student`."""
    start = time.perf_counter()
    refuse_existing(out)
    codec = Codec.load(student)
    prompts = _parity_prompts(codec, parity_questions, config.num_parity_prompts)
    results: list[ExportResult] = []

    def fill(folder: Path) -> None:
        # 1. Optimum's graph
        with quiet():
            load_config(str(student))
            model = load_model(str(student))
            _export_graph(student, folder, out)
        # 2. it computes what torch computes
        parity = check_parity(
            model,
            OnnxGraph(folder / MODEL_FILE, torch.get_num_threads()),
            prompts,
            codec.max_context,
            config.max_logit_difference,
        )
        # 3. fewer bits
        difference = _quantize(folder, out, model, prompts, BITS[config.quantize]) if config.quantize in BITS else None
        # 4. what is read beside the graph
        with storage_errors(out):
            _copy_files(student, folder)
        is_quantized = difference is not None
        results.append(
            ExportResult(
                folder=out,
                model=out / MODEL_FILE,
                quantized=out / QUANTIZED_FILE if is_quantized else None,
                parity=parity,
                quantized_logit_difference=difference,
                model_bytes=_size(folder / MODEL_FILE),
                quantized_bytes=_size(folder / QUANTIZED_FILE) if is_quantized else 0,
                seconds=time.perf_counter() - start,
            )
        )

    make_folder(out, fill)
    (result,) = results
    return result


def _parity_prompts(codec: Codec, questions: Sequence[Question], num_prompts: int) -> list[list[int]]:
    """The first prompts that leave room for some tokens."""
    prompts: list[list[int]] = []
    for question in (*questions, FALLBACK_QUESTION):
        if len(prompts) >= num_prompts or (prompts and question is FALLBACK_QUESTION):
            break
        prompt = codec.encode_prompt(question)
        if len(prompt) < codec.max_context:
            prompts.append(prompt)
    if not prompts:
        raise ModelError(f"no prompt fits the student's context of {codec.max_context} tokens; choose another student")
    return prompts


def _export_graph(student: Path, folder: Path, out: Path) -> None:
    """Write Optimum's graph into `folder`.

    Optimum's own validation is left out: it compares one made-up input, and `check_parity` compares more.

    Raises:
        ModelError: Optimum cannot export this student.
    """
    scratch = folder / "optimum"
    try:
        with storage_errors(out):
            main_export(
                str(student),
                scratch,
                task=EXPORT_TASK,
                framework="pt",
                library_name="transformers",
                local_files_only=True,
                do_validation=False,
            )
            for path in scratch.glob(MODEL_FILE + "*"):
                path.rename(folder / path.name)
            shutil.rmtree(scratch)
    except EdgeeladError:
        raise
    except Exception as error:  # torch's tracer and Optimum raise whatever the model's code raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{student}: Optimum cannot export this student to ONNX: {reason}") from error


def _quantize(folder: Path, out: Path, model: PreTrainedModel, prompts: Sequence[list[int]], bits: int) -> float:
    """Write the quantized graph; gives the largest difference of its logits from torch's."""
    graph = onnx.load(str(folder / MODEL_FILE))
    quantize_graph(graph, bits)
    with storage_errors(out):
        save_graph(graph, folder / QUANTIZED_FILE)
    quantized = OnnxGraph(folder / QUANTIZED_FILE, torch.get_num_threads())
    return largest_difference(model, quantized, prompts[:NUM_QUANTIZED_PROMPTS])


def save_graph(graph: ModelProto, path: Path) -> None:
    """Write a graph; weights beyond MAX_INLINE_BYTES go into `<name>_data` beside it."""
    size = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    onnx.save(graph, str(path), save_as_external_data=size > MAX_INLINE_BYTES, location=f"{path.name}_data")


def _copy_files(student: Path, folder: Path) -> None:
    for name in (*STUDENT_FILES, *OPTIONAL_FILES):
        source = student / name
        if not source.is_file() and name in STUDENT_FILES:
            raise ModelError(f"{source}: missing; prepare the student again")
        if source.is_file():
            shutil.copyfile(source, folder / name)


def _size(path: Path) -> int:
    """Bytes of a graph with the file of its weights, where it has one."""
    data = path.with_name(f"{path.name}_data")
    return path.stat().st_size + (data.stat().st_size if data.exists() else 0)
