"""The seam to what traces a student into ONNX: Optimum with transformers 4, torch's own exporter with transformers 5.

optimum-onnx 0.1.0, the newest release, holds transformers below 4.58. If it is installed, it traces; otherwise the
student is traced here, with the inputs, outputs and names that Optimum gives. Everything after the raw graph is the
same. All that depends on which of the two is installed is in this module (docs/adr/0001).
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicCache

from edgeelad.errors import ModelError
from edgeelad.export.fused.ops import OPSET
from edgeelad.export.fused.patch import FusedAttention
from edgeelad.training.extra import quiet
from edgeelad.training.support import EXPORT_TASK, SEQ2SEQ_TASK, has_optimum

RAW_GRAPH = "model.onnx"
OTHER_INSTALL = "pip install 'edgeelad[distill]', which exports it with Optimum,"


def trace_standard(student: Path, out: Path) -> Path:
    """Export a student as Optimum does; returns the path of the graph.

    Raises:
        ModelError: Optimum is not installed.
    """
    if not has_optimum():
        raise ModelError(
            f"{student}: this student has no fused graph, and transformers 5 is served by fused graphs only; "
            f"{OTHER_INSTALL} or choose a student of a fused family"
        )
    _optimum_export(student, out)
    return out / RAW_GRAPH


def trace_encoder_decoder(student: Path, out: Path) -> tuple[Path, Path, Path]:
    """Export an encoder-decoder as Optimum does, with the decoder's attention mask as an input.

    Returns:
        The paths of the encoder, of the decoder without cache, and of the decoder with cache.

    Raises:
        ModelError: Optimum is not installed.
    """
    if not has_optimum():
        raise ModelError(f"{student}: encoder-decoders are not exported on transformers 5; {OTHER_INSTALL} for it")
    names = ("decoder_model", "decoder_with_past_model")
    configs = _masked_configs(AutoConfig.from_pretrained(student))
    _optimum_export(student, out, task=SEQ2SEQ_TASK, custom_onnx_configs=dict(zip(names, configs, strict=True)))
    return out / "encoder_model.onnx", out / f"{names[0]}.onnx", out / f"{names[1]}.onnx"


def trace_fused(student: Path, config: PretrainedConfig, out: Path) -> Path:
    """Trace a student whose attention, norms and activations are replaced by fused operators.

    Args:
        student: A transformers folder with safetensors.
        config: Its configuration.
        out: The folder to write into; created if missing.

    Returns:
        The path of the raw graph, with Optimum's input and output names.
    """
    with quiet():
        if has_optimum():
            _optimum_export(student, out, custom_onnx_configs={"model": _optimum_config(config)})
        else:
            out.mkdir(parents=True, exist_ok=True)
            _own_export(student, config, out / RAW_GRAPH)
    return out / RAW_GRAPH


def _optimum_export(student: Path, out: Path, task: str = EXPORT_TASK, **options: Any) -> None:
    """Run Optimum's exporter without its validation: it compares one made-up input, and `parity` compares more."""
    from optimum.exporters.onnx import main_export

    main_export(
        str(student),
        out,
        task=task,
        framework="pt",
        library_name="transformers",
        local_files_only=True,
        do_validation=False,
        no_post_process=True,
        **options,
    )


def _optimum_config(config: PretrainedConfig) -> Any:
    """The stock OnnxConfig of the family, with our patcher and without the session that fixes dynamic axes."""
    import optimum.exporters.onnx.model_configs  # noqa: F401  # fills TasksManager's table
    from optimum.exporters.onnx.model_patcher import ModelPatcher
    from optimum.exporters.tasks import TasksManager

    class Patcher(ModelPatcher):
        """Optimum's patches, and within them ours."""

        _fused: AbstractContextManager[Any]

        def __enter__(self) -> Patcher:
            super().__enter__()
            self._fused = FusedAttention(self._model)
            self._fused.__enter__()
            return self

        def __exit__(self, *error: Any) -> None:
            self._fused.__exit__(*error)
            super().__exit__(*error)

    # decoders share one layout of inputs and outputs; Optimum does not know all of them by name, and leaves out
    # position_ids for some
    known = "gpt2" if config.model_type == "gpt2" else "qwen3"
    constructor = TasksManager.get_exporter_config_constructor(
        exporter="onnx", model_type=known, task="text-generation", library_name="transformers"
    )
    if getattr(config, "num_key_value_heads", None) is None:  # GPT-NeoX has as many as heads
        config = copy.copy(config)
        config.num_key_value_heads = config.num_attention_heads
    onnx_config = constructor(config, use_past=True, use_past_in_inputs=True)
    onnx_config._MODEL_PATCHER = Patcher
    onnx_config.fix_dynamic_axes = lambda *args, **kwargs: None
    return onnx_config


