"""Measure how closely a quantized student follows its float32 graph: forced top-1 agreement and divergence.

The float32 student writes texts greedily. Then both graphs read them, and their next-token distributions are compared
at each position of a completion. So one flipped token does not change what is compared after it, as it would if each
student wrote its own text. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import Limits
from edgeelad.engine.graph_files import AGREEMENT_FILE, Precision
from edgeelad.engine.open import open_generator
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.plain.graph import Graph
from edgeelad.engine.sampling import SamplingParams
from edgeelad.errors import ParityError
from edgeelad.export.result import Agreement
from edgeelad.files import write_json

NUM_TOKENS = 64  # of each text
BATCH_SIZE = 16  # the standard graph returns the logits of all tokens of a batch's prompts

Logits = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class StudentText:
    """Token ids of a prompt and of the student's greedy completion, without its end token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    @property
    def ids(self) -> tuple[int, ...]:
        """Prompt and completion."""
        return self.prompt + self.completion


def write_texts(folder: Path, codec: Codec, prompts: Sequence[list[int]], num_threads: int = 1) -> list[StudentText]:
    """Let the float32 student in `folder` complete prompts greedily, each with up to NUM_TOKENS tokens.

    Raises:
        ModelError: The graphs cannot be run.
    """
    options = EngineOptions(num_threads=num_threads, batch_size=BATCH_SIZE, precision="fp32", graph="engine")
    generator = open_generator(folder, codec, options)
    try:
        written = generator.generate(prompts, SamplingParams(NUM_TOKENS), Limits(codec.eos_ids, codec.max_context))
        return [StudentText(tuple(prompt), one.ids) for prompt, one in zip(prompts, written, strict=True)]
    finally:
        generator.close()


def forced_agreement(reference: Graph, graph: Graph, texts: Sequence[StudentText]) -> Agreement:
    """Compare a graph's next-token distributions with the reference's, at each position of the completions.

    Args:
        reference: The float32 graph.
        graph: The quantized graph.
        texts: What both read.

    Raises:
        ParityError: A logit of `graph` is not finite.
    """
    num_tokens = num_same = 0
    divergence = largest = 0.0
    for text in texts:
        expected, found = (_completion_logits(student, text) for student in (reference, graph))
        if not np.isfinite(found).all():
            raise ParityError("the quantized student's logits are not finite; export with --quantize none")
        num_tokens += len(expected)
        num_same += int((expected.argmax(axis=1) == found.argmax(axis=1)).sum())
        divergence += float(_divergences(expected, found).sum())
        largest = max(largest, float(np.abs(expected - found).max()))
    return Agreement(num_tokens, num_same, max(divergence / num_tokens, 0.0), largest)


def write_agreement(folder: Path, precision: Precision, agreement: Agreement) -> None:
    """Write the share that agrees into a file of the onnx folder, as a figure for `package`."""
    figures = {f"token_agreement_{precision}": round(agreement.share, 4)}
    write_json(folder / AGREEMENT_FILE, figures)


def _completion_logits(graph: Graph, text: StudentText) -> Logits:
    """The logits from which each token of the completion is chosen, and the one after it; [tokens, vocabulary]."""
    cache, (head,) = graph.begin([text.prompt])
    ids = np.array([[*head, *text.completion]])
    logits = graph.step(ids, np.ones_like(ids), np.arange(ids.shape[1])[None], cache)[0]
    return logits[0, len(head) - 1 :].astype(np.float64)


def _divergences(expected: Logits, found: Logits) -> NDArray[np.float64]:
    """The Kullback-Leibler divergence of each row (nats)."""
    logprobs, other = _log_softmax(expected), _log_softmax(found)
    divergences: NDArray[np.float64] = (np.exp(logprobs) * (logprobs - other)).sum(axis=1)
    return divergences


def _log_softmax(logits: Logits) -> Logits:
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalized: Logits = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalized
