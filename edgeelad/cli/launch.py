"""What `edgeelad distill` and `edgeelad export` do before and after the run itself: find the configuration, start the
quickstart's teacher where there is none, and show the result with the commands that come next.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import shlex
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from edgeelad.config import RunConfig, dump_toml, load_config, make_config, parse_override
from edgeelad.errors import ConfigError, MissingExtraError, RunError, UsageError
from edgeelad.files import read_jsonl, write_text
from edgeelad.progress import Progress
from edgeelad.run.folder import RunFolder

if TYPE_CHECKING:
    from edgeelad.stages.estimate import DryRun

QUICKSTART_FOLDER = Path("runs/quickstart")
# what a run under way may be told anew: limits, prices, speed, and how requests are carried (a provider that wants
# another name for the completion cap says so when the run has begun). None of it is part of what is asked, so a reply
# that was paid for stays the reply. A batch that is pending has to be fetched before `batch` is switched off; the
# client says so.
RESUMABLE = {
    "teacher": {
        "max_usd", "max_requests", "max_prompt_tokens", "max_completion_tokens_total", "max_questions",
        "max_completion_tokens", "usd_per_million_prompt", "usd_per_million_cached_prompt",
        "usd_per_million_completion", "batch_discount",
        "max_concurrency", "requests_per_minute", "tokens_per_minute", "prompt_tokens_per_minute",
        "completion_tokens_per_minute", "connect_timeout_s", "read_timeout_s", "max_retry_s", "batch", "batch_poll_s",
        "api_key_env", "extra_headers", "token_parameter", "structured",
    },
    "selection": {"num_rounds"},
    "scoring": {"num_workers"},
    "export": {"fresh"},
    "stopping": {"stop_when_certified"},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be run, and where; `config` is None for a quickstart, which makes its own."""

    folder: Path
    config: RunConfig | None
    is_quickstart: bool
    is_resumed: bool
    overrides: tuple[str, ...]
    seed: int

    @property
    def resume_command(self) -> str:
        """The command that goes on with this run."""
        return f"edgeelad distill {shlex.quote(str(self.folder))} --resume"


