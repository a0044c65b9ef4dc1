"""The quickstart's base student: a Llama of under a million parameters, trained from scratch in about a minute.

Takes the seed examples and writes a model folder as transformers does. The loss covers explanation and answer only;
prompt and completion are tokenized separately and joined, as in every later training. The embeddings of the numbers do
not start at random: they are points on circles of several periods, because arithmetic is learned several times faster
that way (Nanda et al. 2023, arXiv 2301.05217, find that transformers come to such circles themselves).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from edgeelad.errors import TrainingError
from edgeelad.quickstart.problems import Problem
from edgeelad.quickstart.recipe import RECIPE, Recipe
from edgeelad.quickstart.tokenizer import EOS_TOKEN, PAD_TOKEN, make_tokenizer, number_tokens, save_tokenizer
from edgeelad.records import Question
from edgeelad.text import explanation
from edgeelad.text.prompts import PromptFormat

ProgressCallback = Callable[[int, int, float], None]

_INITIAL_STD = 0.04
_CIRCLE_PERIODS = (2, 5, 10, 20, 50, 100)
_CIRCLE_RADIUS = 0.24
_WARMUP_SHARE = 0.05
_BETAS = (0.9, 0.95)
_WEIGHT_DECAY = 0.01
_MAX_GRAD_NORM = 1.0
_NUM_SORTED_BATCHES = 20  # batches cut from one sorted chunk: little padding, and still random
_IGNORED = -100
_MAX_THREADS = 4  # for such small matrices, more threads only wait for each other


def train_base_student(
    examples: Sequence[Problem],
    out_dir: Path,
    seed: int,
    progress: ProgressCallback | None = None,
    recipe: Recipe = RECIPE,
    more_texts: Iterable[str] = (),
    device: str = "cpu",
) -> None:
    """Train a student from scratch and save it with its tokenizer.

    Args:
        examples: The training examples.
        out_dir: Folder to write; created if missing.
        seed: Seed of the weights and of the order of the examples.
        progress: Called after each optimizer step with the steps done, their total and the loss (nats).
        recipe: Sizes and training parameters.
        more_texts: Further texts that its tokenizer should encode well.
        device: Where torch trains it; the weights that a seed gives differ between devices.

    Raises:
        TrainingError: There are no examples, or one is longer than the student's context.
    """
    if not examples:
        raise TrainingError("the base student has no examples to learn from; give at least one")
    tokenizer = make_tokenizer(more_texts)
    encoded = [_encode(tokenizer, example) for example in examples]
    longest = max(len(prompt) + len(completion) for prompt, completion in encoded)
    if longest > recipe.max_length:
        raise TrainingError(f"an example has {longest} tokens; the student's context holds {recipe.max_length}")
    model = make_model(tokenizer, recipe, seed).to(device)
    with _few_threads():
        _train(model, encoded, recipe, np.random.default_rng(seed), progress)
    out_dir.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_dir, safe_serialization=True)
    save_tokenizer(tokenizer, out_dir, recipe.max_length)


def make_model(tokenizer: Tokenizer, recipe: Recipe, seed: int) -> LlamaForCausalLM:
    """The untrained student; depends on the seed only, not on what was drawn before."""
    pad, eos = tokenizer.token_to_id(PAD_TOKEN), tokenizer.token_to_id(EOS_TOKEN)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden_size,
        intermediate_size=recipe.intermediate_size,
        num_hidden_layers=recipe.num_layers,
        num_attention_heads=recipe.num_heads,
        num_key_value_heads=recipe.num_heads,
        max_position_embeddings=recipe.max_length,
        initializer_range=_INITIAL_STD,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    _place_numbers(model, tokenizer)
    model.generation_config = GenerationConfig(bos_token_id=None, eos_token_id=eos, pad_token_id=pad, do_sample=False)
    return model


def _place_numbers(model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """Set each number's embedding to circles, (cos, sin) of 2πn/period; the other dimensions stay random."""
    embeddings = model.get_input_embeddings().weight
    with torch.no_grad():
        for number, token in number_tokens(tokenizer).items():
            angles = [2.0 * math.pi * number / period for period in _CIRCLE_PERIODS]
            circles = [value for angle in angles for value in (math.cos(angle), math.sin(angle))]
            embeddings[token, : len(circles)] = _CIRCLE_RADIUS * torch.tensor(circles)


def _encode(tokenizer: Tokenizer, example: Problem) -> tuple[list[int], list[int]]:
    prompt = tokenizer.encode(PromptFormat().render(Question(id="", text=example.question))).ids
    completion = tokenizer.encode(explanation.join(example.steps, str(example.answer))).ids
    return prompt, [*completion, tokenizer.token_to_id(EOS_TOKEN)]


def _train(
    model: LlamaForCausalLM,
    encoded: Sequence[tuple[list[int], list[int]]],
    recipe: Recipe,
    rng: np.random.Generator,
    progress: ProgressCallback | None,
) -> None:
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=_BETAS, weight_decay=_WEIGHT_DECAY, fused=True)
    batches = _batches(encoded, recipe.base_batch_size, rng)
    model.train()
    for step in range(recipe.base_steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.base_learning_rate * _schedule(step / recipe.base_steps)
        input_ids, labels = _collate([encoded[index] for index in next(batches)])
        loss = _loss(model, input_ids.to(model.device), labels.to(model.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, _MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if progress is not None:
            progress(step + 1, recipe.base_steps, loss.item())
    model.eval()


@contextmanager
def _few_threads() -> Iterator[None]:
    num_threads = torch.get_num_threads()
    torch.set_num_threads(min(num_threads, _MAX_THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def _loss(model: LlamaForCausalLM, input_ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy (nats) of the completion tokens; [B, L] ids and labels, padded on the right.

    No attention mask is needed: padding is on the right, and attention is causal. Logits are computed for labels only.
    """
    hidden = model.model(input_ids=input_ids, use_cache=False).last_hidden_state[:, :-1]
    targets = labels[:, 1:]
    counted = targets != _IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), targets[counted])


def _schedule(share: float) -> float:
    """Learning rate relative to its peak, after a share of the steps: linear warm-up, then linear to zero."""
    if share < _WARMUP_SHARE:
        return share / _WARMUP_SHARE + 0.01
    return 1.0 - share


def _batches(
    encoded: Sequence[tuple[list[int], list[int]]], batch_size: int, rng: np.random.Generator
) -> Iterator[list[int]]:
    """Endless batches of indices: each epoch is shuffled and cut into chunks, each chunk is sorted by length."""
    lengths = np.array([len(prompt) + len(completion) for prompt, completion in encoded])
    while True:
        order = rng.permutation(len(encoded))
        batches = []
        for start in range(0, len(order), batch_size * _NUM_SORTED_BATCHES):
            stretch = order[start : start + batch_size * _NUM_SORTED_BATCHES]
            stretch = stretch[np.argsort(lengths[stretch], kind="stable")]
            batches += [stretch[first : first + batch_size].tolist() for first in range(0, len(stretch), batch_size)]
        for index in rng.permutation(len(batches)):
            yield batches[index]


def _collate(batch: Sequence[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, L] input ids (padded with 0) and labels (_IGNORED on prompt and padding)."""
    length = max(len(prompt) + len(completion) for prompt, completion in batch)
    input_ids = torch.zeros(len(batch), length, dtype=torch.long)
    labels = torch.full((len(batch), length), _IGNORED, dtype=torch.long)
    for row, (prompt, completion) in enumerate(batch):
        end = len(prompt) + len(completion)
        input_ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return input_ids, labels
