"""The configuration of a run: one pydantic model per section, read from TOML, with `--set section.key=value` on top.

It is validated at once and whole. An unknown key is an error that suggests the nearest known one; a value out of range
is an error that names the key, the range and the value. Files that the configuration names are not looked at.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from edgeelad.engine.graph_files import Precision
from edgeelad.errors import ConfigError
from edgeelad.known_prices import known_prices

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


# The keys that a run may change on --resume: limits, prices, speed, memory, and how requests are carried. None of them
# is part of what the teacher is asked, so a reply that was paid for stays the reply. A pending batch has to be fetched
# before `batch` is switched off; the client says so.
RESUMABLE = {
    "teacher": {
        "max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions",
        "max_completion_tokens", "usd_per_million_prompt", "usd_per_million_cached_prompt",
        "usd_per_million_completion", "batch_discount",
        "max_concurrency", "requests_per_minute", "tokens_per_minute", "prompt_tokens_per_minute",
        "completion_tokens_per_minute", "connect_timeout_s", "read_timeout_s", "max_retry_s", "batch", "batch_poll_s",
        "batch_resubmit",
        "api_key_env", "extra_headers", "extra_headers_env", "allow_http", "token_parameter", "structured",
        "max_reasoning_tokens", "reasoning_effort", "prices_from", "fallback_url", "fallback_model",
        "fallback_api_key_env", "fallback_usd_per_million_prompt", "fallback_usd_per_million_cached_prompt",
        "fallback_usd_per_million_completion",
    },
    "selection": {"num_rounds"},
    "scoring": {"num_workers", "engine", "ray_address"},
    # what a round does not fit in memory with can be changed before it is done again
    "training": {
        "batch_size", "gradient_accumulation", "precision", "device", "num_processes", "fsdp", "gradient_checkpointing",
        "optimizer", "report_to",
    },
    "export": {"fresh"},
    "stopping": {"stop_when_certified"},
}  # fmt: skip
# what a million tokens cost, in dollars
PRICE_KEYS = ("usd_per_million_prompt", "usd_per_million_cached_prompt", "usd_per_million_completion")
# The keys that a run may change until the teacher's first reply: whom it asks.
RESUMABLE_UNTIL_REPLY = {"teacher": {"url", "model"}}

_SECRET_HEADER = re.compile(
    r"(^|[-_])(proxy-?)?(authorization|auth|api-?key|key|apikey|token|secret|password|cookie|credentials?)($|[-_])",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(r"(bearer|basic) |sk-|gsk_|xai-|AIza|hf_", re.IGNORECASE)


class Section(BaseModel):
    """Base of all sections: immutable, without unknown keys, with finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PoolConfig(Section):
    """Where the questions come from."""

    path: str | None = Field(
        None,
        description="Pool of questions: a file (jsonl, json, csv, tsv, xml, parquet) or a pattern, here or at an "
        "address such as s3://bucket/pool/*.parquet; a dataset folder or a Hugging Face dataset.",
        examples=["questions.jsonl"],
    )
    format: str = Field(
        "auto",
        description="auto, a file type (jsonl, json, csv, tsv, xml, parquet, hf), or a public dataset such as gsm8k.",
    )
    split: str = Field("train", description="Split of a Hugging Face dataset.")
    question_fields: tuple[str, ...] = Field(
        (),
        description="Fields that make up the question, joined by blank lines; the last is required in every row, the "
        "others may be empty. Default: question, after a passage if there is one.",
        examples=[["passage", "question"]],
    )
    question_template: str | None = Field(
        None,
        description="The question as text with fields in braces, instead of question_fields.",
        examples=["{passage}\n\nQ: {question}"],
    )
    answer_field: str | None = Field(
        None, description="Field that holds the reference answer, if there is one; default: answer.", examples=["label"]
    )
    choices_field: str | None = Field(
        None,
        description="Field that holds the choices of a multiple-choice question; default: choices or options, else "
        "columns A, B, ….",
        examples=["endings"],
    )
    explanation_field: str | None = Field(
        None,
        description="Field that holds a reference explanation, if there is one; default: explanation.",
        examples=["rationale"],
    )
    kind: Literal["auto", "number", "choice", "boolean", "text"] = Field(
        "auto", description="Answer type; auto: by each row's answer, so required if the pool has no answers."
    )
    limit: int | None = Field(None, ge=1, description="Use only the first N questions.", examples=[1000])
    test_path: str | None = Field(
        None,
        description="Labeled test file; without one, test_share of a labeled pool is held out.",
        examples=["test.jsonl"],
    )
    test_share: float = Field(0.1, ge=0.0, le=0.5, description="Share of a labeled pool held out for testing.")
    max_test: int = Field(500, ge=1, description="Maximum number of test questions.")

    @model_validator(mode="before")
    @classmethod
    def _one_question(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = [name for name in ("question_field", "question_fields", "question_template") if data.get(name)]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other; give one of them")
        if "question_field" in given:  # the name for a single field
            data = {**data, "question_fields": [data["question_field"]]}
            del data["question_field"]
        return data


class StudentConfig(Section):
    """The small model that is taught."""

    model: str | None = Field(
        None,
        description="Causal language model: a folder or a Hugging Face id (safetensors; no remote code).",
        examples=["HuggingFaceTB/SmolLM2-135M-Instruct"],
    )
    prompt_template: str | None = Field(
        None,
        description="Jinja2 template of the prompt; default: the model's chat template, else a plain prompt.",
        examples=["Question: {{ question }}\nExplanation:\n"],
    )
    chat_template: str | None = Field(
        None,
        description="Name of the chat template to use, if the tokenizer has several; not with prompt_template.",
        examples=["default"],
    )
    system_prompt: str | None = Field(
        None,
        description="System turn before the question, for a student with a chat template.",
        examples=["You are a careful tutor."],
    )
    template_options: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="Options of the chat template, such as {enable_thinking = false}.",
        examples=[{"enable_thinking": False}],
    )
    instruction: str = Field(
        "Solve the problem step by step, one step per line. End with a line 'The answer is ' and the answer.",
        description="Text before the question, for a student with a chat template.",
    )


