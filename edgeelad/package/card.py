"""Write the model card: README.md of a package, with Hugging Face's metadata. It states only what was measured."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

import jinja2

from edgeelad.certificate import certificate_sentence
from edgeelad.engine.graph_files import ONNX_FOLDER, GraphFiles
from edgeelad.package.manifest import CARD_FILE, Manifest, printable
from edgeelad.package.runtimes import GENAI_FILE
from edgeelad.records import Certificate

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_LABELS = {
    "accuracy_fp32": "accuracy, fp32",
    "accuracy_int8": "accuracy, int8",
    "accuracy_int4": "accuracy, int4",
    "same_answers_as_fp32": "same answer as fp32",
    "token_agreement_int8": "same next token as fp32, int8",
    "token_agreement_int4": "same next token as fp32, int4",
    "num_test": "test questions",
    "annotated": "questions annotated by the teacher",
}


def write_card(folder: Path, manifest: Manifest, certificate: Certificate | None, example: str, num_bytes: int) -> None:
    """Write a package's model card.

    Args:
        folder: The package.
        manifest: The source of the card's facts; its files are not read.
        certificate: The last look at the audit, or None.
        example: A question to show in the commands.
        num_bytes: Size of the package.
    """
    files, fp32 = (GraphFiles(folder / ONNX_FOLDER, precision) for precision in (manifest.quantization, "fp32"))
    text = (
        _environment()
        .get_template("card.md.j2")
        .render(
            name=manifest.name,
            base_model=manifest.base_model,
            hub_id=_hub_id(manifest.base_model),
            graph=manifest.standard_graph,
            genai=(folder / GENAI_FILE).exists(),
            engine=manifest.graph if manifest.graph != manifest.standard_graph else None,
            quantization=manifest.quantization,
            is_encoder_decoder=files.encoder.is_file(),
            fp32=fp32.standard.name if manifest.quantization != "fp32" and fp32.standard.exists() else None,
            size_mb=f"{num_bytes / 1e6:.1f}",
            answer_kind=manifest.answer_kind,
            answer_format=manifest.answer_format,
            example=_shell_safe(example),
            accuracy=_shipped_accuracy(manifest),
            figures=[
                (_LABELS.get(name, _text(name)), _figure(name, value)) for name, value in manifest.metrics.items()
            ],
            certificate=certificate_sentence(certificate),
        )
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _hub_id(base_model: str) -> str | None:
    """The base model, if it is a Hugging Face id and not a folder of the machine that made the package."""
    return base_model if _HUB_ID.fullmatch(base_model) and not Path(base_model).exists() else None


def _shipped_accuracy(manifest: Manifest) -> float | None:
    value = manifest.metrics.get(f"accuracy_{manifest.quantization}")
    return round(float(value), 4) if isinstance(value, int | float) else None


def _figure(name: str, value: float | int | str | None) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float) and (name.startswith(("accuracy", "same_", "token_agreement"))):
        return f"{value:.1%}"
    return f"{value:,}" if isinstance(value, int) else _text(str(value))


def _text(text: str) -> str:
    """Text that cannot start markup or leave its line or table cell."""
    return re.sub(r"([\\`*_\[\]<>#|])", r"\\\1", printable(str(text)))


def _code(text: str) -> str:
    return f"`{printable(text.replace('`', ''))}`"


def _shell_safe(text: str) -> str:
    """A question that can stand between double quotes in a shell, on one line."""
    return printable(re.sub(r'["$`\\!]', "", text))[:200]


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(  # Markdown, not HTML: each value is escaped by its own filter
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["yaml"] = lambda value: json.dumps(value, ensure_ascii=False)  # JSON's strings are YAML's
    environment.filters["text"] = _text
    environment.filters["code"] = _code
    return environment
