"""Load a causal LM and its tokenizer from a folder or the hub: safetensors only, no remote code, typed errors.

Loads torch models in float32 on the CPU, whatever their saved type: training keeps float32 weights, and the export is
compared with torch in float32. Does not change what it loads.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    __version__,
)
from transformers import PreTrainedTokenizerFast as FastTokenizer
from transformers.generation.utils import GenerationMixin
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import cached_file

from edgeelad.errors import ModelError
from edgeelad.training.checkpoint import check_architecture, check_no_code, check_shapes, check_weights
from edgeelad.training.support import (
    ENCODER_DECODERS,
    has_standard_export,
    is_multimodal,
    served_families,
    transformers_major,
    unfused_reason,
)
from edgeelad.training.translate import NEW_KEYS, UntranslatableError, translate_config, translate_tokenizer

PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
NO_TOKENIZER = "{}: no tokenizer.json in this folder; save the tokenizer there with save_pretrained"


def find_model(model: str) -> str:
    """Resolve `model` to a folder or a hub id.

    Raises:
        ModelError: It names a folder that does not exist, or a file.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise ModelError(f"{model}: a file, not a model folder; give the folder that holds its config.json")
    if not HUB_ID.fullmatch(model) or model.startswith("."):
        raise ModelError(f"{model}: no such folder, and not a Hugging Face id (owner/name) either; check student.model")
    return model


def load_config(source: str) -> PretrainedConfig:
    """Load the configuration of a causal LM that can be trained and exported here.

    Raises:
        ModelError: It is missing, needs remote code, is no causal LM, is quantized, cannot be exported, or was saved by
            transformers 5 and has no equal in the version that is installed.
    """
    if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
        # transformers would guess an architecture from the folder's name
        raise ModelError(f"{source}: no config.json in this folder; give a folder that save_pretrained wrote")
    data = _read_settings(source)
    name = data.get("model_type")
    if isinstance(name, str) and name not in CONFIG_MAPPING and "auto_map" not in data:
        raise ModelError(f"{source}: transformers {__version__} does not know model type {name!r}; {served_families()}")
    with _model_errors(source):
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if transformers_major() < 5 and data.keys() & NEW_KEYS:
        config = _translated(source, data, type(config))
    kind = config.model_type
    if is_multimodal(config):
        raise ModelError(f"{source}: model type {kind!r} is multimodal; choose a text model; {served_families()}")
    is_decoder = kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not getattr(config, "is_encoder_decoder", False)
    if not is_decoder and kind not in ENCODER_DECODERS:
        raise ModelError(
            f"{source}: model type {kind!r} is not a causal language model; choose one that writes text; "
            f"{served_families()}"
        )
    check_architecture(source, config)
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{source}: its weights are quantized and cannot be trained; choose the unquantized model")
    reason = unfused_reason(config)
    if reason is not None and not has_standard_export(kind):
        what = reason.removeprefix(f"model type {kind}: ")
        raise ModelError(f"{source}: model type {kind!r} cannot be exported to ONNX here ({what}); {served_families()}")
    return config


def load_model(source: str, config: PretrainedConfig | None = None) -> PreTrainedModel:
    """Load the model in float32, in evaluation mode, with exactly the weights of its safetensors.

    Args:
        source: A folder or hub id.
        config: As `load_config` gives it; None: the one that is there, for folders that were written here.

    Raises:
        ModelError: No safetensors; damaged, missing, left-over or infinite weights; weights of another shape than the
            configuration's.
    """
    if config is None:
        _read_settings(source)
    with _model_errors(source), _no_code_of_its_own():
        config = config or AutoConfig.from_pretrained(source, trust_remote_code=False)
        # torch's own attention silently leaves out Gemma 2's soft cap
        has_softcap = getattr(config, "attn_logit_softcapping", None) is not None
        head = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        model, info = head.from_pretrained(
            source,
            config=config,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            attn_implementation="eager" if has_softcap else None,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked below
        )
        folder = Path(cached_file(source, "config.json")).parent
    check_shapes(source, folder, model, info["mismatched_keys"])
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelError(f"{source}: {len(missing)} weights are missing from its safetensors, the first {missing[0]}")
    check_weights(source, folder, model, info["unexpected_keys"])
    return model.eval()


def load_tokenizer(source: str) -> FastTokenizer:
    """Load the fast tokenizer, the only kind that runs on devices.

    Raises:
        ModelError: There is no tokenizer, its special tokens are not named, or it has no fast form.
    """
    if Path(source).is_dir() and not (Path(source) / "tokenizer_config.json").is_file():
        # transformers would take the family's usual special tokens, which may be none of this tokenizer's
        raise ModelError(
            f"{source}: no tokenizer_config.json in this folder, so its special tokens are unknown; save the tokenizer "
            "there with save_pretrained"
        )
    with _model_errors(source):
        named = get_tokenizer_config(source)
        changes = translate_tokenizer(named) if transformers_major() < 5 else {}
        # transformers 5 would take the family's class, which may add special tokens to a plain tokenizer
        kind = FastTokenizer if changes or named.get("tokenizer_class") in PLAIN_TOKENIZERS else AutoTokenizer
        tokenizer = kind.from_pretrained(source, trust_remote_code=False, use_fast=True, **changes)
    if not isinstance(tokenizer, FastTokenizer):
        raise ModelError(
            f"{source}: its tokenizer has no fast form (tokenizer.json), which the edge needs; "
            "convert it with transformers, or choose another model"
        )
    files = {"tokenizer.json", *type(tokenizer).vocab_files_names.values()}
    if Path(source).is_dir() and not any((Path(source) / name).is_file() for name in files):
        raise ModelError(NO_TOKENIZER.format(source))  # transformers 5 makes a tokenizer without a vocabulary
    return tokenizer


def _read_settings(source: str) -> dict[str, Any]:
    """Read a `config.json` before transformers acts on it.

    Raises:
        ModelError: It cannot be read, or asks for code from a repository.
    """
    with _model_errors(source):
        data, _ = PretrainedConfig.get_config_dict(source)
    check_no_code(source, data)
    return dict(data)


@contextmanager
def _no_code_of_its_own() -> Iterator[None]:
    """Keep `from_pretrained` from looking for `custom_generate/generate.py`.

    Transformers 4 runs that file of a local folder without asking, and writes that of a repository to its cache
    (CVE-2026-80047). An OSError tells it that there is none.
    """

    def find_none(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("custom generation code is never loaded")

    original = GenerationMixin.load_custom_generate
    GenerationMixin.load_custom_generate = find_none
    try:
        yield
    finally:
        GenerationMixin.load_custom_generate = original


def _translated(source: str, data: dict[str, Any], family: type[PretrainedConfig]) -> PretrainedConfig:
    accepted = frozenset(inspect.signature(family.__init__).parameters)
    try:
        settings = translate_config(data, accepted)
    except UntranslatableError as error:
        raise ModelError(f"{source}: saved by transformers 5: {error}; choose another model") from error
    with _model_errors(source):
        return family.from_dict(settings)


@contextmanager
def _model_errors(source: str) -> Iterator[None]:
    """Turn any error that transformers raises while it loads a model into a ModelError of one line."""
    try:
        yield
    except SafetensorError as error:
        raise ModelError(f"{source}: damaged safetensors file ({error}); download or save the model again") from error
    except HFValidationError as error:
        raise ModelError(f"{source}: not a Hugging Face id ({_first_line(error)}); check student.model") from error
    except Exception as error:  # what a damaged configuration or tokenizer makes transformers raise has no common base
        raise ModelError(_explain(source, error)) from error


def _explain(source: str, error: Exception) -> str:
    """Explain in one line why a model could not be loaded, and what to do."""
    text = str(error)
    if "trust_remote_code" in text:
        return f"{source}: needs code from its repository, which is never run; choose an architecture of transformers"
    if not Path(source).is_dir():
        return f"{source}: no such folder, and it cannot be fetched from the Hugging Face Hub ({_first_line(error)})"
    if "model type" in text or "model_type" in text:
        return f"{source}: transformers does not know this architecture ({_first_line(error)}); {served_families()}"
    if Path(source).is_dir() and ("NoneType" in text or "backend tokenizer" in text):
        return NO_TOKENIZER.format(source)
    if "safetensors" in text:
        return f"{source}: no safetensors weights (pickled weights are never read); save the model as safetensors"
    return f"{source}: cannot be loaded: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0].rstrip(".:") if lines else type(error).__name__
