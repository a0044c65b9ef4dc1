"""Plan reasoning trees at the level of text: parameters, the ends of steps in the tokens, and stated answers.

A tree is a question's greedy explanation, and branches sampled after each of its steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import BranchPoint, Stop, TreeRequest
from edgeelad.engine.sampling import make_seed
from edgeelad.records import AnswerKind, FinishReason, Question
from edgeelad.text.explanation import ANSWER_PREFIX, STEP_SEPARATOR, join_steps, split

# answers of each kind: the tokens that they have in common are forced, the rest is the student's choice
_SAMPLE_ANSWERS: dict[AnswerKind, tuple[str, ...]] = {
    "number": ("1", "2", "7", "30"),
    "choice": ("A", "B", "C"),
    "boolean": ("yes", "no"),
    "text": ("apple", "house", "red"),
}


@dataclass(frozen=True, slots=True)
class TreeParams:
    """How to generate the tree of each question.

    Attributes:
        num_branches: m, branches per step prefix 1..T; 0 for none.
        num_root_branches: Branches of the bare question; 0 for none.
        temperature: Of the branches, above 0.
        top_k: Sample from the k most likely tokens; 0 means `sampling.MAX_TOP`.
        top_p: Sample from the most likely tokens that together reach this probability; 1 is off.
        max_explanation_tokens: Maximum tokens of the greedy explanation.
        max_branch_tokens: Maximum tokens per branch.
        probe: Whether to force an answer after every prefix.
        seed: The run's seed, from which each branch's seed derives (see `sampling.make_seed`).
        num_removal_branches: Branches after all steps but one, for each step; 0 for none.
    """

    num_branches: int
    num_root_branches: int
    temperature: float
    top_k: int
    top_p: float
    max_explanation_tokens: int
    max_branch_tokens: int
    probe: bool
    seed: int
    num_removal_branches: int = 0

    def branches_at(self, prefix: int) -> int:
        """Number of branches after `prefix` steps."""
        return self.num_root_branches if prefix == 0 else self.num_branches

    @property
    def is_greedy(self) -> bool:
        """Whether only the greedy explanation is requested."""
        counts = (self.num_branches, self.num_root_branches, self.num_removal_branches)
        return not any(counts) and not self.probe


def greedy_params(max_explanation_tokens: int) -> TreeParams:
    """Parameters for greedy explanations alone."""
    return TreeParams(
        num_branches=0,
        num_root_branches=0,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        max_explanation_tokens=max_explanation_tokens,
        max_branch_tokens=max_explanation_tokens,
        probe=False,
        seed=0,
    )


def answer_stop(codec: Codec) -> Stop:
    """Stop after the first complete line that states the answer; `read_answer` reads nothing after it."""
    return Stop(codec.newline_ids, lambda ids: _answer_end(codec.decode(ids)) is not None)


def read_answer(text: str, question: Question, finish_reason: FinishReason) -> str | None:
    """The canonical answer that an explanation states, up to its first complete answer line; None if it states none.

    An explanation that was cut off for its length must state its answer explicitly: its last number is not an answer.
    """
    from edgeelad.text.answers import extract  # its patterns take a tenth of a second, which no first token waits for

    is_cut = finish_reason == "length"
    return extract(text[: _answer_end(text)], question.kind, question.choices, strict=is_cut)


def tree_request(
    codec: Codec, question: Question, prompt: Sequence[int], ids: Sequence[int], params: TreeParams
) -> TreeRequest:
    """The tree of a greedy explanation: branches start before its first step, and after each step.

    Args:
        codec: The student's.
        question: Its id enters the branches' seeds.
        prompt: Its prompt's tokens.
        ids: The explanation's tokens.
        params: What to generate.
    """
    completion, ends = step_ends(codec, ids)
    room = codec.max_context - len(prompt)
    points = []
    for prefix, end in enumerate((0, *ends)):
        seeds = tuple(make_seed(params.seed, question.id, prefix, k) for k in range(params.branches_at(prefix)))
        forced = forced_ids(codec, question.kind, is_first=prefix == 0) if params.probe else ()
        points.append(BranchPoint(min(end, room), seeds, forced))
    return TreeRequest(tuple(prompt), tuple(completion[:room]), tuple(points))


def removal_requests(
    codec: Codec, question: Question, prompt: Sequence[int], steps: Sequence[str], params: TreeParams
) -> list[TreeRequest]:
    """One request per step: branches after all other steps, in their order.

    Each has a prefix of its own, which shares no KV cache with the explanation beyond the steps before.
    """
    if not params.num_removal_branches:
        return []
    room = codec.max_context - len(prompt)
    requests = []
    for removed in range(len(steps)):
        kept = (*steps[:removed], *steps[removed + 1 :])
        completion = codec.encode_completion(join_steps(kept))[:room]
        # numbered after the prefixes 0..T, so that no two branches share a seed
        number = len(steps) + 1 + removed
        seeds = tuple(make_seed(params.seed, question.id, number, k) for k in range(params.num_removal_branches))
        requests.append(TreeRequest(tuple(prompt), tuple(completion), (BranchPoint(len(completion), seeds),)))
    return requests


def generated_step_ends(codec: Codec, ids: Sequence[int], num_steps: int) -> tuple[int, ...]:
    """For each step of an explanation, the number of generated tokens up to the one that ends it.

    A token that holds a newline and text of the next line ends the step. The last step ends with the last token if it
    lacks its newline.
    """
    ends: list[int] = []
    for end, token in enumerate(ids, start=1):
        if len(ends) == num_steps:
            break
        if token in codec.newline_ids:
            before = codec.decode(ids[:end]).rpartition(STEP_SEPARATOR)[0]
            ends += [end] * (min(len(split(before).steps), num_steps) - len(ends))
    return (*ends, *[len(ids)] * (num_steps - len(ends)))


def step_ends(codec: Codec, ids: Sequence[int]) -> tuple[list[int], list[int]]:
    """Find where the steps of a generated explanation end, in tokens.

    Returns:
        The explanation's tokens, and for each of its T steps the number of tokens up to its newline. These are the
        generated tokens, with a newline added if the last step lacks one. If a token contains both a newline and text
        of the next line, no boundary between tokens ends the step, and every step is encoded separately instead.
    """
    text = codec.decode(ids)
    steps = split(text).steps
    completion = list(ids)
    if text and not text.endswith(STEP_SEPARATOR):
        completion += codec.encode_line(STEP_SEPARATOR, is_first=True)
    ends: list[int] = []
    for end, token in enumerate(completion, start=1):
        if len(ends) == len(steps) or token not in codec.newline_ids:
            continue
        before, _, begun = codec.decode(completion[:end]).rpartition(STEP_SEPARATOR)
        num_done = min(len(split(before).steps), len(steps))
        if num_done > len(ends):
            if begun.strip() or num_done > len(ends) + 1:
                break
            ends.append(end)
    return (completion, ends) if len(ends) == len(steps) else _encoded_steps(codec, steps)


def forced_ids(codec: Codec, kind: AnswerKind, *, is_first: bool) -> tuple[int, ...]:
    """The tokens of `The answer is`, and of the space after it unless answers' first tokens include it.

    Args:
        codec: The student's.
        kind: Kind of the answers that may follow.
        is_first: Whether the line is the completion's first, rather than after a newline.
    """
    lines = [codec.encode_line(f"{ANSWER_PREFIX} {answer}", is_first=is_first) for answer in _SAMPLE_ANSWERS[kind]]
    columns = enumerate(zip(*lines, strict=False))
    # a tokenizer that knows none of them encodes them all alike
    num_alike = next((place for place, tokens in columns if len(set(tokens)) > 1), min(map(len, lines)))
    return tuple(lines[0][:num_alike])


def _encoded_steps(codec: Codec, steps: Sequence[str]) -> tuple[list[int], list[int]]:
    completion: list[int] = []
    ends: list[int] = []
    for step in steps:
        completion += codec.encode_line(step + STEP_SEPARATOR, is_first=not completion)
        ends.append(len(completion))
    return completion, ends


def _answer_end(text: str) -> int | None:
    """End of the first complete line that states an answer, its newline included; None if there is none."""
    end = text.find(STEP_SEPARATOR)
    start = 0
    while end != -1:
        line = text[start:end].strip()
        stated = line[len(ANSWER_PREFIX) :]
        # "The answer isn't 5" states none, nor does a bare "The answer is:"
        if line.startswith(ANSWER_PREFIX) and not stated[:1].isalpha() and any(map(str.isalnum, stated)):
            return end + 1
        start, end = end + 1, text.find(STEP_SEPARATOR, end + 1)
    return None
