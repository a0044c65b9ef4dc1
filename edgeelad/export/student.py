"""Export a student into a new folder: its graphs, checked against torch, quantized, with its tokenizer and settings.

The graphs are the fused ones, if possible the last round's with this student's weights. If GroupQueryAttention cannot
express the student, they are Optimum's own, which score and generate more slowly.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedModel

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.open import open_standard
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.shape import read_json
from edgeelad.errors import EdgeeladError, ModelError
from edgeelad.export.empty_past import is_guessed
from edgeelad.export.encoder_decoder import write_encoder_decoder
from edgeelad.export.fused.build import traced_graph, write_student_graphs
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.swap import GraphMismatchError, swap_weights
from edgeelad.export.parity import check_engine_parity, check_parity, largest_difference
from edgeelad.export.result import ExportResult, GraphKind
from edgeelad.export.standard import cannot_export, write_standard_graphs
from edgeelad.files import make_folder, storage_errors
from edgeelad.records import Question
from edgeelad.text.prompts import PROMPT_FILE
from edgeelad.training.extra import quiet
from edgeelad.training.load import load_config, load_model
from edgeelad.training.save import refuse_existing

# the student's files that are copied; not every student has the optional ones
STUDENT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", PROMPT_FILE)
OPTIONAL_FILES = ("special_tokens_map.json", "chat_template.jinja")
NUM_QUANTIZED_PROMPTS = 2  # for information only: the agreement of answers decides what is packaged
FALLBACK_QUESTION = Question("parity", "Tom has 3 apples and buys 4 more. How many apples does Tom have?")


def export_student(
    student: Path, out: Path, config: ExportConfig, parity_questions: Sequence[Question], previous: Path | None
) -> ExportResult:
    """Export, check and quantize a student; see `edgeelad.export.export_student`."""
    start = time.perf_counter()
    refuse_existing(out)
    _parity_prompts(Codec.load(student), parity_questions, config.num_parity_prompts)  # before anything is traced
    results: list[ExportResult] = []

    def fill(folder: Path) -> None:
        # 1. the graphs
        with quiet():
            load_config(str(student))
            model = load_model(str(student))
        if model.config.is_encoder_decoder:
            write_encoder_decoder(student, folder, config.quantize)
            graphs = _Graphs("standard", "an encoder-decoder")
        else:
            graphs = _write_graphs(student, folder, out, config, None if config.fresh else previous)
        # 2. tokenizer and settings
        with storage_errors(out):
            _copy_files(student, folder)
        codec = Codec.load(folder)  # a graph without sliding windows ends the context
        prompts = _parity_prompts(codec, parity_questions, config.num_parity_prompts)
        # 3. the graphs compute what torch computes
        files = GraphFiles(folder)
        allowed, threads = config.max_logit_difference, torch.get_num_threads()
        parity = check_parity(model, open_standard(files, codec, threads), prompts, codec.max_context, allowed)
        if graphs.kind != "standard":
            for path in (files.engine, files.lanes):
                generator = PackedGenerator(PackedGraph(path, threads))
                parity = check_engine_parity(model, generator, prompts, codec.max_context, allowed, parity)
                generator.close()
        # 4. so does the quantized one, nearly
        quantized = GraphFiles(folder, config.quantize) if config.quantize != "none" else None
        difference = _quantized_difference(quantized, codec, model, prompts) if quantized is not None else None
        results.append(
            ExportResult(
                folder=out,
                model=out / files.standard.name,
                quantized=out / quantized.standard.name if quantized is not None else None,
                graphs=graphs.kind,
                unserved=graphs.unserved,
                parity=parity,
                max_context=codec.max_context,
                num_positions=getattr(model.config, "max_position_embeddings", codec.max_context),
                quantized_logit_difference=difference,
                model_bytes=_num_bytes(files),
                quantized_bytes=_num_bytes(quantized) if quantized is not None else 0,
                seconds=time.perf_counter() - start,
            )
        )

    make_folder(out, fill)
    (result,) = results
    return result


def _parity_prompts(codec: Codec, questions: Sequence[Question], num_prompts: int) -> list[list[int]]:
    """The first prompts that leave room for a completion."""
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


@dataclass(frozen=True, slots=True)
class _Graphs:
    kind: GraphKind
    unserved: str | None = None


def _write_graphs(student: Path, folder: Path, out: Path, config: ExportConfig, previous: Path | None) -> _Graphs:
    """Write the fp32 graphs and the quantized ones, if any."""
    precisions: tuple[Precision, ...] = ("fp32",) if config.quantize == "none" else ("fp32", config.quantize)
    with storage_errors(out):
        if previous is not None:
            try:
                swap_weights(previous, student, folder, precisions)
                return _Graphs("swapped")
            except GraphMismatchError:  # another architecture, or no graphs to swap weights into
                _clear(folder)
        try:
            graph = traced_graph(student, folder / "scratch")
            has_open_past = is_guessed(read_json(student / "config.json"))
            for precision in precisions:
                write_student_graphs(graph, folder, precision, has_open_past=has_open_past)
            return _Graphs("fused")
        except UnservedArchitectureError as error:
            unserved = str(error)
        except (EdgeeladError, OSError):
            raise
        except Exception as error:  # torch's tracer and Optimum raise whatever the model's code raises
            raise cannot_export(student, error) from error
        finally:
            shutil.rmtree(folder / "scratch", ignore_errors=True)
        _clear(folder)
        write_standard_graphs(student, folder, config.quantize)
    return _Graphs("standard", unserved)


def _clear(folder: Path) -> None:
    """Remove what a failed attempt has written."""
    for path in folder.iterdir():
        path.unlink()


def _quantized_difference(
    files: GraphFiles, codec: Codec, model: PreTrainedModel, prompts: Sequence[list[int]]
) -> float:
    """The largest difference of the quantized graph's logits from torch's."""
    graph = open_standard(files, codec, torch.get_num_threads())
    return largest_difference(model, graph, prompts[:NUM_QUANTIZED_PROMPTS])


def _copy_files(student: Path, folder: Path) -> None:
    for name in (*STUDENT_FILES, *OPTIONAL_FILES):
        source = student / name
        if not source.is_file() and name in STUDENT_FILES:
            raise ModelError(f"{source}: missing; prepare the student again")
        if source.is_file():
            shutil.copyfile(source, folder / name)


def _num_bytes(files: GraphFiles) -> int:
    """Bytes of the graphs with standard names and the file of their weights, if they have one."""
    return sum(path.stat().st_size for path in (files.encoder, files.standard, files.weights) if path.exists())
