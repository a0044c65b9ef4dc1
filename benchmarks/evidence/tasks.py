"""The tasks of the evidence: questions with exact checkers, and base students that know some of their kinds.

Each has a pool skewed toward the kinds that the base student knows, 5 % of questions that cannot be learned (a number
that the answer needs is missing), 5 % of near-duplicates, and a test set over all kinds alike.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from arms import SIZES, Sizes
from numpy.random import Generator

from edgeelad.pool import read_pool
from edgeelad.quickstart import solver
from edgeelad.quickstart.problems import KNOWN_SKILLS, NEW_SKILLS, OBJECTS, SKILLS, Problem, make_problems
from edgeelad.quickstart.recipe import RECIPE, Recipe
from edgeelad.quickstart.steps import Equation, find_equations
from edgeelad.records import Example, Question

NEW_SHARE = 0.28  # of the pool, as in the quickstart
ODD_SHARE = 0.05  # unlearnable questions, and again as many near-duplicates
NUM_SEEDS, NUM_TEST = 2000, 300
Checker = Callable[[Question, Sequence[str]], int | None]
Reword = Callable[[str, tuple[str, ...]], tuple[str, tuple[str, ...]]]


@dataclass(frozen=True, slots=True)
class Task:
    """One task on one seed.

    Attributes:
        seed_examples: What the base student is trained on: known kinds only.
        pool: The questions, each with its reference answer and explanation, which the student never sees.
        test: Over all kinds alike.
        unlearnable: Ids of the pool's questions whose answer cannot be known.
        first_flaw: The 0-based index of the first wrong step of an explanation, None if all are right. A missing step
            is no flaw.
        recipe: Sizes of the student and its training.
        max_tokens: Maximum tokens per explanation.
        sizes: Of its study.
        texts: Further texts for the tokenizer.
    """

    seed_examples: list[Example]
    pool: list[Question]
    test: list[Question]
    unlearnable: frozenset[str]
    first_flaw: Checker
    recipe: Recipe
    max_tokens: int
    sizes: Sizes
    texts: tuple[str, ...] = ()

    @property
    def base_problems(self) -> list[Problem]:
        """The seed examples as the base student's training takes them."""
        return [Problem(e.question.text, e.steps, int(e.answer), e.question.skill or "") for e in self.seed_examples]


def make_task(name: str, seed: int, data: Path | None) -> Task:
    """Make a task; the same arguments give the same task.

    Args:
        name: One of `TASKS`.
        seed: Draws the questions.
        data: The file of MAWPS and ASDiv-A, for "mawps".
    """
    return TASKS[name](np.random.default_rng([seed, 97]), data, SIZES[name])


# --- (a) the quickstart's word problems, (b) the same in many wordings ---


def _words(rng: Generator, _: Path | None, sizes: Sizes) -> Task:
    problems, known, new = _draw_words(rng, sizes.num_pool)
    return _word_task(problems, known, new, rng, lambda question, steps: (question, steps), sizes)


def _varied(rng: Generator, _: Path | None, sizes: Sizes) -> Task:
    problems, known, new = _draw_words(rng, sizes.num_pool)
    reword: Reword = lambda question, steps: (_reword(question, rng), _reword_steps(steps, rng))  # noqa: E731
    return replace(_word_task(problems, known, new, rng, reword, sizes), max_tokens=96)


def _draw_words(rng: Generator, num_pool: int) -> tuple[list[Problem], dict[str, float], dict[str, float]]:
    known, new = dict.fromkeys(KNOWN_SKILLS, 1.0), dict.fromkeys(NEW_SKILLS, 1.0)
    test = make_problems(NUM_TEST, dict.fromkeys(SKILLS, 1.0), rng)
    taken = frozenset(problem.question for problem in test)
    seeds = make_problems(NUM_SEEDS, known, rng, taken)
    taken |= {problem.question for problem in seeds}
    skewed = {s: (1 - NEW_SHARE) / len(known) for s in known} | {s: NEW_SHARE / len(new) for s in new}
    pool = make_problems(num_pool - 2 * _num_odd(num_pool), skewed, rng, taken)
    return [*test, *seeds, *pool], known, new


