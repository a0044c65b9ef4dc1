"""What an export produced, and how near it is to torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Parity:
    """How near an ONNX graph is to torch.

    Attributes:
        max_logit_difference: Largest absolute difference of two logits, over all real positions compared.
        num_prompts: Prompts compared.
        num_tokens: Greedy tokens compared.
        num_flips: Greedy tokens that torch would have chosen otherwise.
        max_flip_gap: Largest difference, in torch's logits, between its token and the one chosen; 0 without flips.
    """

    max_logit_difference: float
    num_prompts: int
    num_tokens: int
    num_flips: int
    max_flip_gap: float

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
        parity: The float32 graph against torch.
        quantized_logit_difference: Largest difference of the quantized graph's logits, on the first two parity prompts.
        model_bytes: Size of the float32 graph with its weights.
        quantized_bytes: Size of the quantized graph with its weights; 0 where nothing is quantized.
        seconds: Wall-clock time.
    """

    folder: Path
    model: Path
    quantized: Path | None
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
    def num_parity_prompts(self) -> int:
        """Prompts that parity was checked on."""
        return self.parity.num_prompts

    @property
    def greedy_identical(self) -> bool:
        """Whether greedy decoding gave the text that torch gives."""
        return self.parity.is_greedy_identical
