"""Students with the shapes of published models and random weights: what speed depends on, without a download.

The tokenizer is trained on the texts at hand, split as these models' own tokenizers split (bytes, single digits), so
that numbers of tokens are close to theirs; ids that it does not use stay unused rows of the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from edgeelad.files import make_folder
from edgeelad.text.prompts import PromptFormat

EOS, PAD = "<|endoftext|>", "<|pad|>"
MAX_POSITIONS = 2048
# width, layers, heads, key-value heads, width of the MLP, vocabulary: config.json of SmolLM2-135M and Qwen2.5-0.5B
SHAPES: dict[str, dict[str, Any]] = {
    "smollm2-135m": {
        "family": "llama",
        "hidden_size": 576,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "intermediate_size": 1536,
        "vocab_size": 49152,
    },
    "qwen2.5-0.5b": {
        "family": "qwen2",
        "hidden_size": 896,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "intermediate_size": 4864,
        "vocab_size": 151936,
    },
    # for what does not depend on the student: many questions in little time
    "tiny": {
        "family": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 128,
        "vocab_size": 2048,
    },
}


def make_student(shape: str, texts: Iterable[str], folder: Path, seed: int = 0) -> None:
    """Write a random student of a shape as a transformers folder; nothing is done where the folder exists.

    Args:
        shape: A name in `SHAPES`.
        texts: What its tokenizer is trained on.
        folder: Where.
        seed: Of the weights.
    """
    if folder.exists():
        return

    def fill(made: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

        config = {key: value for key, value in SHAPES[shape].items() if key != "family"}
        tokenizer = train_tokenizer(texts, config["vocab_size"])
        eos, pad = tokenizer.token_to_id(EOS), tokenizer.token_to_id(PAD)
        config_class = {"llama": LlamaConfig, "qwen2": Qwen2Config}[SHAPES[shape]["family"]]
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(
            config_class(
                **config,
                tie_word_embeddings=True,
                max_position_embeddings=MAX_POSITIONS,
                bos_token_id=eos,
                eos_token_id=eos,
                pad_token_id=pad,
            )
        )
        model.save_pretrained(made)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD).save_pretrained(made)
        PromptFormat().save(made)

    make_folder(folder, fill)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer with digits apart, of at most `vocab_size` tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    digits, levels = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, levels])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def count_parameters(folder: Path) -> int:
    """Parameters of a saved student, by the header of its safetensors file; tied ones count once."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    total = 0
    for name, tensor in header.items():
        if name != "__metadata__":
            start, end = tensor["data_offsets"]
            total += (end - start) // 4
    return total