def _word_task(
    problems: Sequence[Problem],
    known: dict[str, float],
    new: dict[str, float],
    rng: Generator,
    reword: Reword,
    sizes: Sizes,
) -> Task:
    num_odd = _num_odd(sizes.num_pool)
    plain: dict[str, str] = {}

    def question_of(problem: Problem, id_: str) -> Question:
        plain[id_] = problem.question
        text, steps = reword(problem.question, problem.steps)
        return Question(id_, text, "number", (), str(problem.answer), steps, problem.skill)

    test = [question_of(problem, f"test-{i}") for i, problem in enumerate(problems[:NUM_TEST])]
    seeds = [question_of(problem, f"seed-{i}") for i, problem in enumerate(problems[NUM_TEST : NUM_TEST + NUM_SEEDS])]
    rest = problems[NUM_TEST + NUM_SEEDS :]
    pool = [question_of(problem, f"pool-{i}") for i, problem in enumerate(rest)]
    for i, place in enumerate(rng.choice(len(rest), num_odd, replace=False)):
        twin = _other_words(rest[place], rng)
        if twin is not None:
            pool.append(question_of(twin, f"twin-{i}"))
    odd = []
    for i, problem in enumerate(make_problems(num_odd, known | new, rng)):
        question = question_of(problem, f"odd-{i}")
        odd.append(replace(question, text=_without_number(question.text, rng)))

    return _task(
        rng,
        seeds,
        pool,
        odd,
        test,
        lambda question, steps: first_wrong_equation(plain[question.id], steps),
        RECIPE,
        64,
        sizes,
        (*seeds[:800], *pool),
    )


def _task(
    rng: Generator,
    seeds: Sequence[Question],
    pool: Sequence[Question],
    odd: list[Question],
    test: list[Question],
    first_flaw: Checker,
    recipe: Recipe,
    max_tokens: int,
    sizes: Sizes,
    read: Sequence[Question],
) -> Task:
    """A task with its pool shuffled, and the unlearnable questions last; the tokenizer learns from `read`."""
    return Task(
        [Example(q, q.explanation or (), q.answer or "") for q in seeds],
        [pool[i] for i in rng.permutation(len(pool))] + odd,
        test,
        frozenset(q.id for q in odd),
        first_flaw,
        replace(recipe, base_steps=sizes.base_steps),
        max_tokens,
        sizes,
        tuple(text for q in read for text in (q.text, "\n".join(q.explanation or ()))),
    )


def first_wrong_equation(question: str, steps: Sequence[str]) -> int | None:
    """The 0-based index of the first step whose equations are wrong for a generated word problem; words are free."""
    bare = [" ".join(str(equation) for equation in find_equations(step)) for step in steps]
    return next((i for i, step in enumerate(bare) if not step or not solver.judge_step(question, bare[:i], step)), None)


def _other_words(problem: Problem, rng: Generator) -> Problem | None:
    """The problem with another object in it: a near-duplicate."""
    found = next((word for word in OBJECTS if word in problem.question.split()), None)
    if found is None:
        return None
    other = str(rng.choice([word for word in OBJECTS if word not in problem.question]))
    swap = re.compile(rf"\b{found}\b")
    return replace(
        problem,
        question=swap.sub(other, problem.question),
        steps=tuple(swap.sub(other, step) for step in problem.steps),
    )


def _without_number(text: str, rng: Generator) -> str:
    """The question with one of its numbers made "some": nobody can know its answer."""
    places = list(re.finditer(r"\b\d+\b", text))
    match = places[int(rng.integers(len(places)))]
    return text[: match.start()] + "some" + text[match.end() :]


_OPENINGS = (
    "", "", "Here is a question . ", "Please help with this . ", "A small riddle : ", "Read with care . ",
    "This is from a book . ", "Listen . ", "Someone asks : ", "Think about it . ",
)  # fmt: skip
_SYNONYMS = {
    "How many": ("How many", "What number of", "Tell me how many"),
    "has": ("has", "owns", "holds"),
    "gets": ("gets", "receives", "is given"),
    "gives": ("gives", "hands"),
    "buys": ("buys", "purchases", "acquires"),
    "finds": ("finds", "discovers", "picks up"),
    "now": ("now", "at present", "in the end"),
    "together": ("together", "in all", "altogether"),
    "loses": ("loses", "drops"),
    "today": ("today", "this day"),
}
_LEADS = (
    "We get", "So that makes", "Now count", "That gives", "This means", "Work out", "We see", "From this ,",
    "It follows", "Add it up :", "One finds", "Note that", "Then take", "Here is", "Let us do",
)  # fmt: skip
_TAILS = ("", "", " so far", " for sure", " here", " then", " by count", " as said")