class ScoringConfig(Section):
    """How the student explains, branches and is scored (docs/METHOD.md §1)."""

    num_branches: int = Field(3, ge=2, le=64, description="Sampled continuations per step prefix (m).")
    num_explanations: int = Field(3, ge=2, le=256, description="Sampled explanations per question (K).")
    temperature: float = Field(0.7, gt=0.0, le=5.0, description="Sampling temperature of branches and explanations.")
    top_k: int = Field(0, ge=0, description="Sample from the k most likely tokens only; 0: off.")
    top_p: float = Field(
        1.0, gt=0.0, le=1.0, description="Sample from the most likely tokens that reach this probability; 1: off."
    )
    max_explanation_tokens: int = Field(256, ge=1, description="Maximum tokens per explanation.")
    max_branch_tokens: int = Field(256, ge=1, description="Maximum tokens per branch.")
    inter_weight: float = Field(
        1.0, ge=0.0, description="Weight λ of the disagreement between explanations in the elad score."
    )
    max_questions: int | None = Field(
        None, ge=1, description="Score a random sample of this size per round, not the whole pool.", examples=[5000]
    )
    max_branched: int | None = Field(
        None,
        ge=1,
        description="Sample branches for this many questions per round, those at the highest risk; the others are "
        "explained once and score 0. Default: for all, if the strategy needs branches.",
        examples=[1000],
    )
    batch_size: int = Field(64, ge=1, description="Questions that a worker processes together.")
    num_workers: int | None = Field(None, ge=1, description="Worker processes; default: one per core.", examples=[4])
    precision: Precision = Field("fp32", description="Precision of the student that scores the pool.")
    engine: Literal["local", "ray"] = Field(
        "local", description="local: worker processes on this machine; ray: actors on a Ray cluster score the pool."
    )
    ray_address: str | None = Field(
        None,
        description="Address of the Ray cluster; default: that of RAY_ADDRESS, else a new one on this machine.",
        examples=["auto"],
    )