def _masked_configs(config: PretrainedConfig) -> tuple[Any, Any]:
    """OnnxConfigs of T5's decoder without and with cache, both with an attention mask over its own tokens.

    Optimum's have none, so that only rows of the same length can be decoded together; and they trace the one with
    cache with a single new token, which leaves out the causal mask of several.
    """
    from optimum.exporters.onnx.base import ConfigBehavior
    from optimum.exporters.onnx.model_configs import T5OnnxConfig

    class Masked(T5OnnxConfig):
        """T5's decoder with its attention mask."""

        PAD_ATTENTION_MASK_TO_PAST = True

        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            past = "past_decoder_sequence_length + " if self.use_past_in_inputs else ""
            return {**super().inputs, "decoder_attention_mask": {0: "batch_size", 1: f"{past}decoder_sequence_length"}}

        def overwrite_shape_and_generate_input(
            self, dummy_input_gen: Any, input_name: str, framework: str, input_shapes: dict[str, int]
        ) -> Any:
            return dummy_input_gen.generate(
                input_name, framework=framework, int_dtype=self.int_dtype, float_dtype=self.float_dtype
            )

    made = [
        Masked(
            config,
            task="text2text-generation",
            use_past=True,
            use_past_in_inputs=has_past,
            behavior=ConfigBehavior.DECODER,
        )
        for has_past in (False, True)
    ]
    return made[0], made[1]


def _own_export(student: Path, config: PretrainedConfig, path: Path) -> None:
    """Trace with torch's TorchScript exporter, as Optimum does, over inputs of our own."""
    model = AutoModelForCausalLM.from_pretrained(student, dtype=torch.float32).eval()
    inputs, names = _dummy_inputs(config)
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in names if "past" in name)]
    tokens = {0: "batch_size", 1: "sequence_length"}
    past, total = {0: "batch_size", 2: "past_sequence_length"}, {0: "batch_size", 2: "total_sequence_length"}
    axes: dict[str, dict[int, str]] = {"input_ids": tokens, "position_ids": tokens, "logits": tokens}
    axes["attention_mask"] = {0: "batch_size", 1: "total_sequence_length"}
    axes |= {name: past for name in names if name.startswith("past")}
    axes |= {name: total for name in outputs if name.startswith("present")}
    with torch.no_grad(), FusedAttention(model), _plain_cache(model):
        torch.onnx.export(
            model,
            inputs,
            str(path),
            input_names=names,
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )


@contextmanager
def _plain_cache(model: PreTrainedModel) -> Iterator[None]:
    """Let a causal LM take its KV cache as plain tensors and return logits and the present keys and values.

    The model itself is patched, not wrapped: the graph's weights keep the parameters' names.
    """
    inner = model.forward
    cache_name = "cache" if "cache" in inspect.signature(inner).parameters else "past_key_values"

    def forward(input_ids: Tensor, attention_mask: Tensor, position_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        cache = DynamicCache()
        for layer, (key, value) in enumerate(zip(past[::2], past[1::2], strict=True)):
            cache.update(key, value, layer)
        output = inner(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
            **{cache_name: cache},
        )
        present = [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]
        return (output.logits, *present)

    model.forward = forward
    try:
        yield
    finally:
        model.forward = inner


def _dummy_inputs(config: PretrainedConfig) -> tuple[tuple[Tensor, ...], list[str]]:
    """Inputs of two rows, five cached and three new tokens, and their names."""
    rows, cached, new = 2, 5, 3
    num_heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or num_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // num_heads
    inputs = [
        torch.ones(rows, new, dtype=torch.long),
        torch.ones(rows, cached + new, dtype=torch.long),
        torch.arange(cached, cached + new).repeat(rows, 1),
    ]
    names = ["input_ids", "attention_mask", "position_ids"]
    for layer in range(config.num_hidden_layers):
        for part in ("key", "value"):
            inputs.append(torch.zeros(rows, kv_heads, cached, head_dim))
            names.append(f"past_key_values.{layer}.{part}")
    return tuple(inputs), names