def plan(
    target: Path | None, out: Path | None, flags: Mapping[str, Any], overrides: tuple[str, ...], *, resume: bool
) -> Plan:
    """Resolve the arguments of `edgeelad distill`.

    Raises:
        UsageError, ConfigError: Arguments that do not go together, or a configuration that is wrong.
        RunError: A run folder that is not there, or that holds a run already.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if resume:
        return _resumed(target or out, given, overrides)
    data = _flags_to_data(given)
    if target is None and not {"pool", "student"} & set(given):
        if set(given) - {"seed", "rounds", "batch", "fresh", "ledger", "replay"}:
            raise UsageError("name the questions with --pool and the student with --student, or a configuration file")
        folder = _free_folder(out or QUICKSTART_FOLDER, is_default=out is None)
        settings = _settings(data)
        return Plan(folder, None, True, False, (*settings, *overrides), given.get("seed", 0))
    if target is not None and target.is_dir():
        raise UsageError(f"{target} is a folder; add --resume to go on with the run in it")
    if target is not None:
        settings = _settings(data)
        config = load_config(target, (*settings, *overrides))
    else:
        config = make_config(data, overrides, source="command line")
    default_out = "out" not in config.run.model_fields_set
    folder = _free_folder(
        out or _default_folder(config) if out or default_out else Path(config.run.out), is_default=False
    )
    config = config.model_copy(update={"run": config.run.model_copy(update={"out": str(folder)})})
    return Plan(folder, config, False, False, overrides, config.run.seed)


@contextmanager
def environment(plan: Plan, progress: Progress) -> Iterator[RunConfig]:
    """The configuration to run, with the quickstart's data, student and teacher in place where it is one.

    Raises:
        MissingExtraError: What fine-tuning needs is not installed.
    """
    require_distill("edgeelad distill")
    if not plan.is_quickstart:
        assert plan.config is not None
        yield plan.config
        return
    from edgeelad.quickstart.run import quickstart

    with quickstart(plan.folder, plan.seed, plan.overrides, progress) as config:
        yield config


def dry_run(plan: Plan, progress: Progress) -> DryRun:
    """What the first round of a new run would send and cost; works in a temporary folder and sends nothing.

    Raises:
        UsageError: The run is under way.
    """
    if plan.is_resumed:
        raise UsageError("--dry-run is for a new run; `edgeelad ledger stats` tells what a run has spent")
    with tempfile.TemporaryDirectory() as temporary:
        there = Path(temporary) / "run"
        config = plan.config and plan.config.model_copy(
            update={"run": plan.config.run.model_copy(update={"out": str(there)})}
        )
        with environment(dataclasses.replace(plan, folder=there, config=config), progress) as resolved:
            from edgeelad.stages import dry_run as estimate

            return estimate(resolved, RunFolder(there), progress)


def require_distill(command: str) -> None:
    """Say at once, before anything is made, what a command of the workstation lacks.

    Raises:
        MissingExtraError: It lacks something.
    """
    for module in ("torch", "transformers", "optimum", "onnx", "accelerate", "sklearn", "requests"):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(module, "distill", command)


def show_result(plan: Plan, summary: Mapping[str, Any], console: Console) -> None:
    """The table of rounds, the certificate, and what to do next."""
    from edgeelad.cli.show import certificate_sentence, rounds_table

    folder = RunFolder(plan.folder)
    console.print(rounds_table(read_jsonl(folder.metrics)))
    console.print(certificate_sentence(summary["certificate"]), highlight=False)
    seconds = sum(summary["seconds"].values())
    console.print(f"Stopped: {summary['stopped_because']}. {seconds / 60:.1f} minutes.", highlight=False)
    console.print(f"Report:  {folder.report}\nPackage: {folder.package}", highlight=False, soft_wrap=True)
    if summary["stopped_because"] == "budget":
        console.print(f"A larger budget goes on with: {plan.resume_command} --set teacher.max_usd=…", soft_wrap=True)
    if plan.is_quickstart:
        console.print(NEXT_COMMANDS.format(package=folder.package), highlight=False, soft_wrap=True, markup=False)


NEXT_COMMANDS = """
The same with your own pool, student and teacher:
  edgeelad distill --pool questions.jsonl --student HuggingFaceTB/SmolLM2-135M-Instruct --teacher-url https://HOST/v1 \
--teacher-model NAME --out runs/mine
  edgeelad score --model runs/mine/package --pool more.jsonl --out scores.jsonl
  edgeelad run {package} "Finn has 3 boxes of 4 shells and 5 more shells. How many shells does Finn have?"
"""


def show_quickstart(folder: Path, progress: Progress) -> None:
    """Ask the packaged student one question like the pool's, as `edgeelad run` does, and show its steps."""
    from edgeelad.edge.run import answer_text

    question = next(iter(read_jsonl(folder / "quickstart" / "test.jsonl")))
    progress.say(f"\nThe packaged student is asked: {question['question']}")
    progress.say(answer_text(folder / "package", question["question"]))
    progress.say(f"(the right answer is {question['answer']})\n")


def export_folder(student: str, out: Path, quantize: str, progress: Progress) -> None:
    """Load a torch student, export it to `out`, and check it against torch on built-in prompts."""
    require_distill("edgeelad export")
    from edgeelad.config import ExportConfig, StudentConfig
    from edgeelad.export import export_student
    from edgeelad.records import Question
    from edgeelad.training import prepare_student

    if out.exists():
        raise UsageError(f"{out} exists already; name a new folder with --out")
    questions = [Question(str(i), text) for i, text in enumerate(PARITY_QUESTIONS)]
    with tempfile.TemporaryDirectory() as temporary:
        progress.start("Loading the student")
        folder = prepare_student(student, Path(temporary) / "student", StudentConfig(model=student))
        progress.finish()
        progress.start("Exporting to ONNX")
        config = ExportConfig.model_validate({"quantize": quantize})
        result = export_student(folder, out, config, parity_questions=questions, previous=None)
        progress.finish(f"parity {result.max_logit_difference:.1e}")
        if result.warning is not None:
            progress.warn(result.warning)