class SelectionConfig(Section):
    """Which questions the teacher sees (docs/METHOD.md §3)."""

    strategy: str = Field("risk", description="Strategy that orders the questions (docs/METHOD.md §2).")
    num_rounds: int = Field(3, ge=1, description="Maximum number of rounds.")
    batch_size: int = Field(100, ge=1, description="Questions per round.")
    exploration_share: float = Field(0.15, ge=0.0, le=1.0, description="Share of each batch drawn at random.")
    first_batch: Literal["score", "representative", "random"] = Field("score", description="How round 1 chooses.")
    gumbel: bool = Field(
        True,
        description="Draw in proportion to the score, risk to its odds (Gumbel-top-k); false: take the highest scores.",
    )
    neighbors: int = Field(
        20,
        ge=0,
        description="Nearest questions by text whose risk (strategy risk) counts as much as a question's own, or where "
        "the pool has answers, whether they are wrong; 0: off.",
    )
    max_similarity: float = Field(
        0.95, gt=0.0, le=1.0, description="TF-IDF cosine above which a question is a near-duplicate; 1: off."
    )
    cluster_cap: float = Field(
        0.25, gt=0.0, le=1.0, description="Maximum share of a batch from one cluster of questions; 1: off."
    )
    rest_rounds: int = Field(2, ge=0, description="Rounds before a question that was set aside can be chosen again.")