def _reword(question: str, rng: Generator) -> str:
    for word, others in _SYNONYMS.items():
        question = re.sub(rf"\b{word}\b", lambda _, o=others: str(rng.choice(o)), question)  # type: ignore[misc]
    return str(rng.choice(_OPENINGS)) + question


def _reword_steps(steps: tuple[str, ...], rng: Generator) -> tuple[str, ...]:
    reworded = []
    for step in steps:
        (equation,) = find_equations(step)
        if equation.operator in "+*" and rng.random() < 0.5:
            equation = Equation(equation.right, equation.operator, equation.left, equation.result)
        noun = step.rstrip(".").split()[-1]
        noun = f" {noun}" if noun.isalpha() and rng.random() < 0.7 else ""
        reworded.append(f"{rng.choice(_LEADS)} {equation}{noun}{rng.choice(_TAILS)}.")
    return tuple(reworded)


# --- (c) long chains ---

NAMES, OTHER_NAMES = "abcdefghij", "zyx"  # of the chain's variables in their order, and of the distractors
_STEP = re.compile(r"([a-z]) = (?:[a-z] [+*] \d : \d [+*] \d : )?(\d)")


def _chains(rng: Generator, _: Path | None, sizes: Sizes) -> Task:
    plain: dict[str, dict[str, int]] = {}

    def draw(id_: str, shortest: int, is_new: bool) -> Question:
        num_steps = int(rng.integers(5, 11)) if is_new else int(rng.integers(shortest, 6))
        question, values = _chain(rng, num_steps, "+*" if is_new else "+", id_)
        plain[id_] = values
        return question

    def many(num: int, prefix: str, share: float, shortest: int = 4) -> list[Question]:
        is_new = rng.permutation(num) < round(share * num)
        return [draw(f"{prefix}-{i}", shortest, bool(new)) for i, new in enumerate(is_new)]

    # shorter ones are among the seed examples, or so small a student learns no chain at all
    test, seeds = many(NUM_TEST, "test", 0.5), many(3 * NUM_SEEDS, "seed", 0.0, shortest=2)
    num_odd = _num_odd(sizes.num_pool)
    pool = many(sizes.num_pool - 2 * num_odd, "pool", NEW_SHARE)
    for i, place in enumerate(rng.choice(len(pool), num_odd, replace=False)):
        origin = pool[place]
        plain[f"twin-{i}"] = plain[origin.id]
        statements, _, asked = origin.text.rpartition(" ? ")
        parts = statements.split(" ; ")
        pool.append(replace(origin, id=f"twin-{i}", text=" ; ".join([*parts[1:], parts[0]]) + f" ? {asked}"))
    odd = []
    for i, question in enumerate(many(num_odd, "odd", 0.5)):
        parts = question.text.split(" ; ")
        given = [place for place, part in enumerate(parts) if re.fullmatch(r"[a-z] = \d", part)]
        if given:
            place = int(rng.choice(given))
            parts[place] = parts[place][:-1] + "?"
            odd.append(replace(question, id=f"odd-{i}", text=" ; ".join(parts)))

    def first_flaw(question: Question, steps: Sequence[str]) -> int | None:
        values = plain[question.id]
        for place, step in enumerate(steps):
            match = _STEP.fullmatch(step)
            if match is None or values.get(match[1]) != int(match[2]):
                return place
        return None

    recipe = replace(RECIPE, base_learning_rate=3e-3)
    return _task(rng, seeds, pool, odd, test, first_flaw, recipe, 150, sizes, (*seeds[:800], *pool))


def _chain(rng: Generator, num_steps: int, operators: str, id_: str) -> tuple[Question, dict[str, int]]:
    """Assignments mod 10 in shuffled order with up to two distractors; a step per variable of the chain.

    Each variable follows from the one before and a digit. Names are in the chain's order: so small a student learns no
    chain of arbitrary names, with any number of examples that was tried (docs/LOG.md).
    """
    values = {NAMES[0]: int(rng.integers(10))}
    statements = [f"{NAMES[0]} = {values[NAMES[0]]}"]
    steps = list(statements)
    for before, name in pairwise(NAMES[:num_steps]):
        sign = "*" if "*" in operators and rng.random() < 0.5 else "+"
        left, right = values[before], int(rng.integers(1, 10))
        values[name] = (left * right if sign == "*" else left + right) % 10
        statements.append(f"{name} = {before} {sign} {right}")
        steps.append(f"{statements[-1]} : {left} {sign} {right} : {values[name]}")
    for name in OTHER_NAMES[: int(rng.integers(3))]:
        statements.append(f"{name} = {NAMES[int(rng.integers(num_steps))]} + {int(rng.integers(1, 10))}")
    asked = NAMES[num_steps - 1]
    text = " ; ".join(statements[i] for i in rng.permutation(len(statements))) + f" ? {asked}"
    kind = f"{'product' if '*' in operators else 'sum'}-{num_steps}"
    return Question(id_, text, "number", (), str(values[asked]), tuple(steps), kind), values


