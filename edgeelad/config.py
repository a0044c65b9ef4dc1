"""The run configuration: one pydantic model a stage, read from TOML, overridden by `--set section.key=value`.

Validated once, whole, at the start. An unknown key is an error that suggests the nearest known one; a value out of
range is an error that names the key, the allowed range and what was found. Takes text or mappings, gives a `RunConfig`;
it does not look at files that the configuration names.
"""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgeelad.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:  # pragma: no cover
    import tomli as tomllib


# The keys that a run may change on --resume: limits, prices, speed, and how requests are carried. None of them is part
# of what the teacher is asked, so a reply that was paid for stays the reply. A pending batch has to be fetched before
# `batch` is switched off; the client says so.
RESUMABLE = {
    "teacher": {
        "max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions",
        "max_completion_tokens", "usd_per_million_prompt", "usd_per_million_cached_prompt",
        "usd_per_million_completion", "batch_discount",
        "max_concurrency", "requests_per_minute", "tokens_per_minute", "prompt_tokens_per_minute",
        "completion_tokens_per_minute", "connect_timeout_s", "read_timeout_s", "max_retry_s", "batch", "batch_poll_s",
        "api_key_env", "extra_headers", "token_parameter", "structured", "max_reasoning_tokens", "reasoning_effort",
    },
    "selection": {"num_rounds"},
    "scoring": {"num_workers"},
    "export": {"fresh"},
    "stopping": {"stop_when_certified"},
}  # fmt: skip


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys forbidden."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PoolConfig(Section):
    """Where the questions come from."""

    path: str | None = Field(
        None, description="pool file (jsonl, csv, parquet), dataset folder or Hugging Face dataset name"
    )
    format: str = Field("auto", description="auto, jsonl, csv, parquet, hf, or a published format such as gsm8k")
    split: str = Field("train", description="split of a Hugging Face dataset")
    question_field: str = "question"
    answer_field: str = "answer"
    choices_field: str = "choices"
    explanation_field: str = "explanation"
    kind: Literal["auto", "number", "choice", "boolean", "text"] = "auto"
    limit: int | None = Field(None, ge=1, description="use only the first N questions")
    test_path: str | None = Field(
        None, description="labeled test file; without it test_share of a labeled pool is held out"
    )
    test_share: float = Field(0.1, ge=0.0, le=0.5)
    max_test: int = Field(500, ge=1, description="at most this many held-out questions")


class StudentConfig(Section):
    """The small model that is taught."""

    model: str | None = Field(
        None, description="folder or Hugging Face id of a causal LM (safetensors, no remote code)"
    )
    prompt_template: str | None = Field(
        None, description="jinja2 template; default: the chat template, else a plain prompt"
    )
    instruction: str = Field(
        "Solve the problem step by step, one step a line. End with a line 'The answer is ' and the answer.",
        description="put before the question where the student has a chat template",
    )


class ScoringConfig(Section):
    """How the student explains, branches and is scored (docs/METHOD.md §1)."""

    num_branches: int = Field(3, ge=2, le=64, description="m, sampled continuations from each step prefix")
    num_explanations: int = Field(3, ge=2, le=256, description="K, sampled explanations from the bare question")
    temperature: float = Field(0.7, gt=0.0, le=5.0)
    top_k: int = Field(0, ge=0, description="0 = off")
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    max_explanation_tokens: int = Field(256, ge=1)
    max_branch_tokens: int = Field(256, ge=1)
    inter_weight: float = Field(1.0, ge=0.0, description="λ of the elad score")
    max_questions: int | None = Field(
        None, ge=1, description="score a random sample of the unasked pool, not all of it"
    )
    batch_size: int = Field(64, ge=1)
    num_workers: int | None = Field(None, ge=1, description="worker processes; default: one a core")
    precision: Literal["fp32", "int8"] = Field("fp32", description="which exported student scores the pool")


class SelectionConfig(Section):
    """Which questions the teacher sees (docs/METHOD.md §3)."""

    strategy: str = "elad"
    num_rounds: int = Field(3, ge=1)
    batch_size: int = Field(100, ge=1, description="questions a round")
    exploration_share: float = Field(0.15, ge=0.0, le=1.0)
    first_batch: Literal["score", "representative", "random"] = Field("score", description="how round 1 chooses")
    gumbel: bool = Field(True, description="Gumbel-top-k on log score; false: plain top by score")
    max_similarity: float = Field(
        0.95, gt=0.0, le=1.0, description="TF-IDF cosine above which a question is a near-duplicate"
    )
    cluster_cap: float = Field(0.25, gt=0.0, le=1.0, description="largest share of a batch from one cluster")
    rest_rounds: int = Field(2, ge=0, description="rounds that a question rests after it was set aside")