class TeacherConfig(Section):
    """The paid model that corrects the student, and what it may cost."""

    kind: str = Field(
        "openai",
        description="openai: an OpenAI-compatible API; dataset: the pool's own answers and explanations; else the name "
        "of an installed teacher.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of an installed teacher.", examples=[{"effort": "low"}]
    )
    url: str | None = Field(
        None, description="Base URL of an OpenAI-compatible API.", examples=["https://api.openai.com/v1"]
    )
    model: str | None = Field(None, description="Name of the teacher model.", examples=["gpt-4.1-mini"])
    api_key_env: str = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the API key; empty: no key."
    )
    mode: Literal["auto", "revise", "rationale"] = Field(
        "auto",
        description="revise: correct the student's own steps; rationale: buy whole explanations; auto: per question, "
        "what is expected to cost less.",
    )
    walk: Literal["single", "per_step"] = Field(
        "single", description="How errors are found: in one call, or by judging one step per call."
    )
    max_depth: int = Field(3, ge=1, le=20, description="Maximum corrections on one path of the depth-first search.")
    max_calls: int = Field(8, ge=1, description="Maximum teacher calls per question.")
    max_tokens_per_question: int | None = Field(
        None,
        ge=1,
        description="No further call for a question after this many prompt and completion tokens.",
        examples=[4000],
    )
    style: str = Field("", description="Sentence about how to write explanations, added to the teacher's prompts.")
    style_examples: int = Field(
        1,
        ge=0,
        le=8,
        description="Number of seed examples whose steps the teacher is shown as its style.",
    )
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="Sampling temperature of the teacher.")
    resample_temperature: float = Field(
        0.7, ge=0.0, le=2.0, description="Sampling temperature for second and third answers to a question."
    )
    max_completion_tokens: int = Field(512, ge=1, description="Maximum completion tokens per reply, without reasoning.")
    max_reasoning_tokens: int | None = Field(
        None,
        ge=1,
        description="Reasoning tokens allowed besides, for a model that reasons before it replies.",
        examples=[2048],
    )
    reasoning_effort: str | None = Field(
        None, description="Reasoning effort, sent as it is; default: not sent.", examples=["low"]
    )
    token_parameter: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="Request parameter that limits completion tokens; the other one is used if it is refused.",
    )
    structured: Literal["auto", "json_schema", "json_object", "text"] = Field(
        "auto", description="Structured output to request; auto: the most that the endpoint supports."
    )
    extra_body: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of the request body, such as {seed = 1}.",
        examples=[{"seed": 1}],
    )
    extra_headers: dict[str, str] = Field(
        default_factory=dict, description="Further HTTP headers, without secrets.", examples=[{"X-Team": "research"}]
    )
    extra_headers_env: dict[str, str] = Field(
        default_factory=dict,
        description="HTTP headers whose values are secret: the environment variable that holds each.",
        examples=[{"api-key": "AZURE_KEY"}],
    )
    allow_http: bool = Field(False, description="Send without encryption to a host other than this machine.")
    max_concurrency: int = Field(8, ge=1, le=512, description="Maximum concurrent requests.")
    requests_per_minute: float | None = Field(None, gt=0, description="Rate limit on requests.", examples=[500.0])
    tokens_per_minute: float | None = Field(
        None, gt=0, description="Rate limit on prompt and completion tokens together.", examples=[200000.0]
    )
    prompt_tokens_per_minute: float | None = Field(
        None, gt=0, description="Rate limit on prompt tokens.", examples=[150000.0]
    )
    completion_tokens_per_minute: float | None = Field(
        None, gt=0, description="Rate limit on completion tokens.", examples=[50000.0]
    )
    connect_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout_s: float = Field(120.0, gt=0, description="Seconds to wait for a reply.")
    max_retry_s: float = Field(600.0, ge=0, description="Seconds after which a request is given up.")
    max_usd: float | None = Field(
        None, gt=0, description="Maximum cost of the run in dollars; needs the prices below.", examples=[20.0]
    )
    max_requests: int | None = Field(None, ge=1, description="Maximum requests of the run.", examples=[10000])
    max_prompt_tokens: int | None = Field(
        None, ge=1, description="Maximum prompt tokens of the run.", examples=[5000000]
    )
    max_completion_tokens_total: int | None = Field(
        None, ge=1, description="Maximum completion tokens of the run.", examples=[1000000]
    )
    max_questions: int | None = Field(
        None, ge=1, description="Maximum number of questions that the run asks about.", examples=[1000]
    )
    usd_per_million_prompt: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens in dollars.", examples=[0.4]
    )
    usd_per_million_cached_prompt: float | None = Field(
        None, ge=0, description="Price of a million cached prompt tokens; default: as others.", examples=[0.1]
    )
    usd_per_million_completion: float | None = Field(
        None, ge=0, description="Price of a million completion tokens in dollars.", examples=[1.6]
    )
    prices_from: str | None = Field(
        None, description="Where these prices were looked up, if they were.", examples=["genai-prices 0.2"]
    )
    fallback_url: str | None = Field(
        None,
        description="Base URL of a second API, asked while the first is down.",
        examples=["https://openrouter.ai/api/v1"],
    )
    fallback_model: str | None = Field(
        None, description="Name of the model there; default: the same.", examples=["openai/gpt-4.1-mini"]
    )
    fallback_api_key_env: str = Field("", description="Environment variable that holds the key there; empty: no key.")
    fallback_usd_per_million_prompt: float | None = Field(
        None, ge=0, description="Price of a million prompt tokens there in dollars.", examples=[0.4]
    )
    fallback_usd_per_million_cached_prompt: float | None = Field(
        None, ge=0, description="Price of a million cached prompt tokens there; default: as others.", examples=[0.1]
    )
    fallback_usd_per_million_completion: float | None = Field(
        None, ge=0, description="Price of a million completion tokens there in dollars.", examples=[1.6]
    )
    batch: bool = Field(False, description="Use the provider's batch API: cheaper, and hours of delay.")
    batch_poll_s: float = Field(30.0, gt=0, description="Seconds between requests for a batch's state.")
    batch_resubmit: bool = Field(
        False, description="Submit a batch again if it is unknown whether the provider has it: it may be paid twice."
    )
    batch_discount: float = Field(0.5, gt=0.0, le=1.0, description="Price factor of the provider's batch API.")

    @property
    def completion_cap(self) -> int:
        """Maximum tokens per reply, reasoning included."""
        return self.max_completion_tokens + (self.max_reasoning_tokens or 0)

    @field_validator("extra_headers")
    @classmethod
    def _no_secrets(cls, headers: dict[str, str]) -> dict[str, str]:
        for name, value in headers.items():
            if _SECRET_HEADER.search(name) or _SECRET_VALUE.match(value):
                raise ValueError(
                    f"the header {name} looks like a secret, and this file is no place for one; put its value into an "
                    f'environment variable, and set extra_headers_env = {{"{name}" = "VARIABLE"}} instead'
                )
        return headers

    @property
    def fallback(self) -> TeacherConfig | None:
        """The same for the second endpoint; None if there is none. Headers are for the first one only."""
        if self.fallback_url is None:
            return None
        names = ("url", "api_key_env", *PRICE_KEYS)
        values = {name: getattr(self, f"fallback_{name}") for name in names}
        values.update(
            model=self.fallback_model or self.model, extra_headers={}, extra_headers_env={}, fallback_url=None
        )
        return self.model_copy(update=values)

    @model_validator(mode="after")
    def _check_together(self) -> TeacherConfig:
        if self.fallback_url is not None and self.batch:
            raise ValueError("fallback_url and batch exclude each other: a batch is at one provider")
        for config, prefix in ((self, ""), (self.fallback, "fallback_")):
            if config is None or self.max_usd is None or self.kind != "openai":
                continue
            if config.usd_per_million_prompt is None or config.usd_per_million_completion is None:
                raise ValueError(
                    f"max_usd needs {prefix}usd_per_million_prompt and {prefix}usd_per_million_completion: a cap in "
                    "money cannot be kept with unknown prices (pip install 'edgeelad[prices]' brings the prices of "
                    "well-known models)"
                )
        return self


