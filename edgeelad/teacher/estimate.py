"""What a round of teaching would cost: real prompts, counted, nothing sent.

Low: the student's own chains are all right, if that is not known already. High: every question uses all the calls
that it may, every completion its cap. Expected: as many calls and tokens a question as the ledger has seen so far, else
the guesses below. Takes questions and trees, gives an `Estimate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeelad.config import TeacherConfig
from edgeelad.records import Question, ReasoningTree, TeacherUsage, TeachingPlan
from edgeelad.teacher.ledger.budget import PICO, TOKENS_AROUND_MESSAGE, Caps, Prices, Spent, prices_of
from edgeelad.teacher.ledger.counts import PromptRates
from edgeelad.teacher.ledger.exchange import Billing
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.plan.luck import Luck, doubtful
from edgeelad.teacher.plan.plan import Planner
from edgeelad.teacher.prompts.messages import Message, render_judge_messages, render_messages
from edgeelad.teacher.protocol import Abilities
from edgeelad.teacher.revision.own_chain import own_chain

# of English text, without a tokenizer
BYTES_PER_TOKEN = 4
# guesses, for a teacher that the ledger does not know: completion tokens of a reply, and calls for a question that no
# own chain settles
GUESSED_COMPLETION = {
    "answer": 50,
    "check": 80,
    "find_first_error": 60,
    "judge_step": 30,
    "complete": 80,
    "rationale": 120,
}
GUESSED_CALLS = {"find_first_error": 1.3, "judge_step": 4.0, "complete": 0.2, "rationale": 0.15}
# share of questions that an own chain settles, if there is no tree
GUESSED_OWN_SHARE = 0.4
# steps of an explanation that is not there yet
GUESSED_STEPS = ("One sentence of an explanation, about as long as this.",) * 4


ALL_ABILITIES = Abilities()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a round would cost.

    Attributes:
        num_questions: Questions in it.
        low: The least.
        expected: The likely.
        high: The most that the limits a question allow.
        is_calibrated: Whether `expected` rests on the ledger.
        allowed_questions: How many questions the caps would allow at the expected cost; None = all.
        limiting_cap: The option that limits them; "" for none.
        example: The first prompt that would be sent.
    """

    num_questions: int
    low: TeacherUsage
    expected: TeacherUsage
    high: TeacherUsage
    is_calibrated: bool
    allowed_questions: int | None
    limiting_cap: str
    example: tuple[Message, ...]


