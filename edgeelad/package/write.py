"""Write a package: everything that an edge device needs, in one folder that appears complete or not at all.

It is filled under a temporary name beside its place, the manifest last, and then renamed. A package of edgeelad that
is already there is replaced; any other folder is left alone.
"""

from __future__ import annotations

import platform
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeelad import __version__
from edgeelad.engine.graph_files import AGREEMENT_FILE, ONNX_FOLDER, GraphFiles, Precision
from edgeelad.engine.session import MIN_ONNXRUNTIME
from edgeelad.engine.shape import read_json
from edgeelad.errors import PackageError
from edgeelad.files import make_folder, restore_folder, storage_errors, write_json
from edgeelad.package.card import write_card
from edgeelad.package.golden import GoldenStudent, make_golden, write_golden
from edgeelad.package.info import PackageInfo
from edgeelad.package.manifest import (
    CARD_FILE,
    MANIFEST_FILE,
    Manifest,
    describe_file,
    is_card_edited,
    parse_manifest,
    printable,
    read_manifest,
)
from edgeelad.package.open import running_graph
from edgeelad.package.runtimes import write_runtime_settings
from edgeelad.text.explanation import ANSWER_PREFIX
from edgeelad.text.prompts import PROMPT_FILE, PromptFormat

REQUIRED_FILES = ("config.json", "tokenizer.json", PROMPT_FILE)
# chat_template.jinja stays behind: the package's chat template, in tokenizer_config.json, is the student's own prompt
OPTIONAL_FILES = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


def write_package(onnx_folder: Path, out: Path, info: PackageInfo) -> Path:
    """Write the package of an exported student; returns `out`.

    Args:
        onnx_folder: The exported student (graphs, tokenizer, configuration, prompt).
        out: The package's folder: a new one, an empty one, or a package of edgeelad, which is replaced.
        info: The facts that the package states about its student.

    Raises:
        PackageError: The exported student lacks a file, or `out` is something that edgeelad did not write.
        ModelError: The graph cannot be run.
        StorageError: The package cannot be written; what was at `out` is unchanged.
    """
    _check_source(onnx_folder, info)
    restore_folder(out)
    is_replaced = _check_target(out)
    make_folder(out, lambda folder: _fill(folder, onnx_folder, info), is_replaced=is_replaced)
    return out


def _check_source(onnx_folder: Path, info: PackageInfo) -> None:
    needed = [*REQUIRED_FILES, *(GraphFiles(onnx_folder, precision).standard.name for precision in _precisions(info))]
    missing = [name for name in needed if not (onnx_folder / name).is_file()]
    if missing:
        raise PackageError(
            f"{onnx_folder}: {', '.join(missing)} missing; export the student again with `edgeelad export`"
        )


def _precisions(info: PackageInfo) -> tuple[Precision, ...]:
    """The precisions that ship; the one that runs comes first."""
    if info.quantization == "fp32":
        return ("fp32",)
    return (info.quantization, "fp32") if info.include_fp32 else (info.quantization,)


def _check_target(out: Path) -> bool:
    """Whether `out` is an empty folder or a package, to be replaced; an error if it is anything else that exists."""
    if not out.exists() and not out.is_symlink():
        return False
    if out.is_dir() and not out.is_symlink():
        if not any(out.iterdir()):
            return True
        foreign = _foreign_files(out)
        if not foreign:
            return True
        raise PackageError(
            f"{out}: contains {foreign[0]}, which edgeelad did not write or which was edited, and is not replaced; "
            "move it away first"
        )
    raise PackageError(f"{out}: exists and is not a folder; choose another place for the package")


def _foreign_files(folder: Path) -> list[str]:
    """Files in a folder that are not part of an edgeelad package in it."""
    there = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    try:
        manifest = read_manifest(folder)
    except PackageError:
        return there  # not a package that this edgeelad can read, so it replaces nothing there
    ours = {MANIFEST_FILE, *manifest.paths}
    return [path for path in there if path not in ours or (path == CARD_FILE and is_card_edited(folder, manifest))]


def _fill(folder: Path, onnx_folder: Path, info: PackageInfo) -> None:
    """Write all files of a package, the manifest last."""
    for name in (*REQUIRED_FILES, *OPTIONAL_FILES):
        if (onnx_folder / name).is_file():
            _copy(onnx_folder / name, folder / name)
    precisions = _precisions(info)
    for precision in precisions:
        sources = GraphFiles(onnx_folder, precision)
        leaves_lanes = sources.lanes_weights.is_file() and not info.include_scoring
        left_out = (sources.rows, sources.lanes, sources.lanes_weights) if leaves_lanes else ()
        for source, target in zip(sources.files, GraphFiles(folder / ONNX_FOLDER, precision).files, strict=True):
            if source.is_file() and source not in left_out:
                _copy(source, target)
    write_runtime_settings(folder, GraphFiles(folder / ONNX_FOLDER, precisions[0]), info.max_explanation_tokens)
    golden = make_golden(GoldenStudent(folder, precisions[0]), info.all_golden)
    if not golden:
        raise PackageError(f"{onnx_folder}: no question fits this student's context, so no output can be recorded")
    write_golden(folder, golden)
    prompt = PromptFormat.load(folder)
    manifest = Manifest(
        name=printable(info.served_name),
        base_model=printable(_public_name(info.base_model)),
        quantization=info.quantization,
        graph=running_graph(folder, precisions[0]),
        standard_graph=GraphFiles(folder / ONNX_FOLDER, precisions[0]).standard.relative_to(folder).as_posix(),
        prompt={"file": PROMPT_FILE, "is_chat": prompt.is_chat},
        answer_kind=info.answer_kind,
        answer_format=f"{ANSWER_PREFIX} A",
        max_explanation_tokens=info.max_explanation_tokens,
        metrics={**info.metrics, **_agreement(onnx_folder, info)},
        certificate=None if info.certificate is None else info.certificate.to_json(),
        versions=_versions(),
        oldest_onnxruntime=MIN_ONNXRUNTIME,
    )
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    write_card(folder, manifest, info.certificate, info.all_golden[0].text, size)
    paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    files = tuple(describe_file(folder, path) for path in paths)
    content = replace(manifest, files=files).to_json()
    parse_manifest(content, str(folder / MANIFEST_FILE))  # what is written can be read
    write_json(folder / MANIFEST_FILE, content)


def _agreement(onnx_folder: Path, info: PackageInfo) -> dict[str, Any]:
    """How closely the quantized graph that ships follows fp32, as the export measured it; nothing for fp32."""
    path = onnx_folder / AGREEMENT_FILE
    return {} if info.quantization == "fp32" or not path.is_file() else read_json(path)


def _copy(source: Path, target: Path) -> None:
    with storage_errors(target):
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(source, target)


def _public_name(base_model: str) -> str:
    """The base model without this machine's paths: only the name of a folder, or the Hugging Face id."""
    path = Path(base_model)
    return path.resolve().name if path.is_absolute() or path.exists() else base_model


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version  # slow to import, and not needed to open a package

    versions = {"edgeelad": __version__, "python": platform.python_version()}
    for name in ("onnxruntime", "tokenizers", "numpy", "torch", "transformers", "optimum-onnx"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