class TrainingConfig(Section):
    """Fine-tuning, with transformers' Trainer."""

    method: Literal["full", "lora"] = Field("full", description="Train all weights, or a LoRA.")
    epochs: float = Field(3.0, gt=0, description="Passes over the examples.")
    min_steps: int = Field(100, ge=1, description="Minimum optimizer steps; few examples are repeated more often.")
    max_steps: int | None = Field(
        None, ge=1, description="Exact number of optimizer steps; overrides epochs and min_steps.", examples=[500]
    )
    batch_size: int = Field(16, ge=1, description="Examples per forward pass and process.")
    gradient_accumulation: int = Field(1, ge=1, description="Forward passes per optimizer step.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak learning rate; default: by size, 5e-5 × sqrt(1e9 / parameters), ten times that for a LoRA, "
        "maximum 2e-3.",
        examples=[1e-4],
    )
    held_out_share: float = Field(
        0.05, ge=0.0, le=0.5, description="Share of the examples whose loss is watched instead of trained on."
    )
    warmup_share: float = Field(0.05, ge=0.0, le=1.0, description="Share of the steps in which the rate rises.")
    weight_decay: float = Field(0.0, ge=0.0, description="Weight decay of AdamW.")
    schedule: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="How the learning rate falls after the warm-up."
    )
    max_grad_norm: float = Field(1.0, gt=0, description="Gradient norm above which gradients are clipped.")
    lora_rank: int = Field(16, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: float = Field(32.0, gt=0, description="Scale of the LoRA update.")
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0, description="Dropout before the LoRA matrices.")
    restart: bool = Field(True, description="Start each round from the base student; false: from the last round's.")
    seed_examples: str | None = Field(
        None,
        description="File of questions with explanation and answer, mixed into every round.",
        examples=["seed_examples.jsonl"],
    )
    max_seed_examples: int | None = Field(
        None, ge=0, description="Use a random sample of the seed examples of this size.", examples=[500]
    )
    own_examples: float = Field(
        1.0,
        ge=0.0,
        description="Where the pool has answers, train also on the student's own right explanations of questions that "
        "were not asked: as many as leave each example eight passes; without max_steps so many per verified one at "
        "least, for which steps are added. They and what was verified take turns in wordings that the student samples. "
        "0: neither.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on a GPU that has it, else fp32."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where to train; auto: a GPU if there is one.")
    num_processes: int = Field(
        1,
        ge=1,
        le=64,
        description="Processes that train together, one per GPU; a step has batch_size examples of each.",
    )
    fsdp: bool = Field(
        False, description="Divide weights, gradients and optimizer state among the processes, instead of copying them."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations again in the backward pass: less memory, about a third more time."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit: optimizer state in 8 bits (bitsandbytes)."
    )
    report_to: tuple[Literal["tensorboard", "mlflow", "wandb", "trackio"], ...] = Field(
        (),
        description="Trackers that receive the training losses and each round's figures; default: none.",
        examples=[["tensorboard"]],
    )

    @property
    def examples_per_step(self) -> int:
        """Examples per optimizer step, of all processes together."""
        return self.batch_size * self.gradient_accumulation * self.num_processes

    @model_validator(mode="after")
    def _check_fsdp(self) -> TrainingConfig:
        if self.fsdp and self.num_processes == 1:
            raise ValueError("fsdp divides the student among processes: set num_processes to the number of GPUs")
        return self


class ExportConfig(Section):
    """ONNX export, parity and quantization."""

    quantize: Literal["int8", "int4", "none"] = Field("int8", description="Quantization of the packaged student.")
    max_logit_difference: float = Field(
        1e-4,
        gt=0,
        description="Maximum difference between logits of ONNX (fp32) and torch; larger for logits beyond ±10.",
    )
    num_parity_prompts: int = Field(8, ge=1, description="Prompts on which ONNX and torch are compared.")
    min_agreement: float = Field(
        0.95,
        ge=0.0,
        le=1.0,
        description="Share of answers equal to fp32's below which fp32 is packaged instead of the quantized student, "
        "unless where answers are known it loses no more accuracy than this allows (0.95: 5 points).",
    )
    fresh: bool = Field(False, description="Export every round from scratch instead of swapping weights.")
    include_fp32: bool = Field(False, description="Put the fp32 graph into the package as well.")
    include_scoring: bool = Field(
        False,
        description="Put the int8 weights for many rows into the package, too: pools are scored faster, and several "
        "clients served faster; doubles its size.",
    )


class StoppingConfig(Section):
    """When enough has been transferred (docs/METHOD.md §5)."""

    audit_size: int = Field(
        100, ge=0, description="Questions that the teacher answers once to certify agreement (n); 0: no audit."
    )
    epsilon: float = Field(0.10, gt=0.0, lt=1.0, description="Disagreement with the teacher to certify (ε).")
    alpha: float = Field(0.05, gt=0.0, lt=1.0, description="Error probability of the certificate (α).")
    claim: Literal["stream", "pool"] = Field(
        "stream",
        description="What is certified: questions like the pool's (Clopper-Pearson), or this pool (hypergeometric).",
    )
    num_self_checks: int = Field(
        20, ge=0, description="Audit questions that the teacher answers twice, to measure its own agreement."
    )
    stop_when_certified: bool = Field(True, description="Stop as soon as agreement is certified.")
    kappa: float = Field(
        0.99, gt=0.0, le=1.0, description="Agreement κ of successive students at which more data no longer helps."
    )
    kappa_rounds: int = Field(3, ge=2, description="Successive rounds that must reach kappa.")
    min_gain: float = Field(0.005, ge=0.0, description="Gain in accuracy below which the learning curve is flat.")
    flat_rounds: int = Field(3, ge=2, description="Rounds without that gain after which the run stops.")


class RunSection(Section):
    """The run itself."""

    out: str | None = Field(None, description="Run folder; default: runs/NAME-OF-POOL.", examples=["runs/a"])
    seed: int = Field(0, ge=0, description="Random seed.")
    ledger: str | None = Field(
        None, description="Teacher ledger; default: ledger.sqlite in the run folder.", examples=["ledger.sqlite"]
    )
    replay: bool = Field(False, description="Answer from the ledger only; send nothing to the teacher.")


class RunConfig(Section):
    """All sections of a run."""

    run: RunSection = Field(default_factory=RunSection)
    pool: PoolConfig = Field(default_factory=PoolConfig)
    student: StudentConfig = Field(default_factory=StudentConfig)
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)
    selection: SelectionConfig = Field(default_factory=SelectionConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    export: ExportConfig = Field(default_factory=ExportConfig)
    stopping: StoppingConfig = Field(default_factory=StoppingConfig)

    @model_validator(mode="after")
    def _scores_with_what_is_exported(self) -> RunConfig:
        if self.scoring.precision not in ("fp32", self.export.quantize):
            raise ValueError(
                f"scoring.precision is {self.scoring.precision}, but export.quantize is {self.export.quantize}; "
                f"set scoring.precision to fp32, or export.quantize to {self.scoring.precision}"
            )
        return self


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file and apply `section.key=value` overrides.

    Raises:
        ConfigError: The file cannot be read, or is not a valid configuration.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 at byte {error.start}; save it as UTF-8") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    return make_config(data, overrides, source=str(path))


def make_config(data: Mapping[str, Any], overrides: Iterable[str] = (), source: str = "configuration") -> RunConfig:
    """Validate a mapping of sections, with `section.key=value` overrides applied on top.

    Raises:
        ConfigError: Unknown keys, values out of range, malformed overrides; one line names every problem.
    """
    merged = {section: dict(keys) if isinstance(keys, Mapping) else keys for section, keys in data.items()}
    overridden: set[str] = set()
    for override in overrides:
        section, key, value = parse_override(override)
        keys = merged.setdefault(section, {})
        if not isinstance(keys, dict):
            raise ConfigError(f"{source}: {section} must be a table")
        keys[key] = value
        if section == "teacher":
            overridden.add(key)
    if isinstance(merged.get("teacher"), dict):
        _look_up_prices(merged["teacher"], overridden)
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(problem) for problem in error.errors())) from None


