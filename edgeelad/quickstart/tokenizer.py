"""The quickstart student's tokenizer: byte-level BPE in which every word and every number up to 100 is one token.

Trained on generated problems of all skills, with the same result every time. Any text is encoded (unknown words as
bytes) and decoded exactly. `save_tokenizer` writes the files that transformers loads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from edgeelad.quickstart.problems import NAMES, OBJECTS, SKILLS, THINGS, make_problems
from edgeelad.records import Question
from edgeelad.text import explanation
from edgeelad.text.prompts import PromptFormat

PAD_TOKEN = "<pad>"
EOS_TOKEN = "<eos>"
MAX_NUMBER = 100
_NUM_PROBLEMS = 2000
_NUM_REPEATS = 50  # so many that all merges of every word and number are learned
_MAX_VOCABULARY = 2000  # never reached: training ends before, when no pair is frequent enough
_MIN_FREQUENCY = 10


def make_tokenizer(more_texts: Iterable[str] = ()) -> Tokenizer:
    """Train the tokenizer in about half a second; `more_texts` are further texts that it should encode well."""
    problems = make_problems(_NUM_PROBLEMS, dict.fromkeys(SKILLS, 1.0), np.random.default_rng(0))
    texts = []
    for problem in problems:
        texts.append(PromptFormat().render(Question(id="", text=problem.question)))
        texts.append(explanation.join(problem.steps, str(problem.answer)))
    words = "".join(f" {word}" for word in (*NAMES, *OBJECTS, *THINGS, *range(MAX_NUMBER + 1)))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=_MAX_VOCABULARY,
        min_frequency=_MIN_FREQUENCY,
        special_tokens=[PAD_TOKEN, EOS_TOKEN],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*texts, *[words] * _NUM_REPEATS, *more_texts], trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path, max_length: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json into a model folder."""
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": EOS_TOKEN, "pad_token": PAD_TOKEN}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n", encoding="utf-8")


def number_tokens(tokenizer: Tokenizer) -> dict[int, int]:
    """Number -> token id, for the numbers 0 to 100 after a space."""
    ids = {number: tokenizer.encode(f" {number}").ids for number in range(MAX_NUMBER + 1)}
    assert all(len(pieces) == 1 for pieces in ids.values()), ids
    return {number: pieces[0] for number, pieces in ids.items()}
