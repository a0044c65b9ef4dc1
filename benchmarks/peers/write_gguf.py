"""Convert a student's transformers folder to GGUF, for llama.cpp: Llama and Qwen2 with a byte-level BPE.

    python write_gguf.py STUDENT OUT.gguf Q8_0|Q4_0

As llama.cpp's own tools do: norms and biases stay fp32, the embedding, which is the head too, keeps 8 bits in either.
Runs in an environment of its own, which has gguf and safetensors.
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize
from numpy.typing import NDArray
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def main() -> None:
    """Read the student, write the file."""
    student, out, kind = Path(sys.argv[1]), sys.argv[2], gguf.GGMLQuantizationType[sys.argv[3]]
    config = json.loads((student / "config.json").read_text(encoding="utf-8"))
    family = config["model_type"]
    writer = gguf.GGUFWriter(out, family)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["hidden_size"] // config["num_attention_heads"])
    writer.add_rope_freq_base(float((config.get("rope_parameters") or config)["rope_theta"]))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, student, config["vocab_size"])
    for name, tensor in load_file(student / "model.safetensors").items():
        values = tensor.astype(np.float32)
        if family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            values = _interleave(values, heads)
        own = gguf.GGMLQuantizationType.F32
        if values.ndim == 2:
            own = gguf.GGMLQuantizationType.Q8_0 if name == "model.embed_tokens.weight" else kind
        writer.add_tensor(_name(name), quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, student: Path, vocab_size: int) -> None:
    """Add the vocabulary; prompts are sent as token ids, so how texts are split first makes no difference."""
    tokenizer = json.loads((student / "tokenizer.json").read_text(encoding="utf-8"))
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    names = {number: name for name, number in (tokenizer["model"]["vocab"] | added).items()}
    special = set(added.values())
    kinds = [gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL for number in range(vocab_size)]
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([names.get(number, f"[unused {number}]") for number in range(vocab_size)])
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    settings = json.loads((student / "generation_config.json").read_text(encoding="utf-8"))
    end = settings.get("eos_token_id", 0)
    writer.add_eos_token_id(end[0] if isinstance(end, list) else end)


def _name(name: str) -> str:
    if not name.startswith("model.layers."):
        return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[name]
    _, _, layer, rest = name.split(".", 3)
    stem, _, end = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[stem]}.{end}"


def _interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The rows of each head with its two rotary halves in turns, as llama.cpp rotates pairs of neighbors."""
    rows, width = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


if __name__ == "__main__":
    main()
