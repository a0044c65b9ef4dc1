"""Export a student into a new folder: its graphs, checked against torch, quantized, with its tokenizer and settings.

The graphs are the fused ones, if possible the last round's with this student's weights. If GroupQueryAttention cannot
express the student, they are Optimum's own, which score and generate more slowly.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from edgeelad.config import ExportConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import GraphFiles, Precision
from edgeelad.engine.open import open_standard
from edgeelad.engine.packed.generator import PackedGenerator
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.shape import read_json
from edgeelad.errors import EdgeeladError, ModelError
from edgeelad.export.agreement import forced_agreement, write_agreement, write_texts
from edgeelad.export.empty_past import is_guessed
from edgeelad.export.encoder_decoder import write_encoder_decoder
from edgeelad.export.fused.build import traced_graph, write_quantized_graphs, write_student_graphs
from edgeelad.export.fused.modules import UnservedArchitectureError
from edgeelad.export.fused.swap import GraphMismatchError, swap_weights
from edgeelad.export.parity import check_engine_parity, check_parity
from edgeelad.export.questions import BUILT_IN, NUM_MEASURED, NUM_TEXTS
from edgeelad.export.result import Agreement, ExportResult, GraphKind
from edgeelad.export.standard import cannot_export, write_quantized_standard, write_standard_graph
from edgeelad.files import make_folder, storage_errors
from edgeelad.records import Question
from edgeelad.text.prompts import PROMPT_FILE
from edgeelad.training.extra import quiet
from edgeelad.training.load import load_config, load_model
from edgeelad.training.save import refuse_existing

# the student's files that are copied; not every student has the optional ones
STUDENT_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", PROMPT_FILE)
OPTIONAL_FILES = ("special_tokens_map.json", "chat_template.jinja")


def export_student(
    student: Path, out: Path, config: ExportConfig, parity_questions: Sequence[Question], previous: Path | None
) -> ExportResult:
    """Export, check and quantize a student; see `edgeelad.export.export_student`."""
    start = time.perf_counter()
    refuse_existing(out)
    _parity_prompts(Codec.load(student), parity_questions, config.num_parity_prompts)  # before anything is traced
    results: list[ExportResult] = []

    def fill(folder: Path) -> None:
        # 1. the fp32 graphs
        with quiet():
            load_config(str(student))
            model = load_model(str(student))
        if model.config.is_encoder_decoder:
            write_encoder_decoder(student, folder, config.quantize)
            graphs = _Graphs("standard", "an encoder-decoder")
        else:
            graphs = _write_graphs(student, folder, out, None if config.fresh else previous)
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
        num_positions = getattr(model.config, "max_position_embeddings", codec.max_context)
        del model  # quantizing takes as much memory again
        # 4. the quantized ones follow them
        quantized, agreement = None, None
        if config.quantize != "none":
            with storage_errors(out):
                quantized, agreement = _quantize(files, config.quantize, graphs.kind, codec, parity_questions, threads)
        results.append(
            ExportResult(
                folder=out,
                model=out / files.standard.name,
                quantized=out / quantized.standard.name if quantized is not None else None,
                graphs=graphs.kind,
                unserved=graphs.unserved,
                parity=parity,
                max_context=codec.max_context,
                num_positions=num_positions,
                precision="fp32" if config.quantize == "none" else config.quantize,
                agreement=agreement,
                model_bytes=_num_bytes(files),
                quantized_bytes=_num_bytes(quantized) if quantized is not None else 0,
                seconds=time.perf_counter() - start,
            )
        )

    make_folder(out, fill)
    (result,) = results
    return result


def _parity_prompts(codec: Codec, questions: Sequence[Question], num_prompts: int) -> list[list[int]]:
    """The first prompts that leave room for a completion; a built-in question's if there are none."""
    prompts = list(islice(_prompts_that_fit(codec, questions), num_prompts))
    prompts = prompts or list(islice(_prompts_that_fit(codec, BUILT_IN), 1))
    if not prompts:
        raise ModelError(f"no prompt fits the student's context of {codec.max_context} tokens; choose another student")
    return prompts


def _prompts_that_fit(codec: Codec, questions: Iterable[Question]) -> Iterator[list[int]]:
    return (prompt for prompt in map(codec.encode_prompt, questions) if len(prompt) < codec.max_context)


def _quantize(
    files: GraphFiles, precision: Precision, kind: GraphKind, codec: Codec, questions: Sequence[Question], threads: int
) -> tuple[GraphFiles, Agreement]:
    """Write the quantized graphs beside the fp32 ones, and measure how closely they follow them.

    Of the texts that the fp32 student writes, the first measure and the others calibrate.
    """
    is_calibrated = not files.encoder.exists()  # an encoder-decoder is quantized as it is written, without texts
    asked = dict.fromkeys((*questions, *BUILT_IN))  # an export without a pool takes the built-in ones for both
    prompts = list(islice(_prompts_that_fit(codec, asked), NUM_TEXTS if is_calibrated else NUM_MEASURED))
    texts = write_texts(files.folder, codec, prompts, threads)
    num_held_out = min(NUM_MEASURED, (len(texts) + 1) // 2) if is_calibrated else len(texts)
    held_out, others = texts[:num_held_out], texts[num_held_out:]
    quantized = GraphFiles(files.folder, precision)
    if is_calibrated:
        write = write_quantized_standard if kind == "standard" else write_quantized_graphs
        write(files, files.folder, precision, [text.ids for text in others], threads)
    reference, graph = (open_standard(either, codec, threads) for either in (files, quantized))
    agreement = forced_agreement(reference, graph, held_out)
    write_agreement(files.folder, precision, agreement)
    return quantized, agreement


@dataclass(frozen=True, slots=True)
class _Graphs:
    kind: GraphKind
    unserved: str | None = None


def _write_graphs(student: Path, folder: Path, out: Path, previous: Path | None) -> _Graphs:
    """Write the fp32 graphs."""
    with storage_errors(out):
        if previous is not None:
            try:
                swap_weights(previous, student, folder)
                return _Graphs("swapped")
            except GraphMismatchError:  # another architecture, or no graphs to swap weights into
                _clear(folder)
        try:
            graph = traced_graph(student, folder / "scratch")
            write_student_graphs(graph, folder, has_open_past=is_guessed(read_json(student / "config.json")))
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
        write_standard_graph(student, folder)
    return _Graphs("standard", unserved)


def _clear(folder: Path) -> None:
    """Remove what a failed attempt has written."""
    for path in folder.iterdir():
        path.unlink()


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
