"""The result of an export: parity with torch, and how closely the quantized student follows the float32 one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeelad.engine.graph_files import Precision

# with the engine's graphs: traced, or the last round's with other weights; or Optimum's graph alone
GraphKind = Literal["fused", "swapped", "standard"]
LOGIT_SCALE = 10.0
# forced top-1 agreement with fp32 below which an export warns
MIN_AGREEMENT = 0.9


@dataclass(frozen=True, slots=True)
class Parity:
    """How closely an ONNX graph matches torch.

    Attributes:
        max_logit_difference: Largest absolute difference of two logits, over all real positions compared.
        num_prompts: Prompts compared.
        num_tokens: Greedy tokens compared.
        num_flips: Greedy tokens that torch would have chosen differently.
        max_flip_gap: Largest difference, in torch's logits, between its token and the one chosen; 0 without flips.
        largest_logit: Largest absolute logit of torch's.
        max_logprob_difference: Largest absolute difference of the log-probability of a token that the engine's graphs
            generated (nats); None if there are no engine graphs.
    """

    max_logit_difference: float
    num_prompts: int
    num_tokens: int
    num_flips: int
    max_flip_gap: float
    largest_logit: float
    max_logprob_difference: float | None = None

    def allowed(self, max_difference: float) -> float:
        """The limit for these logits: `max_difference` for logits up to LOGIT_SCALE, in proportion for larger ones.

        float32 rounds in proportion to a number's size. SmolLM2-135M's logits of ±40 differ from ONNX's by 1.04e-4, as
        far as torch's own are from float64's, and no greedy token differs.
        """
        return max_difference * max(1.0, self.largest_logit / LOGIT_SCALE)

    @property
    def is_greedy_identical(self) -> bool:
        """Whether greedy decoding gives the same text."""
        return self.num_flips == 0


@dataclass(frozen=True, slots=True)
class Agreement:
    """How closely a quantized graph follows the float32 one on the same tokens (`export.agreement`).

    Attributes:
        num_tokens: Positions compared.
        num_same: Positions at which both have the same most likely next token.
        mean_divergence: Mean Kullback-Leibler divergence of the next-token distributions (nats).
        max_logit_difference: Largest absolute difference of two logits.
    """

    num_tokens: int
    num_same: int
    mean_divergence: float
    max_logit_difference: float

    @property
    def share(self) -> float:
        """Forced top-1 agreement: the share of positions with the same most likely next token."""
        return self.num_same / self.num_tokens


@dataclass(frozen=True, slots=True)
class ExportResult:
    """The result of an export.

    Attributes:
        folder: The onnx folder.
        model: The float32 graph.
        quantized: The quantized graph; None if nothing is quantized.
        graphs: Which graphs there are, and how they were made.
        unserved: Why there are no engine graphs; None if there are.
        parity: The float32 graph against torch.
        max_context: Maximum tokens of prompt and explanation together.
        num_positions: Tokens that config.json has positions for; more than `max_context` if that is capped.
        precision: Precision of the quantized graph; "fp32" if nothing is quantized.
        agreement: The quantized graph against the float32 one; None if nothing is quantized.
        model_bytes: Size of the float32 graph with its weights.
        quantized_bytes: Size of the quantized graph with its weights; 0 if nothing is quantized.
        seconds: Wall-clock time.
    """

    folder: Path
    model: Path
    quantized: Path | None
    graphs: GraphKind
    unserved: str | None
    parity: Parity
    max_context: int
    num_positions: int
    precision: Precision
    agreement: Agreement | None
    model_bytes: int
    quantized_bytes: int
    seconds: float

    @property
    def max_logit_difference(self) -> float:
        """Largest difference of a float32 logit from torch's."""
        return self.parity.max_logit_difference

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know about the graphs."""
        found = []
        if self.unserved is not None:
            found.append(
                f"this student has no engine graphs ({self.unserved}): it is exported as Optimum's standard graph, "
                "without packed reasoning trees; scores are the same, but scoring takes about twice as long and more "
                "memory"
            )
        if self.max_context < self.num_positions:
            found.append(
                f"this student's context is capped at {self.max_context:,} of {self.num_positions:,} tokens, up to "
                "which its graph is exact (longrope's original context, or a sliding window that the graph lacks)"
            )
        if self.agreement is not None and self.agreement.share < MIN_AGREEMENT:
            found.append(
                f"the {self.precision} student chooses fp32's token at only {self.agreement.share:.1%} of "
                f"{self.agreement.num_tokens} positions (below {MIN_AGREEMENT:.0%}): its answers may be worse; compare "
                f"them, or export with --quantize {'none' if self.precision == 'int8' else 'int8'}"
            )
        return tuple(found)

    @property
    def summary(self) -> str:
        """Parity and agreement in a line."""
        parity = f"parity {self.max_logit_difference:.1e}"
        if self.agreement is None:
            return parity
        return (
            f"{parity}; {self.precision}: same next token as fp32 at {self.agreement.share:.1%} of "
            f"{self.agreement.num_tokens} positions, {self.quantized_bytes / self.model_bytes:.0%} of its size"
        )

    @property
    def num_parity_prompts(self) -> int:
        """Number of prompts on which parity was checked."""
        return self.parity.num_prompts

    @property
    def greedy_identical(self) -> bool:
        """Whether greedy decoding gives the same text as torch."""
        return self.parity.is_greedy_identical
