"""How likely a wrong explanation reaches the right answer by luck, so that it must not be taken for right.

Where the student says yes or no, chooses among four, or writes one digit, much of what it answers rightly it does not
know; and one that is sure of a wrong way is sure of it in every branch, so that its own chains support each other. By
Bayes' rule, an explanation that reaches the answer is such an accident with probability w·l / (w·l + 1 − w): w is the
probability that the student does not know the way, l that its chain would reach an answer as they occur. The latter is
measured without the teacher: in how many other questions of the batch is the answer one for which the student would
have an own chain here?
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from edgeelad.records import AnswerKind, Question, ReasoningTree
from edgeelad.teacher.plan.risk import RiskScale, risk_of_tree
from edgeelad.teacher.revision.own_chain import own_chain
from edgeelad.text.answers import agree

MAX_SHARE = 0.01  # accidents that are expected among what a batch teaches, at most
RISK_OF_WRONG = 0.5  # of a question whose answer only sampled chains reach, at least
MAX_ACCIDENT = 0.03  # probability up to which one question's explanation is taken for right
# an answer that more than this share has, and so many questions at least, is reached by luck too easily
COMMON_SHARE, COMMON_QUESTIONS = 0.05, 5
# kinds with so many possible answers that two wrong ones hardly ever agree, as a rule
OPEN_KINDS = frozenset({"number", "text"})
# before questions are known, an answer is one of so many; and how many questions that counts for
_PRIOR_ANSWERS: dict[AnswerKind, int] = {"boolean": 2, "number": 100, "text": 100}
_PRIOR_WEIGHT = 20.0


class Luck:
    """The answers of a batch, and with them the luck of each chain.

    Args:
        questions: The batch.
        trees: The student's trees, by question id; where the answer is not known, the student's stands for it.
    """

    def __init__(self, questions: Sequence[Question], trees: Mapping[str, ReasoningTree]) -> None:
        self._answers: dict[str, str] = {}
        self._counts: Counter[tuple[AnswerKind, str]] = Counter()
        self._totals: Counter[AnswerKind] = Counter()
        for question in questions:
            tree = trees.get(question.id)
            answer = question.answer or (tree.answer if tree is not None else None)
            if answer is not None:
                self._answers[question.id] = answer
                self._counts[question.kind, answer] += 1
                self._totals[question.kind] += 1

    def of_answer(self, question: Question, answer: str) -> float:
        """The chance that another question's answer is this one."""
        num = self._totals[question.kind] - (question.id in self._answers)
        prior = 1.0 / (len(question.choices) or _PRIOR_ANSWERS.get(question.kind, 4))
        return (self._others(question, answer) + _PRIOR_WEIGHT * prior) / (num + _PRIOR_WEIGHT)

    def is_common(self, question: Question, answer: str) -> bool:
        """Whether so many other questions have this answer that a student may well reach it by luck."""
        is_seen = self._others(question, answer) >= COMMON_QUESTIONS or question.kind not in OPEN_KINDS
        return is_seen and self.of_answer(question, answer) > COMMON_SHARE

    def of_tree(self, tree: ReasoningTree) -> float:
        """The chance that the tree has an own chain for another question's answer."""
        return min(sum(self.of_answer(tree.question, answer) for answer in _own_answers(tree)), 1.0)

    def accident(self, tree: ReasoningTree, risk: float) -> float:
        """The probability that an own chain which reaches the answer does so in a wrong way.

        Args:
            tree: The student's.
            risk: The probability that its answer is wrong.
        """
        luck = self.of_tree(tree)
        unknown = min(risk / (1.0 - luck), 1.0) if luck < 1.0 else 1.0
        by_luck = unknown * luck
        return by_luck / (by_luck + (1.0 - unknown)) if by_luck else 0.0

    def _others(self, question: Question, answer: str) -> int:
        """How many other questions have an answer."""
        own = self._answers.get(question.id)
        return max(self._counts[question.kind, answer] - (own is not None and agree(own, answer)), 0)


def doubtful(
    questions: Sequence[Question], trees: Mapping[str, ReasoningTree], risks: Mapping[str, float], luck: Luck
) -> dict[str, float]:
    """The questions whose own chains are not taken for right, with the probability of an accident.

    Each is judged for itself (`MAX_ACCIDENT`). Where the pool has the answers, the risks are first corrected by what
    the student got wrong, and own chains are taken for right, the surest first, as long as no more than `MAX_SHARE` of
    the batch are expected to be accidents.

    Args:
        questions: The batch.
        trees: The student's trees by question id; those without one have no own chain.
        risks: The probability that the student's answer is wrong, by id; default: from the branches.
        luck: Of the batch.
    """
    given = {id_: risks.get(id_, risk_of_tree(tree)) for id_, tree in trees.items()}
    found = accidents(questions, trees, given, luck)
    sure = surest(found, MAX_SHARE * len(questions))
    doubts = {id_: accident for id_, accident in found.items() if id_ not in sure}
    for question in questions:
        tree = trees.get(question.id)
        if question.answer is None and tree is not None and _own_answers(tree):
            accident = luck.accident(tree, given[question.id])
            if accident > MAX_ACCIDENT:
                doubts[question.id] = accident
    return doubts


def accidents(
    questions: Sequence[Question], trees: Mapping[str, ReasoningTree], risks: Mapping[str, float], luck: Luck
) -> dict[str, float]:
    """How likely each own chain that reaches the pool's answer is an accident, by question id.

    The risks are first corrected by what the student got wrong.

    Args:
        questions: Those without an answer or a tree have no such chain.
        trees: The student's trees by question id.
        risks: The probability that the student's answer is wrong, for each tree.
        luck: Of the questions.
    """
    scale = RiskScale()
    known = [question for question in questions if question.answer is not None and question.id in trees]
    for question in known:
        scale.note(risks[question.id], not agree(trees[question.id].answer, question.answer))
    found = {}
    for question in known:
        own = trees[question.id]
        if question.answer is not None and own_chain(own, question.answer) is not None:
            risk = scale.apply(risks[question.id])
            # one that only a sampled chain reaches is hardly known
            risk = risk if agree(own.answer, question.answer) else max(risk, RISK_OF_WRONG)
            found[question.id] = luck.accident(own, risk)
    return found


def surest(found: Mapping[str, float], limit: float) -> set[str]:
    """The ids with the smallest probabilities of an accident, as long as at most `limit` accidents are expected.

    None with more than `MAX_ACCIDENT`.
    """
    expected, sure = 0.0, set()
    for accident, id_ in sorted((accident, id_) for id_, accident in found.items()):
        expected += accident
        if expected <= limit and accident <= MAX_ACCIDENT:
            sure.add(id_)
    return sure


def _own_answers(tree: ReasoningTree) -> list[str]:
    """The answers for which the student has an own chain, in order."""
    answers = {tree.answer, *(branch.answer for group in tree.branches for branch in group)}
    return sorted(answer for answer in answers if answer is not None and own_chain(tree, answer) is not None)