PARITY_QUESTIONS = (
    "Tom has 3 apples and buys 4 more. How many apples does Tom have?",
    "A box holds 6 pens. How many pens are in 5 boxes?",
    "What is the capital of France?",
    "Anna had 20 euros and spent 7. How much money is left?",
)


def _resumed(folder: Path | None, given: Mapping[str, Any], overrides: tuple[str, ...]) -> Plan:
    if folder is None:
        raise UsageError("--resume needs the run folder, for example: edgeelad distill runs/a --resume")
    path = RunFolder(folder).config
    is_quickstart = (folder / "quickstart").is_dir()
    if not path.exists() and not is_quickstart:
        raise RunError(f"{folder}: nothing to resume (no config.toml in it); name the folder that `distill` wrote")
    fixed = set(given) - {"rounds", "budget_usd", "fresh"}
    if fixed:
        raise UsageError(f"--{min(fixed)} cannot be changed on --resume; start a new run")
    changes = (*_settings(_flags_to_data(given)), *overrides)
    for change in changes:
        section, key, _ = parse_override(change)
        if key not in RESUMABLE.get(section, ()):
            raise ConfigError(f"--set {change}: {section}.{key} cannot be changed on --resume; start a new run")
    if not path.exists():  # the quickstart was stopped before its run began
        return Plan(folder, None, True, False, changes, _quickstart_seed(folder))
    config = load_config(path, changes)
    config = config.model_copy(update={"run": config.run.model_copy(update={"out": str(folder)})})
    if changes:
        write_text(path, dump_toml(config, header="changed on --resume: " + " ".join(changes)))
    return Plan(folder, config, is_quickstart, True, changes, config.run.seed)


def _quickstart_seed(folder: Path) -> int:
    from edgeelad.quickstart.run import recorded_seed

    return recorded_seed(folder)


def _flags_to_data(given: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    places = {
        "pool": ("pool", "path"),
        "format_": ("pool", "format"),
        "answer_kind": ("pool", "kind"),
        "student": ("student", "model"),
        "kind": ("teacher", "kind"),
        "teacher_url": ("teacher", "url"),
        "teacher_model": ("teacher", "model"),
        "budget_usd": ("teacher", "max_usd"),
        "rounds": ("selection", "num_rounds"),
        "batch": ("selection", "batch_size"),
        "seed": ("run", "seed"),
        "fresh": ("export", "fresh"),
        "ledger": ("run", "ledger"),
        "replay": ("run", "ledger"),
    }
    if "replay" in given:
        if "ledger" in given:
            raise UsageError("--ledger and --replay do not go together: a replay answers from its own ledger")
        if not Path(given["replay"]).is_file():
            raise UsageError(f"--replay {given['replay']}: no such ledger")
    data: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        section, key = places[name]
        data.setdefault(section, {})[key] = str(value) if isinstance(value, Path) else value
    if "replay" in given:
        data["run"]["replay"] = True
    return data


def _settings(data: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The same as overrides; JSON's scalars are TOML's."""
    return tuple(
        f"{section}.{key}={json.dumps(value)}" for section, keys in data.items() for key, value in keys.items()
    )


def _default_folder(config: RunConfig) -> Path:
    return Path("runs") / (Path(config.pool.path).stem if config.pool.path else "run")


def _free_folder(folder: Path, *, is_default: bool) -> Path:
    """The folder, if no run is in it; for the quickstart's default the next free name."""
    number, candidate = 1, folder
    while (candidate / "pool.json").exists() or (candidate / "quickstart").is_dir():
        if not is_default:
            raise RunError(
                f"{folder} holds a run already; go on with: edgeelad distill {shlex.quote(str(folder))} --resume, "
                "or choose another --out"
            )
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    if candidate.exists() and not candidate.is_dir():
        raise RunError(f"{candidate} is a file, not a folder; choose another --out")
    return candidate