def estimate_round(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    config: TeacherConfig,
    *,
    ledger_path: Path | None = None,
    run: str = "",
    count_tokens: Callable[[str], int] | None = None,
    before: Spent | None = None,
) -> Estimate:
    """Estimate what annotating `questions` would cost.

    Args:
        questions: The round's batch.
        trees: The student's reasoning, for those questions that have it.
        config: Walk, limits, caps and prices.
        ledger_path: A ledger that knows this teacher, for the expected cost and what is spent; need not be there.
        run: Whose spending counts against the caps.
        count_tokens: The tokens of a text; default: a token for four bytes.
        before: What the run will have bought by then and the ledger does not hold yet.
    """
    count = count_tokens or (lambda text: -(-len(text.encode()) // BYTES_PER_TOKEN))
    rates, spent = _from_ledger(ledger_path, config, run)
    planner = Planner(config, ALL_ABILITIES) if config.mode == "auto" else None
    totals = {"low": _Sum(), "expected": _Sum(), "high": _Sum()}
    luck = Luck(questions, trees)
    doubts = doubtful(questions, trees, {}, luck) if config.mode != "rationale" else {}
    for question in questions:
        prompts = _prompts(question, trees.get(question.id), config, count)
        plan = planner.plan(question, trees.get(question.id), None, luck, doubts) if planner is not None else None
        doubt = doubts.get(question.id)
        for level, calls in _calls(question, trees.get(question.id), config, rates, plan, doubt).items():
            for prompt_id, number in calls.items():
                completion = _completion(prompt_id, level, config, rates)
                totals[level].add(number, prompts[prompt_id], completion)
    usages = {level: total.usage(prices_of(config)) for level, total in totals.items()}
    spent = spent if before is None else spent + before
    allowed, cap = _allowed(usages["expected"], len(questions), Caps.from_config(config), spent)
    first = _first_prompt(questions, trees, config, planner)
    return Estimate(len(questions), usages["low"], usages["expected"], usages["high"], bool(rates), allowed, cap, first)


@dataclass(slots=True)
class _Sum:
    requests: float = 0.0
    prompt_tokens: float = 0.0
    completion_tokens: float = 0.0

    def add(self, number: float, prompt_tokens: float, completion_tokens: float) -> None:
        self.requests += number
        self.prompt_tokens += number * prompt_tokens
        self.completion_tokens += number * completion_tokens

    def usage(self, prices: Prices) -> TeacherUsage:
        prompt, completion = round(self.prompt_tokens), round(self.completion_tokens)
        cost = prices.cost(Billing(prompt, completion))
        return TeacherUsage(round(self.requests), prompt, completion, None if cost is None else cost / PICO)


def _from_ledger(path: Path | None, config: TeacherConfig, run: str) -> tuple[Mapping[str, PromptRates], Spent]:
    if path is None or not path.exists() or not config.model:
        return {}, Spent()
    with Ledger(path) as ledger:
        return ledger.rates(config.model), ledger.spent(run, prices_of(config))


def _calls(
    question: Question,
    tree: ReasoningTree | None,
    config: TeacherConfig,
    rates: Mapping[str, PromptRates],
    plan: TeachingPlan | None,
    doubt: float | None,
) -> dict[str, dict[str, float]]:
    """Calls of each prompt for one question, at each level; `plan` with the mode "auto", `doubt` of its own chain."""
    if plan is not None and plan.way == "answer":
        return {
            "low": {"answer": 1},
            "expected": {"answer": 1, "rationale": plan.risk},
            "high": {"answer": 1, "rationale": min(2, config.max_calls - 1)},
        }
    if config.mode == "rationale" or (plan is not None and plan.way == "rationale"):
        return {"low": {"rationale": 1}, "expected": {"rationale": 1}, "high": {"rationale": min(2, config.max_calls)}}
    if tree is not None and tree.steps and question.answer is None and config.walk == "single":
        return _check_calls(config, rates)
    answers = 0 if question.answer is not None else 2
    own = own_chain(tree, question.answer) if tree is not None and question.answer is not None else None
    if own is not None and doubt is None:
        return {"low": {}, "expected": {}, "high": {}}
    is_wrong = tree is not None and question.answer is not None
    walk = "find_first_error" if config.walk == "single" else "judge_step"
    low: dict[str, float] = {"answer": answers}
    if is_wrong:
        low[walk] = 1
    share = 1.0 if is_wrong else 1.0 - GUESSED_OWN_SHARE
    expected: dict[str, float] = {"answer": answers}
    for prompt_id in (walk, "complete", "rationale"):
        known = rates.get(prompt_id)
        calls = known.calls_per_question if known is not None else 0.0 if rates else GUESSED_CALLS[prompt_id]
        expected[prompt_id] = share * calls if doubt is None else 1.0 if prompt_id == walk else doubt * calls
    rest = max(0, config.max_calls - (answers and answers + 1))
    high: dict[str, float] = {"answer": min(answers and answers + 1, config.max_calls)}
    high["rationale"] = min(1, rest)
    high["complete"] = min(1, max(0, rest - 1))
    high[walk] = max(0, rest - 2)
    if walk == "find_first_error":
        high[walk] = min(high[walk], config.max_depth)
    return {"low": low, "expected": expected, "high": high}


def _check_calls(config: TeacherConfig, rates: Mapping[str, PromptRates]) -> dict[str, dict[str, float]]:
    """Calls for a question without an answer in the pool, if one call answers it and corrects the student."""
    expected: dict[str, float] = {"check": 1}
    for prompt_id in ("find_first_error", "rationale"):
        known = rates.get(prompt_id)
        guess = (1.0 - GUESSED_OWN_SHARE) * GUESSED_CALLS["rationale"]
        expected[prompt_id] = known.calls_per_question if known is not None else 0.0 if rates else guess
    rest = config.max_calls - 1
    high: dict[str, float] = {"check": 1, "rationale": min(2, rest)}
    high["find_first_error"] = max(0, min(config.max_depth - 1, rest - 2))
    return {"low": {"check": 1}, "expected": expected, "high": high}


def _completion(prompt_id: str, level: str, config: TeacherConfig, rates: Mapping[str, PromptRates]) -> float:
    if level == "high":
        return config.completion_cap
    known = rates.get(prompt_id)
    typical = known.completion_tokens if known is not None else GUESSED_COMPLETION[prompt_id]
    return min(float(typical), config.completion_cap)


def _prompts(
    question: Question, tree: ReasoningTree | None, config: TeacherConfig, count: Callable[[str], int]
) -> dict[str, int]:
    """Tokens of each prompt about one question."""
    steps = tree.steps if tree is not None and tree.steps else GUESSED_STEPS
    reference = question.answer if question.answer is not None else "42"
    rendered = {
        "answer": render_messages("answer", question),
        "check": render_messages("check", question, style=config.style, steps=steps, student_answer="42"),
        "find_first_error": render_messages(
            "find_first_error", question, style=config.style, reference=reference, steps=steps, student_answer="42"
        ),
        # the middle of the conversation stands for all of it
        "judge_step": render_judge_messages(
            question, steps[-1], style=config.style, reference=reference, steps=steps[: len(steps) // 2]
        ),
        "complete": render_messages(
            "complete", question, style=config.style, reference=reference, steps=steps[: len(steps) // 2]
        ),
        "rationale": render_messages("rationale", question, style=config.style, reference=reference),
    }
    return {
        prompt_id: sum(count(message.content) + TOKENS_AROUND_MESSAGE // 2 for message in messages)
        for prompt_id, messages in rendered.items()
    }


def _allowed(expected: TeacherUsage, num_questions: int, caps: Caps, spent: Spent) -> tuple[int | None, str]:
    """How many questions fit under the tightest cap, and which that is."""
    cost = None if expected.cost_usd is None else expected.cost_usd * PICO
    limits = [
        ("teacher.max_usd", caps.cost_pico, spent.cost_pico, cost),
        ("teacher.max_requests", caps.requests, spent.requests, expected.requests),
        ("teacher.max_prompt_tokens", caps.prompt_tokens, spent.prompt_tokens, expected.prompt_tokens),
        (
            "teacher.max_completion_tokens_total",
            caps.completion_tokens,
            spent.completion_tokens,
            expected.completion_tokens,
        ),
        ("teacher.max_questions", caps.questions, spent.questions, num_questions),
    ]
    fitting = [
        (int(num_questions * max(0, cap - (used or 0)) / wanted), option)
        for option, cap, used, wanted in limits
        if cap is not None and wanted
    ]
    allowed, option = min(fitting, default=(num_questions, ""))
    return (allowed, option) if allowed < num_questions else (None, "")


def _first_prompt(
    questions: Sequence[Question],
    trees: Mapping[str, ReasoningTree],
    config: TeacherConfig,
    planner: Planner | None,
) -> tuple[Message, ...]:
    if not questions:
        return ()
    question = questions[0]
    tree = trees.get(question.id)
    way = planner.plan(question, tree).way if planner is not None else ""
    if way == "answer":
        return render_messages("answer", question)
    if "rationale" in (config.mode, way) or (question.answer is not None and tree is None):
        return render_messages("rationale", question, style=config.style, reference=question.answer)
    if question.answer is None or tree is None:
        if tree is None or not tree.steps or config.walk == "per_step":
            return render_messages("answer", question)
        return render_messages("check", question, style=config.style, steps=tree.steps, student_answer=tree.answer)
    return render_messages(
        "find_first_error",
        question,
        style=config.style,
        reference=question.answer,
        steps=tree.steps,
        student_answer=tree.answer,
    )
