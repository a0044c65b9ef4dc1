"""Write the settings that other runtimes read in a package: Optimum, transformers.js and onnxruntime-genai.

    config.json               the file that transformers.js loads
    generation_config.json    greedy, up to the package's token limit
    tokenizer_config.json     the inputs that the graph has, and the prompt as a chat template
    genai_config.json         the graph's names and sizes, for onnxruntime-genai

All run the standard graph, and generate the package's golden outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgeelad.engine.codec import Codec
from edgeelad.engine.graph_files import ONNX_FOLDER, GraphFiles
from edgeelad.engine.shape import HEAD_KEYS, WIDTH_KEYS, cache_shape, first_number, read_json
from edgeelad.errors import PackageError
from edgeelad.files import write_json
from edgeelad.package.manifest import Manifest, printable
from edgeelad.text.chat_template import chat_template

CODE_SUFFIXES = (".so", ".dll", ".dylib", ".py")
GENAI_FILE = "genai_config.json"
TOKENIZER_FILE = "tokenizer_config.json"
GENERATION_FILE = "generation_config.json"


def write_runtime_settings(folder: Path, files: GraphFiles, max_tokens: int) -> None:
    """Write the settings of other runtimes into a package that has its graphs.

    Args:
        folder: The package.
        files: The graphs that ship.
        max_tokens: Maximum number of tokens to generate.

    Raises:
        ModelError: A file of the student is missing or damaged.
        StorageError: A file cannot be written.
    """
    codec = Codec.load(folder)
    config, generation = dict(codec.config), _read(folder / GENERATION_FILE)
    config.pop("auto_map", None)  # names code that the package does not have
    if not codec.is_encoder_decoder:
        config["transformers.js_config"] = _javascript(folder / ONNX_FOLDER, files)
    write_json(folder / "config.json", config)

    bos_id, pad_id = (_token_id(name, generation, config) for name in ("bos_token_id", "pad_token_id"))
    # top_k: the pipeline of transformers 4 samples all the same
    generation |= {"eos_token_id": sorted(codec.eos_ids), "do_sample": False, "top_k": 1, "max_new_tokens": max_tokens}
    write_json(folder / GENERATION_FILE, generation)

    if codec.is_encoder_decoder:  # run by Optimum alone, which reads nothing else
        return
    tokenizer = _read(folder / TOKENIZER_FILE)
    tokenizer.pop("auto_map", None)
    if tokenizer.get("tokenizer_class") in (None, "TokenizersBackend"):  # the name of transformers 5, unknown to others
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
    tokenizer["model_input_names"] = ["input_ids", "attention_mask"]
    tokenizer["chat_template"] = chat_template(codec.prompt_format, codec.prompt_prefix)
    write_json(folder / TOKENIZER_FILE, tokenizer)

    genai = _genai(codec, files, bos_id, pad_id)
    if genai is not None:
        write_json(folder / GENAI_FILE, genai)


def check_runtime_settings(folder: Path, manifest: Manifest) -> None:
    """Check that onnxruntime-genai's configuration names no library of operators and no file but the package's.

    It would load them without asking. transformers asks before it runs code that a configuration names.

    Raises:
        PackageError: It does.
    """
    for place, value in _walk(_read(folder / GENAI_FILE)):
        key, text = place.rpartition(".")[2], value if isinstance(value, str) else ""
        is_code = key == "custom_ops_library" or text.lower().endswith(CODE_SUFFIXES)
        if is_code or (key == "filename" and text not in manifest.paths):
            raise PackageError(
                f"{folder / GENAI_FILE}: {printable(place)[:80]} is {printable(text)[:80]!r}, which would be loaded "
                "and is not in the package; do not use this package"
            )


def _walk(settings: Any) -> Iterator[tuple[str, Any]]:
    """All keys of nested settings and indices of lists, with their values; keys as a path of names with dots."""
    waiting = [("", settings)]
    while waiting:
        place, value = waiting.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        found = [(f"{place}.{key}".strip("."), item) for key, item in items]
        yield from found
        waiting += found


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.exists() else {}


def _javascript(folder: Path, files: GraphFiles) -> dict[str, Any]:
    """The graph's dtype, by which transformers.js finds its file, and the graphs whose weights are in another file."""
    external = {path.name.removesuffix("_data"): 1 for path in sorted(folder.glob("model*.onnx_data"))}
    dtype = "fp32" if files.precision == "fp32" else "q8"  # of any quantized graph: q8 stands for the suffix _quantized
    return {"dtype": dtype, **({"use_external_data_format": external} if external else {})}


def _genai(codec: Codec, files: GraphFiles, bos_id: int | None, pad_id: int | None) -> dict[str, Any] | None:
    """The configuration of onnxruntime-genai; None if config.json does not state the shape of the KV cache."""
    shape = cache_shape(codec.config)
    if shape is None:
        return None
    sizes = {"hidden_size": WIDTH_KEYS, "num_attention_heads": HEAD_KEYS}
    special = {"bos_token_id": bos_id, "pad_token_id": pad_id}
    return {
        "model": {
            "type": "decoder",  # of any family: the graph and its names are all that matters
            "vocab_size": codec.vocab_size,
            "context_length": codec.max_context,
            "eos_token_id": sorted(codec.eos_ids),
            **{name: id_ for name, id_ in special.items() if id_ is not None},
            "decoder": {
                "session_options": {"log_id": "edgeelad", "provider_options": []},
                "filename": f"{ONNX_FOLDER}/{files.standard.name}",
                **{name: first_number(codec.config, keys) or 0 for name, keys in sizes.items()},
                "head_size": shape.head_dim,
                "num_hidden_layers": shape.num_layers,
                "num_key_value_heads": shape.num_heads,
                "inputs": {
                    **{name: name for name in ("input_ids", "attention_mask", "position_ids")},
                    "past_key_names": "past_key_values.%d.key",
                    "past_value_names": "past_key_values.%d.value",
                },
                "outputs": {
                    "logits": "logits",
                    "present_key_names": "present.%d.key",
                    "present_value_names": "present.%d.value",
                },
            },
        },
        "search": {"do_sample": False, "max_length": codec.max_context, "past_present_share_buffer": False},
    }


def _token_id(name: str, *settings: Mapping[str, Any]) -> int | None:
    """The first of some settings' ids of a special token."""
    ids = (found.get(name) for found in settings)
    return next((id_ for id_ in ids if isinstance(id_, int) and not isinstance(id_, bool)), None)