# --- (d) MAWPS and ASDiv-A ---

_KNOWN_PATTERNS = frozenset({"+", "-", "*", "+-"})
_MAX_NUMBER = 100


def _mawps(rng: Generator, data: Path | None, sizes: Sizes) -> Task:
    if data is None:
        raise SystemExit("--data: the task mawps needs the file of MAWPS and ASDiv-A (mawps-asdiv-a.csv)")
    usable: list[Question] = []
    for number, question in enumerate(read_pool(data, "mawps-asdiv")):
        numbers = re.findall(
            r"\d+(?:\.\d+)?", " ".join((question.text, *(question.explanation or ()), question.answer or ""))
        )
        if (
            question.explanation
            and _is_plain(question.explanation)
            and all(n.isdigit() and int(n) <= _MAX_NUMBER for n in numbers)
        ):
            pattern = "".join(re.findall(r" ([-+*/]) ", " ".join(question.explanation)))
            usable.append(replace(question, id=f"mawps-{number}", skill=pattern))
    usable = [usable[i] for i in rng.permutation(len(usable))]
    known = [q for q in usable if q.skill in _KNOWN_PATTERNS]
    new = [q for q in usable if q.skill not in _KNOWN_PATTERNS]
    num_pool, half = 700, 110
    test, known, new = known[:half] + new[:half], known[half:], new[half:]
    num_new = round(NEW_SHARE * num_pool)
    pool, known = known[: num_pool - num_new] + new[:num_new], known[num_pool - num_new :]
    odd = [replace(q, id=f"odd-{i}", text=_without_number(q.text, rng)) for i, q in enumerate(new[num_new:][:35])]
    twins = [replace(q, id=f"twin-{i}", text="Say : " + q.text) for i, q in enumerate(pool[:35])]
    drills = [_drill(rng, i) for i in range(1500)]
    seeds = [*known, *known, *drills]

    def first_flaw(question: Question, steps: Sequence[str]) -> int | None:
        reference = {e.key for step in question.explanation or () for e in find_equations(step)}
        for place, step in enumerate(steps):
            found = find_equations(step)
            if not found or any(not e.is_true or e.key not in reference for e in found):
                return place
        return None

    everything = [*pool, *twins]
    return _task(rng, seeds, everything, odd, test, first_flaw, RECIPE, 48, sizes, (*known, *pool, *test))


def _is_plain(steps: Sequence[str]) -> bool:
    """Whether every step is one true equation between whole numbers."""
    found = [find_equations(step) for step in steps]
    return all(len(equations) == 1 and equations[0].is_true for equations in found)


def _drill(rng: Generator, number: int) -> Question:
    """A sum, difference, product or quotient with whole results up to 100."""
    while True:
        operator = "+-*/"[int(rng.integers(4))]
        a, b = (int(n) for n in rng.integers(1, 60 if operator in "+-" else 13, size=2))
        left, right, result = {"+": (a, b, a + b), "-": (a + b, b, a), "*": (a, b, a * b), "/": (a * b, b, a)}[operator]
        if max(left, right, result) <= _MAX_NUMBER:
            text = f"What is {left} {operator} {right} ?"
            step = f"{left} {operator} {right} = {result}"
            return Question(f"drill-{number}", text, "number", (), str(result), (step,), "drill")


def _num_odd(num_pool: int) -> int:
    return round(ODD_SHARE * num_pool)


TASKS: dict[str, Callable[[Generator, Path | None, Sizes], Task]] = {
    "words": _words,
    "varied": _varied,
    "chains": _chains,
    "mawps": _mawps,
    "words, large": _words,
    "varied, large": _varied,
    "chains, large": _chains,
    "varied, very large": _varied,
}
"""(a) The quickstart's word problems, (b) in varied wording, (c) long chains, (d) MAWPS and ASDiv-A; (a) to (c) with
pools of the quickstart's size, and (b) with one three times as large."""
