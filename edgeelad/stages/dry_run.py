"""Estimate a run (`--dry-run`): do the free part of the first round, then count what the teacher would be sent."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from edgeelad.config import RunConfig, TeacherConfig
from edgeelad.engine.codec import Codec
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.student import Student
from edgeelad.errors import UsageError
from edgeelad.progress import Progress
from edgeelad.records import TeacherUsage
from edgeelad.run.folder import RunFolder
from edgeelad.stages.export import export
from edgeelad.stages.open_run import open_run
from edgeelad.stages.run import Run
from edgeelad.stages.score import score
from edgeelad.stages.select import select
from edgeelad.teacher import BUILT_IN
from edgeelad.teacher.estimate import GUESSED_COMPLETION, Estimate, estimate_round
from edgeelad.teacher.ledger.budget import PICO, TOKENS_AROUND_MESSAGE, Spent, prices_of
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.prompts.messages import render_messages


@dataclass(frozen=True, slots=True)
class DryRun:
    """The cost of the audit and of the first round."""

    num_pool: int
    num_audit: int
    audit: TeacherUsage
    round: Estimate
    num_rounds: int

    def figures(self) -> dict[str, Any]:
        """The figures for a program."""
        return {
            "pool": self.num_pool,
            "audit_questions": self.num_audit,
            "audit": dataclasses.asdict(self.audit),
            "round": dataclasses.asdict(self.round),
            "max_rounds": self.num_rounds,
        }

    def text(self) -> str:
        """The figures for a person."""
        estimate = self.round
        basis = (
            "this teacher's replies in the ledger"
            if estimate.is_calibrated
            else "guesses, for no ledger has replies of this teacher"
            if estimate.high.requests
            else "what can be known: nothing is bought"
        )
        lines = [
            f"Nothing was sent. {self.num_pool:,} questions; the first prompt of round 1:",
            "",
            *(f"  [{message.role}] {line}" for message in estimate.example for line in message.content.splitlines()),
            "",
            f"{'':28}{'requests':>10}{'prompt tokens':>15}{'completion tokens':>19}{'cost':>10}",
            _row(f"audit, once ({self.num_audit} questions)", self.audit),
            _row(f"round 1, low ({estimate.num_questions} questions)", estimate.low),
            _row("round 1, expected", estimate.expected),
            _row("round 1, high", estimate.high),
            f"The expected cost is based on {basis}. The run has up to {self.num_rounds} rounds.",
        ]
        if estimate.allowed_questions is not None:
            lines.append(f"{estimate.limiting_cap} would allow about {estimate.allowed_questions} questions.")
        return "\n".join(lines)


def dry_run(config: RunConfig, folder: RunFolder, progress: Progress) -> DryRun:
    """Prepare, export and score the student, select the first batch, and estimate the cost. Sends nothing.

    Raises:
        EdgeeladError: What would also stop the run.
    """
    if config.teacher.kind not in BUILT_IN:
        raise UsageError(f"--dry-run knows no cost of teacher.kind = {config.teacher.kind!r}; start the run with a cap")
    run = open_run(config, folder, progress)
    export(run, 0)
    score(run, 1)
    select(run, 1)
    batch = [run.pool[row.id] for row in folder.round(1).selected.read()]
    codec = Codec.load(folder.round(0).student)

    def count(text: str) -> int:
        return len(codec.encode_completion(text))

    with Student.open(folder.round(0).onnx, EngineOptions(num_threads=run.num_workers)) as student:
        trees = {tree.question.id: tree for tree in student.generate_trees(batch, run.tree_params(1))}
    audit = _audit(run, count)
    estimate = estimate_round(
        batch,
        trees,
        run.teacher_config,
        ledger_path=run.ledger,
        run=run.id,
        count_tokens=count,
        before=_spent(audit, len(run.audit)),
    )
    if config.teacher.kind == "dataset":
        free = TeacherUsage(cost_usd=0.0)
        estimate = dataclasses.replace(estimate, low=free, expected=free, high=free, allowed_questions=None)
    return DryRun(len(run.pool), len(run.audit), audit, estimate, config.selection.num_rounds)


def _spent(audit: TeacherUsage, num_audit: int) -> Spent:
    cost = None if audit.cost_usd is None else round(audit.cost_usd * PICO)
    return Spent(audit.requests, audit.prompt_tokens, audit.completion_tokens, cost, num_audit)


def _audit(run: Run, count: Any) -> TeacherUsage:
    """The cost of answering the audit sample; zero if the pool itself is the teacher."""
    config: TeacherConfig = run.config.teacher
    if config.kind == "dataset" or not run.audit:
        return TeacherUsage(cost_usd=0.0)
    prompts = [
        sum(count(message.content) + TOKENS_AROUND_MESSAGE // 2 for message in render_messages("answer", question))
        for question in run.audit
    ]
    twice = prompts[: run.config.stopping.num_self_checks]
    requests = len(prompts) + len(twice)
    completion = requests * min(GUESSED_COMPLETION["answer"], config.completion_cap)
    cost = prices_of(config).cost(Billing(sum(prompts) + sum(twice), completion))
    return TeacherUsage(requests, sum(prompts) + sum(twice), completion, None if cost is None else cost / PICO)


def _row(label: str, usage: TeacherUsage) -> str:
    cost = "unknown" if usage.cost_usd is None else f"${usage.cost_usd:.4f}"
    return f"{label:28}{usage.requests:>10,}{usage.prompt_tokens:>15,}{usage.completion_tokens:>19,}{cost:>10}"