class TeacherConfig(Section):
    """The paid model that corrects the student, and what it may cost."""

    kind: Literal["openai", "dataset"] = "openai"
    url: str | None = Field(None, description="base URL of an OpenAI-compatible API, for example https://host/v1")
    model: str | None = None
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; empty: no key"
    )
    mode: Literal["revise", "rationale"] = Field(
        "revise", description="revise the student's steps, or pay for full rationales"
    )
    walk: Literal["single", "per_step"] = "single"
    max_depth: int = Field(
        3, ge=1, le=20, description="depth limit of the depth-first search, in corrections on one path"
    )
    max_calls: int = Field(8, ge=1, description="teacher calls for one question at most")
    max_tokens_per_question: int | None = Field(
        None, ge=1, description="prompt and completion tokens after which a question gets no further call"
    )
    style: str = Field(
        "", description="a sentence on how explanations should be written, put into the teacher's prompts"
    )
    temperature: float = Field(0.0, ge=0.0, le=2.0)
    resample_temperature: float = Field(
        0.7, ge=0.0, le=2.0, description="for the second and third answer to one question"
    )
    max_completion_tokens: int = Field(512, ge=1, description="completion cap of one reply, without its reasoning")
    max_reasoning_tokens: int | None = Field(
        None, ge=1, description="added to the cap for a model that reasons before it replies"
    )
    reasoning_effort: str | None = Field(None, description="sent as it is, for example low; unset: not sent")
    token_parameter: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens", description="name of the completion cap; the other one is used if it is refused"
    )
    structured: Literal["auto", "json_schema", "json_object", "text"] = "auto"
    extra_body: dict[str, Any] = Field(default_factory=dict)
    extra_headers: dict[str, str] = Field(default_factory=dict)
    max_concurrency: int = Field(8, ge=1, le=512)
    requests_per_minute: float | None = Field(None, gt=0)
    tokens_per_minute: float | None = Field(None, gt=0, description="prompt and completion tokens together")
    prompt_tokens_per_minute: float | None = Field(None, gt=0)
    completion_tokens_per_minute: float | None = Field(None, gt=0)
    connect_timeout_s: float = Field(10.0, gt=0)
    read_timeout_s: float = Field(120.0, gt=0)
    max_retry_s: float = Field(600.0, ge=0, description="give up on one request after this long")
    max_usd: float | None = Field(None, gt=0)
    max_requests: int | None = Field(None, ge=1)
    max_prompt_tokens: int | None = Field(None, ge=1)
    max_completion_tokens_total: int | None = Field(None, ge=1)
    max_questions: int | None = Field(None, ge=1)
    usd_per_million_prompt: float | None = Field(None, ge=0)
    usd_per_million_cached_prompt: float | None = Field(None, ge=0)
    usd_per_million_completion: float | None = Field(None, ge=0)
    batch: bool = Field(False, description="use the provider's batch API: cheaper, and hours of delay")
    batch_poll_s: float = Field(30.0, gt=0, description="how often to ask whether a batch is done")
    batch_discount: float = Field(0.5, gt=0.0, le=1.0, description="price factor of the provider's batch API")

    @property
    def completion_cap(self) -> int:
        """The most tokens that one reply may have, its reasoning included."""
        return self.max_completion_tokens + (self.max_reasoning_tokens or 0)

    @model_validator(mode="after")
    def _prices_for_a_cap(self) -> TeacherConfig:
        unknown = self.usd_per_million_prompt is None or self.usd_per_million_completion is None
        if self.max_usd is not None and self.kind == "openai" and unknown:
            raise ValueError(
                "max_usd needs usd_per_million_prompt and usd_per_million_completion: a cap in money cannot be kept "
                "with unknown prices"
            )
        return self


class TrainingConfig(Section):
    """Fine-tuning, with transformers' Trainer."""

    method: Literal["full", "lora"] = "full"
    epochs: float = Field(3.0, gt=0, description="passes over the examples")
    min_steps: int = Field(100, ge=1, description="fewest optimizer steps; few examples are passed over more often")
    max_steps: int | None = Field(
        None, ge=1, description="exact number of optimizer steps; overrides epochs and min_steps"
    )
    batch_size: int = Field(16, ge=1)
    gradient_accumulation: int = Field(1, ge=1)
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="peak learning rate; default: by size, 5e-5 × sqrt(1e9 / parameters), ten times that for a LoRA, "
        "2e-3 at most",
    )
    held_out_share: float = Field(
        0.05, ge=0.0, le=0.5, description="share of the examples whose loss is watched instead of trained on"
    )
    warmup_share: float = Field(0.05, ge=0.0, le=1.0)
    weight_decay: float = Field(0.0, ge=0.0)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    max_grad_norm: float = Field(1.0, gt=0)
    lora_rank: int = Field(16, ge=1)
    lora_alpha: float = Field(32.0, gt=0)
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    restart: bool = Field(True, description="start each round from the base student; false: go on from the last")
    seed_examples: str | None = Field(
        None, description="file with question, explanation and answer, mixed into every round"
    )
    max_seed_examples: int | None = Field(None, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="auto: bf16 on a GPU that has it, else fp32")
    device: Literal["auto", "cpu", "cuda"] = "auto"