def _look_up_prices(teacher: dict[str, Any], overridden: set[str]) -> None:
    """Fill in the prices that are not set, if they are known for certain; again if they were those of another model."""
    if overridden & {f"{prefix}{name}" for prefix in ("", "fallback_") for name in PRICE_KEYS}:
        teacher.pop("prices_from", None)
    for prefix in ("", "fallback_"):
        names = [f"{prefix}{name}" for name in PRICE_KEYS]
        if "prices_from" in teacher and overridden & {f"{prefix}url", f"{prefix}model", "model"}:
            for name in names:
                teacher.pop(name, None)
        url, model = teacher.get(f"{prefix}url"), teacher.get(f"{prefix}model") or teacher.get("model")
        if not (isinstance(url, str) and isinstance(model, str)) or any(name in teacher for name in names):
            continue
        known = known_prices(url, model)
        if known is not None:
            teacher.update(zip(names, (known.prompt, known.cached_prompt, known.completion), strict=True))
            teacher["prices_from"] = known.source


def parse_override(text: str) -> tuple[str, str, Any]:
    """Parse `section.key=value`; the value is read as TOML, and as plain text if it is not valid TOML, or a key's text.

    >>> parse_override("training.epochs=2"), parse_override("teacher.model=4.1")
    (('training', 'epochs', 2), ('teacher', 'model', '4.1'))
    """
    name, equals, raw = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot or not section or not key:
        raise ConfigError(f"--set {text}: expected section.key=value, for example training.epochs=2")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    return section, key, value if isinstance(value, str) or not _is_text(section, key) else raw


def _is_text(section: str, key: str) -> bool:
    """Whether a key takes text only."""
    known = RunConfig.model_fields.get(section)
    field = known.annotation.model_fields.get(key) if known is not None and known.annotation is not None else None
    return field is not None and field.annotation in (str, str | None)


def _explain(problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(tuple(problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {location}; {hint}"
    found = "" if problem["type"] in ("missing", "value_error") else f", found {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{location}: {message[:1].lower()}{message[1:]}{found}" if location else message


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
