"""What an export produced, and how near it is to torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# with the engine's graphs: traced anew, or the last round's with other weights; or Optimum's graph alone
GraphKind = Literal["fused", "swapped", "standard"]


@dataclass(frozen=True, slots=True)
class Parity:
    """How near an ONNX graph is to torch.

    Attributes:
        max_logit_difference: Largest absolute difference of two logits, over all real positions compared.
        num_prompts: Prompts compared.
        num_tokens: Greedy tokens compared.
        num_flips: Greedy tokens that torch would have chosen otherwise.
        max_flip_gap: Largest difference, in torch's logits, between its token and the one chosen; 0 without flips.
        max_logprob_difference: Largest absolute difference of the log-probability of a token that the engine's graphs
            generated (nats); None where there are none.
    """

    max_logit_difference: float
    num_prompts: int
    num_tokens: int
    num_flips: int
    max_flip_gap: float
    max_logprob_difference: float | None = None

    @property
    def is_greedy_identical(self) -> bool:
        """Whether greedy decoding gives the same text."""
        return self.num_flips == 0


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export produced.

    Attributes:
        folder: The onnx folder.
        model: The float32 graph.
        quantized: The quantized graph; None where nothing is quantized.
        graphs: Which graphs there are, and how they came about.
        unserved: Why the engine's graphs could not be made; None where they were.
        parity: The float32 graph against torch.
        quantized_logit_difference: Largest difference of the quantized graph's logits, on the first two parity prompts.
        model_bytes: Size of the float32 graph with its weights.
        quantized_bytes: Size of the quantized graph with its weights; 0 where nothing is quantized.
        seconds: Wall-clock time.
    """

    folder: Path
    model: Path
    quantized: Path | None
    graphs: GraphKind
    unserved: str | None
    parity: Parity
    quantized_logit_difference: float | None
    model_bytes: int
    quantized_bytes: int
    seconds: float

    @property
    def max_logit_difference(self) -> float:
        """Largest difference of a float32 logit from torch's."""
        return self.parity.max_logit_difference

    @property
    def warning(self) -> str | None:
        """What the user is to know of the graphs; None where all is well."""
        if self.unserved is None:
            return None
        return (
            f"this student has no engine graphs ({self.unserved}): it is exported as Optimum's standard graph, without "
            "packed reasoning trees; scores are the same, but scoring takes several times as long, and more memory"
        )

    @property
    def num_parity_prompts(self) -> int:
        """Prompts that parity was checked on."""
        return self.parity.num_prompts

    @property
    def greedy_identical(self) -> bool:
        """Whether greedy decoding gave the text that torch gives."""
        return self.parity.is_greedy_identical