class ExportConfig(Section):
    """ONNX export, parity and quantization."""

    quantize: Literal["int8", "int4", "none"] = "int8"
    max_logit_difference: float = Field(1e-4, gt=0)
    num_parity_prompts: int = Field(8, ge=1)
    min_agreement: float = Field(
        0.95, ge=0.0, le=1.0, description="same answers as fp32 below which the quantized student is not shipped"
    )
    fresh: bool = Field(False, description="always export anew instead of swapping weights into the last graph")
    include_fp32: bool = Field(False, description="put the fp32 graph into the package as well")


class StoppingConfig(Section):
    """When enough has been transferred (docs/METHOD.md §5)."""

    audit_size: int = Field(
        100, ge=0, description="n, questions the teacher answers once to certify agreement; 0: no audit"
    )
    epsilon: float = Field(0.10, gt=0.0, lt=1.0)
    alpha: float = Field(0.05, gt=0.0, lt=1.0)
    claim: Literal["stream", "pool"] = Field(
        "stream",
        description="what is certified: questions like the pool's (Clopper-Pearson), or this pool (hypergeometric)",
    )
    num_self_checks: int = Field(
        20, ge=0, description="audit questions that the teacher answers twice, for its own agreement"
    )
    stop_when_certified: bool = True
    kappa: float = Field(
        0.99, gt=0.0, le=1.0, description="agreement of successive students at which more data no longer helps"
    )
    kappa_rounds: int = Field(3, ge=2)
    min_gain: float = Field(0.005, ge=0.0, description="accuracy gain a round under which the curve counts as flat")
    flat_rounds: int = Field(3, ge=2)


class RunSection(Section):
    """The run itself."""

    out: str = Field("edgeelad-run", description="run folder")
    seed: int = Field(0, ge=0)
    ledger: str | None = Field(None, description="teacher ledger; default: ledger.sqlite in the run folder")
    replay: bool = Field(False, description="answer from the ledger only and send nothing to the teacher")


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


def load_config(path: Path, overrides: Iterable[str] = ()) -> RunConfig:
    """Read a TOML file and apply `section.key=value` overrides.

    Raises:
        ConfigError: The file cannot be read or parsed, or what it says is not a valid configuration.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
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
        ConfigError: Unknown keys, values out of range, malformed overrides; every problem is named in one line.
    """
    merged = {section: dict(keys) if isinstance(keys, Mapping) else keys for section, keys in data.items()}
    for override in overrides:
        section, key, value = parse_override(override)
        keys = merged.setdefault(section, {})
        if not isinstance(keys, dict):
            raise ConfigError(f"{source}: {section} must be a table")
        keys[key] = value
    try:
        return RunConfig.model_validate(merged)
    except ValidationError as error:
        raise ConfigError(f"{source}: " + "; ".join(_explain(problem) for problem in error.errors())) from None


def parse_override(text: str) -> tuple[str, str, Any]:
    """Parse `section.key=value`; the value is read as TOML, and as a plain string where it is none.

    >>> parse_override("training.epochs=2")
    ('training', 'epochs', 2)
    """
    name, equals, raw = text.partition("=")
    section, dot, key = name.strip().partition(".")
    if not equals or not dot or not section or not key:
        raise ConfigError(f"--set {text}: expected section.key=value, for example training.epochs=2")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw
    return section, key, value


def dump_toml(config: RunConfig, header: str = "") -> str:
    """Write a configuration as TOML that `load_config` reads back to an equal one; unset keys are left out."""
    lines = [f"# {line}" for line in header.splitlines()]
    for section, keys in config.model_dump().items():
        lines.append(f"\n[{section}]")
        lines.extend(f"{key} = {_toml_value(value)}" for key, value in keys.items() if value is not None)
    return "\n".join(lines).lstrip("\n") + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    # JSON's strings, numbers and booleans are TOML's; DEL is the one character that TOML wants escaped besides
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _explain(problem: Any) -> str:
    location = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = _known_keys(tuple(problem["loc"][:-1]))
        near = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        return f"unknown key {location}; {hint}"
    found = "" if problem["type"] in ("missing", "value_error") else f", found {problem['input']!r}"
    message = problem["msg"].removeprefix("Value error, ")
    return f"{location}: {message[:1].lower()}{message[1:]}{found}"


def _known_keys(path: tuple[Any, ...]) -> list[str]:
    model: type[BaseModel] = RunConfig
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
