"""Check that a checkpoint is the model that its config.json describes, and find the base of a LoRA adapter.

Transformers silently loads a classifier, an untied head that the configuration says is tied, the first layers of a
deeper model, and NaN weights. Each would be taught and exported, and pass parity.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from edgeelad.engine.shape import read_json
from edgeelad.errors import ModelError

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
KERNEL_KEY = re.compile("(attn|experts)_implementation")
# buffers that older versions saved with the weights, and that are computed today
COMPUTED = re.compile(r"(inv_freq|attn\.bias|attention\.bias|masked_bias|position_ids)$")


def adapter_base(source: str) -> str | None:
    """The model that a LoRA adapter in the folder `source` was trained on; None if there is no adapter.

    Raises:
        ModelError: The folder holds a model as well, or the adapter names no base.
    """
    folder = Path(source)
    if not (folder / ADAPTER_CONFIG).is_file():
        return None
    if (folder / "config.json").exists():
        raise ModelError(
            f"{source}: holds a model and an adapter; move {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} to a folder "
            "of their own, and name that folder to have the adapter merged"
        )
    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise ModelError(f"{folder / ADAPTER_CONFIG}: names no base_model_name_or_path; merge the adapter yourself")
    if (Path(base) / ADAPTER_CONFIG).exists():
        raise ModelError(f"{source}: an adapter on {base}, which holds an adapter itself; merge that one first")
    return base


def merge_adapter(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """Merge the LoRA adapter in the folder `source` into its base model.

    Raises:
        ModelError: It is not a LoRA adapter of this model, or not a finite one.
    """
    from peft import PeftModel

    if not (Path(source) / ADAPTER_WEIGHTS).is_file():
        raise ModelError(f"{source}: no {ADAPTER_WEIGHTS} (pickled weights are never read); save it as safetensors")
    try:
        adapted = PeftModel.from_pretrained(model, source)
        _check_adapter(source, adapted)
        merged: PreTrainedModel = adapted.merge_and_unload()
    except ModelError:
        raise
    except Exception as error:  # peft raises whatever a file that does not fit makes it raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(f"{source}: this adapter cannot be merged into its base model: {reason}") from error
    _check_finite(source, merged)
    return merged.eval()


def _check_adapter(source: str, adapted: Any) -> None:
    """Check that an adapter and its base have the same places for weights: peft skips a weight that has none."""
    from peft import get_peft_model_state_dict

    places = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    with safe_open(str(Path(source) / ADAPTER_WEIGHTS), framework="pt") as file:
        saved = set(file.keys())
    for names, what in ((places - saved, "lacks"), (saved - places, "has too many:")):
        wrong = sorted(name for name in names if "lora_" in name)  # embeddings may be saved with an adapter
        if wrong:
            raise ModelError(
                f"{source}: of the weights that its base model needs, this adapter {what} {len(wrong)}, such as "
                f"{wrong[0]}; it was trained on another model: correct base_model_name_or_path in {ADAPTER_CONFIG}"
            )


def check_no_code(source: str, settings: Any) -> None:
    """Refuse a `config.json` that asks transformers to fetch and run code, at any depth.

    Some versions do so although `trust_remote_code` is false: an attention implementation may name a repository of
    kernels (CVE-2026-4372, transformers 4.56 to 5.2), and LightGlue takes `trust_remote_code` from the file
    (CVE-2026-5241, below 5.5).

    Raises:
        ModelError: It asks for code.
    """
    for key, value in settings.items() if isinstance(settings, dict) else ():
        if (KERNEL_KEY.search(key) and "/" in str(value)) or (key == "trust_remote_code" and value):
            raise ModelError(
                f"{source}: its config.json asks for code from a repository ({key} = {value!r}), which is never run; "
                "do not use this model, or remove the entry if you know where it comes from"
            )
    for value in settings.values() if isinstance(settings, dict) else settings if isinstance(settings, list) else ():
        check_no_code(source, value)


def check_architecture(source: str, config: PretrainedConfig) -> None:
    """Refuse a checkpoint that was saved with another head than a language model's.

    Raises:
        ModelError: It is a classifier or another such model.
    """
    names = config.architectures or []
    known = [*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values(), *MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES.values()]
    writing = {name for entry in known for name in ([entry] if isinstance(entry, str) else entry)}
    if names and all("For" in name and name not in writing for name in names):
        raise ModelError(
            f"{source}: was saved as {names[0]}, not as a causal language model; choose a checkpoint that writes text"
        )


def check_weights(source: str, folder: Path, model: PreTrainedModel, unexpected: Sequence[str]) -> None:
    """Check that all saved weights are in the model, that they are finite, and that a tied head is tied.

    Args:
        source: The folder or hub id that errors name.
        folder: Where the safetensors are.
        model: The loaded model.
        unexpected: Names in the safetensors that the model has no weight for.

    Raises:
        ModelError: One of these checks fails.
    """
    left = sorted(name for name in unexpected if not COMPUTED.search(name))
    if left:
        raise ModelError(
            f"{source}: the model of its config.json lacks {len(left)} of the weights in its safetensors, such as "
            f"{left[0]}; they belong to another model, or to a head that no language model has"
        )
    _check_finite(source, model)
    _check_tied_head(source, folder, model)


def check_shapes(source: str, folder: Path, model: PreTrainedModel, mismatched: Iterable[Any]) -> None:
    """Check that weights have the shapes that the configuration says.

    Args:
        source: The folder or hub id that errors name.
        folder: Where the safetensors are.
        model: The loaded model.
        mismatched: The weights that do not: their names, or tuples that begin with them (transformers 5).

    Raises:
        ModelError: A weight has another shape.
    """
    names = sorted(entry if isinstance(entry, str) else entry[0] for entry in mismatched)
    if not names:
        return
    saved, expected = _saved_shape(folder, names[0]), list(model.get_parameter(names[0]).shape)
    is_table = expected[0] == model.config.vocab_size and saved is not None and saved[1:] == expected[1:]
    raise ModelError(
        f"{source}: {names[0]} is {saved or 'of another shape'} in its safetensors, and {expected} by its config.json; "
        f"correct {'vocab_size' if is_table else 'the sizes'} there"
    )


def _check_finite(source: str, model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if not bool(torch.isfinite(parameter).all()):
            raise ModelError(f"{source}: {name} contains NaN or infinity; choose another checkpoint")


def _check_tied_head(source: str, folder: Path, model: PreTrainedModel) -> None:
    head = model.get_output_embeddings()
    if head is None or not model.config.tie_word_embeddings:
        return
    names = [f"{name}.weight" for name, module in model.named_modules(remove_duplicate=False) if module is head]
    saved = _saved_tensor(folder, names)
    table = model.get_input_embeddings().weight
    # transformers 5 keeps a head that differs, even if the configuration says that it is tied
    if saved is not None and not torch.equal(saved.to(table.dtype), table):
        raise ModelError(
            f"{source}: its config.json says that head and embedding are tied, but its safetensors hold a {names[0]} "
            "of its own; set tie_word_embeddings to false there if the head is meant"
        )


def _saved_tensor(folder: Path, names: Sequence[str]) -> Tensor | None:
    for file, name in _saved(folder):
        if name in names:
            tensor: Tensor = file.get_tensor(name)
            return tensor
    return None


def _saved_shape(folder: Path, wanted: str) -> list[int] | None:
    return next((list(file.get_slice(name).get_shape()) for file, name in _saved(folder) if name == wanted), None)


def _saved(folder: Path) -> Iterator[tuple[Any, str]]:
    """Each open file of weights with each name in it."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # no dictionary
                yield file, name
