"""Choose for each question the way to a verified explanation that is expected to cost the least money.

A `Planner` knows the configuration, what calls have cost, how often corrections have led to a verified explanation,
and how far the student's risk could be believed. It plans questions and learns from what came of them; the same
questions and annotations in the same order give the same plans.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeelad.config import TeacherConfig
from edgeelad.records import Annotation, Question, ReasoningTree, TeacherCall, TeachingPlan, TeachingWay
from edgeelad.teacher.plan.costs import CallCosts
from edgeelad.teacher.plan.luck import MAX_ACCIDENT, Luck
from edgeelad.teacher.plan.risk import RiskScale, risk_of_tree
from edgeelad.teacher.protocol import Abilities
from edgeelad.teacher.revision.own_chain import is_supported, own_chain
from edgeelad.text.answers import agree

# how often a call is expected to lead to a verified explanation, and the calls that this guess counts for
PRIOR_SUCCESS = {"find_first_error": 0.6, "check": 0.6, "rationale": 0.95}
PRIOR_WEIGHT = 4.0
# the first questions that are taught side by side; as many as are known already are added each time
FIRST_BLOCK = 4


@dataclass(slots=True)
class _Share:
    """How often something succeeds, from a guess on."""

    hits: float
    tries: float

    @property
    def mean(self) -> float:
        return self.hits / self.tries

    @property
    def hopeful(self) -> float:
        """One standard deviation above the mean: what is rarely tried may be better than it looks."""
        return min(1.0, self.mean + math.sqrt(self.mean * (1.0 - self.mean) / (self.tries + 1.0)))


class Planner:
    """Plans how questions are taught, and learns from what came of it.

    Args:
        config: The teacher's configuration.
        abilities: What the teacher can do; ways that it cannot go are not considered.
    """

    def __init__(self, config: TeacherConfig, abilities: Abilities) -> None:
        self._config, self._abilities = config, abilities
        self.costs = CallCosts(config)
        self._success = {prompt: _Share(share * PRIOR_WEIGHT, PRIOR_WEIGHT) for prompt, share in PRIOR_SUCCESS.items()}
        self._scale = RiskScale()
        self.num_known = 0

    def plan(
        self,
        question: Question,
        tree: ReasoningTree | None,
        risk: float | None = None,
        luck: Luck | None = None,
        doubts: Mapping[str, float] | None = None,
    ) -> TeachingPlan:
        """Plan one question.

        Args:
            question: The question.
            tree: The student's explanation and branches; None if it has none.
            risk: Probability that the student's answer is wrong, by whoever can tell; default: from the branches.
            luck: Of the batch; default: no explanation reaches the answer by luck.
            doubts: The own chains that may have, by question id (`doubtful`).
        """
        doubt = (doubts or {}).get(question.id)
        is_own = tree is not None and question.answer is not None and own_chain(tree, question.answer) is not None
        if tree is not None and is_own and doubt is None:
            costs = {"own": 0.0, "rationale": _rounded(self._rationale(question, tree.steps))}
            return TeachingPlan(question.id, "own", 0, 0.0, tree.num_steps, costs, self.costs.unit)
        is_sure = True
        if question.answer is not None or tree is None:
            wrong = 1.0 if doubt is None else doubt
        else:
            wrong = self._scale.apply(risk_of_tree(tree) if risk is None else risk)
            is_sure = is_supported(tree) and (luck is None or luck.accident(tree, wrong) <= MAX_ACCIDENT)
        depth = self._depth(question, tree)
        hopeful = self._ways(question, tree, wrong, depth, is_sure, is_hopeful=True)
        expected = self._ways(question, tree, wrong, depth, is_sure, is_hopeful=False)
        way = min(hopeful, key=hopeful.__getitem__)
        return TeachingPlan(
            question.id,
            way,
            depth,
            _rounded(wrong),
            tree.num_steps if tree is not None else 0,
            {name: _rounded(cost) for name, cost in expected.items()},
            self.costs.unit,
            expected[way] > min(expected.values()),
        )

    def note(self, question: Question, tree: ReasoningTree | None, annotation: Annotation, risk: float | None) -> None:
        """Learn from what came of a question; `tree` is None for one of an earlier round, whose tree is gone."""
        self.num_known += 1
        steps = annotation.student_steps
        for call in annotation.calls:
            self.costs.note(question, steps, call)
        prompts = [call.prompt for call in annotation.calls]
        is_corrected = annotation.rung in ("L2", "L3")
        for prompt in ("find_first_error", "check"):
            tried = [call for call in prompts if call == prompt]
            # a check that confirms the student's own explanation says nothing about corrections
            if tried and annotation.rung != "L1":
                self._success[prompt].tries += len(tried)
                self._success[prompt].hits += is_corrected and prompts[-1] == prompt
        if "judge_step" in prompts and annotation.rung != "L1":  # one walk over the steps, or several
            self._success["find_first_error"].tries += 1
            self._success["find_first_error"].hits += is_corrected
        num_rationales = prompts.count("rationale")
        if num_rationales:
            self._success["rationale"].tries += num_rationales
            self._success["rationale"].hits += annotation.rung == "L5"
        if tree is not None and question.answer is None and annotation.answer is not None:
            is_wrong = not agree(tree.answer, annotation.answer)
            self._scale.note(risk_of_tree(tree) if risk is None else risk, is_wrong)

    def note_call(self, question: Question, call: TeacherCall) -> None:
        """Learn from a call that served something else."""
        self.costs.note(question, (), call)

    def _depth(self, question: Question, tree: ReasoningTree | None) -> int:
        """How many corrections are tried: more than one if the next one is worth its price."""
        steps = tree.steps if tree is not None else ()
        gain = self._success["find_first_error"].mean * self._rationale(question, steps)
        price = self.costs.expect("find_first_error", question, steps)
        return self._config.max_depth if self._abilities.finds_errors and price < gain else 1

    def _ways(
        self,
        question: Question,
        tree: ReasoningTree | None,
        wrong: float,
        depth: int,
        is_sure: bool,
        *,
        is_hopeful: bool,
    ) -> dict[TeachingWay, float]:
        """The cost of each way that is possible, the more work of the student's in it the earlier.

        `is_sure` says that the student's explanation can be taken for right if its answer is.
        """
        steps = tree.steps if tree is not None else ()
        rationale = self._rationale(question, steps)
        ways: dict[TeachingWay, float] = {}
        if tree is None or not steps:
            return {"rationale": rationale}

        def price(prompt: str) -> float:
            return self.costs.expect(prompt, question, steps)

        def success(prompt: str) -> float:
            return self._success[prompt].hopeful if is_hopeful else self._success[prompt].mean

        miss = 1.0 - success("find_first_error")
        further = sum(miss**number for number in range(depth - 1)) * price("find_first_error")
        if question.answer is not None:
            is_single = self._config.walk == "single"
            if self._abilities.finds_errors if is_single else self._abilities.judges_steps:
                first = price("find_first_error")
                if not is_single:
                    first, further = price("judge_step") * (1 + len(steps)) / 2, further * 2
                ways["correct"] = first + wrong * (miss * further + miss**depth * rationale)
        else:
            if is_sure:
                ways["answer"] = price("answer") + wrong * rationale
            if self._abilities.checks and self._config.walk == "single":
                rest = wrong * (1.0 - success("check"))
                ways["check"] = price("check") + rest * (further + miss ** (depth - 1) * rationale)
        ways["rationale"] = rationale
        return ways

    def _rationale(self, question: Question, steps: Sequence[str]) -> float:
        """The cost of an explanation, and of a second one if the first is not verified."""
        failed = 1.0 - self._success["rationale"].mean
        return self.costs.expect("rationale", question, steps) * (1.0 + failed)


@dataclass(frozen=True, slots=True)
class Planned:
    """What a run brings to planning, and keeps of it.

    Attributes:
        planner: Plans and learns; has learned from earlier rounds already.
        risks: Probability that the student's answer is wrong, by question id, as far as it is known.
        recorded: Plans by question id that were recorded before the run was interrupted; they stand.
        record: Called with the next questions' plans before anything is paid for them.
    """

    planner: Planner
    risks: Mapping[str, float] = field(default_factory=dict)
    recorded: Mapping[str, TeachingPlan] = field(default_factory=dict)
    record: Callable[[Sequence[TeachingPlan]], None] = lambda plans: None


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
