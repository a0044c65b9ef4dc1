"""The exported student, at the level of text: explains questions, grows reasoning trees, continues, streams.

Opens an exported folder or a package. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import GeneratedTokens, Limits, generate
from edgeelad.engine.sampling import SamplingParams, make_seed
from edgeelad.engine.session import OnnxGraph
from edgeelad.engine.tree import TreeParams, answer_stop, greedy_params, read_answer, step_prefixes
from edgeelad.errors import ModelError, PromptTooLongError
from edgeelad.explanation import ANSWER_PREFIX, join_steps, split
from edgeelad.records import Branch, Probe, Question, ReasoningTree, TokenCounts

Precision = Literal["fp32", "int8"]
GRAPH_FILES: dict[Precision, str] = {"fp32": "model.onnx", "int8": "model_quantized.onnx"}
# a question whose prompt leaves less room than this cannot be explained
MIN_EXPLANATION_TOKENS = 8


class Student:
    """An exported student; use it as a context manager."""

    def __init__(self, codec: Codec, graph: OnnxGraph, batch_size: int) -> None:
        self.codec = codec
        self._graph = graph
        self._batch_size = batch_size
        self._limits = Limits(codec.eos_ids, codec.max_context, answer_stop(codec))

    @classmethod
    def open(
        cls, folder: Path, *, num_threads: int = 1, batch_size: int = 64, precision: Precision | None = None
    ) -> Student:
        """Open an exported folder or a package; by default its fp32 graph where there is one, else the quantized.

        Raises:
            ModelError: A file is missing or cannot be used.
        """
        codec = Codec.load(folder)
        return cls(codec, OnnxGraph(find_graph(folder, precision), num_threads), batch_size)

    def __enter__(self) -> Student:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        del self._graph  # lets go of the session and its memory

    def fits(self, question: Question) -> bool:
        """Whether the question leaves room for an explanation in the student's context."""
        return fits(self.codec, question)

    def explain(self, questions: Sequence[Question], max_tokens: int) -> list[ReasoningTree]:
        """The greedy explanation of each question, without branches.

        Raises:
            PromptTooLongError: A question leaves no room for an explanation.
        """
        return list(self.grow(questions, greedy_params(max_tokens)))

    def grow(self, questions: Sequence[Question], params: TreeParams) -> Iterator[ReasoningTree]:
        """The reasoning tree of each question, in their order.

        Raises:
            PromptTooLongError: A question leaves no room for an explanation.
        """
        for start in range(0, len(questions), self._batch_size):
            yield from self._grow_batch(questions[start : start + self._batch_size], params)

    def continue_from(self, items: Sequence[tuple[Question, tuple[str, ...]]], max_tokens: int) -> list[str]:
        """The greedy text that follows the given steps of each question; items are independent of one another."""
        prompts = [
            self._prompt(question) + self.codec.encode_completion(join_steps(steps)) for question, steps in items
        ]
        fitting = [index for index, prompt in enumerate(prompts) if len(prompt) < self.codec.max_context]
        texts = [""] * len(items)
        if fitting:
            generated = self._generate([prompts[index] for index in fitting], SamplingParams(max_tokens))
            for index, (sequence,) in zip(fitting, generated, strict=True):
                texts[index] = self.codec.decode(sequence.ids)
        return texts

    def stream(self, question: Question, max_tokens: int) -> Iterator[str]:
        """The greedy explanation of one question, piece by piece, in whole characters.

        Raises:
            PromptTooLongError: The question leaves no room for an explanation.
        """
        from edgeelad.engine.stream import stream_tokens

        tokens = stream_tokens(self._graph, self._prompt(question), max_tokens, self._limits)
        yield from self.codec.stream(tokens)

    def _prompt(self, question: Question) -> list[int]:
        prompt = self.codec.encode_prompt(question)
        if len(prompt) > self.codec.max_context - MIN_EXPLANATION_TOKENS:
            raise PromptTooLongError(
                f"question {question.id}: its prompt has {len(prompt)} tokens and leaves no room for an explanation in "
                f"the student's context of {self.codec.max_context}; shorten it or take a student with a longer context"
            )
        return prompt

    def _generate(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        seeds: Sequence[Sequence[int]] | None = None,
        *,
        want_entropies: bool = False,
    ) -> list[list[GeneratedTokens]]:
        return generate(
            self._graph,
            prompts,
            params,
            self._limits,
            seeds=seeds if seeds is not None else [[0]] * len(prompts),
            batch_size=self._batch_size,
            want_entropies=want_entropies,
        )

    def _grow_batch(self, questions: Sequence[Question], params: TreeParams) -> Iterator[ReasoningTree]:
        prompts = [self._prompt(question) for question in questions]
        greedy = self._generate(prompts, SamplingParams(params.max_explanation_tokens), want_entropies=True)
        explained = [sequences[0] for sequences in greedy]
        texts = [self.codec.decode(sequence.ids) for sequence in explained]
        steps = [split(text).steps for text in texts]
        prefixes = [
            step_prefixes(self.codec, sequence.ids, own) for sequence, own in zip(explained, steps, strict=True)
        ]
        branches = self._branches(questions, prompts, prefixes, steps, params)
        probes = self._probes(questions, prompts, prefixes) if params.probe else [()] * len(questions)
        forced = len(self.codec.encode_completion(ANSWER_PREFIX)) + 1
        for index, question in enumerate(questions):
            yield ReasoningTree(
                question=question,
                text=texts[index],
                steps=steps[index],
                answer=read_answer(texts[index], explained[index], question),
                finish_reason=explained[index].finish_reason,
                token_logprobs=explained[index].logprobs,
                token_entropies=explained[index].entropies,
                branches=branches[index],
                probes=probes[index],
                tokens=TokenCounts(
                    prompt=len(prompts[index]),
                    explanation=len(explained[index].logprobs),
                    branch=sum(branch.num_tokens for group in branches[index] for branch in group),
                    probe=len(probes[index]) * forced,
                ),
            )

    def _branches(
        self,
        questions: Sequence[Question],
        prompts: list[list[int]],
        prefixes: list[list[list[int]]],
        steps: list[tuple[str, ...]],
        params: TreeParams,
    ) -> list[tuple[tuple[Branch, ...], ...]]:
        """For each question, T+1 groups of branches; groups are empty where none were asked for or none fit."""
        points = [
            (question, prefix)
            for question in range(len(questions))
            for prefix in range(len(prefixes[question]))
            if params.branches_at(prefix)
            and len(prompts[question]) + len(prefixes[question][prefix]) < self.codec.max_context
        ]
        generated = self._generate(
            [prompts[question] + prefixes[question][prefix] for question, prefix in points],
            SamplingParams(params.max_branch_tokens, params.temperature, params.top_k, params.top_p),
            [
                [make_seed(params.seed, questions[q].id, prefix, k) for k in range(params.branches_at(prefix))]
                for q, prefix in points
            ],
        )
        groups: list[list[tuple[Branch, ...]]] = [[()] * len(own) for own in prefixes]
        for (question, prefix), sequences in zip(points, generated, strict=True):
            before = join_steps(steps[question][:prefix])
            groups[question][prefix] = tuple(
                self._branch(questions[question], before, sequence) for sequence in sequences
            )
        return [tuple(own) for own in groups]

    def _branch(self, question: Question, before: str, sequence: GeneratedTokens) -> Branch:
        text = self.codec.decode(sequence.ids)
        mean_logprob = sum(sequence.logprobs) / len(sequence.logprobs)
        return Branch(text, read_answer(before + text, sequence, question), mean_logprob, len(sequence.logprobs))

    def _probes(
        self, questions: Sequence[Question], prompts: list[list[int]], prefixes: list[list[list[int]]]
    ) -> list[tuple[Probe, ...]]:
        """The answer forced after each prefix: the likeliest token after "The answer is", and the entropy there."""
        forced = self.codec.encode_completion(ANSWER_PREFIX)
        points = [prompts[q] + prefix + forced for q in range(len(questions)) for prefix in prefixes[q]]
        fitting = [index for index, point in enumerate(points) if len(point) < self.codec.max_context]
        generated = self._generate([points[index] for index in fitting], SamplingParams(1), want_entropies=True)
        probes = [Probe(None, 0.0)] * len(points)  # where a point does not fit the context, no answer is found
        for index, (forced_answer,) in zip(fitting, generated, strict=True):
            text = self.codec.decode(forced_answer.ids).strip()
            probes[index] = Probe(text or None, forced_answer.entropies[0])
        found = iter(probes)
        return [tuple(next(found) for _ in own) for own in prefixes]


def fits(codec: Codec, question: Question) -> bool:
    """Whether a question leaves room for an explanation in the student's context."""
    return len(codec.encode_prompt(question)) <= codec.max_context - MIN_EXPLANATION_TOKENS


def find_graph(folder: Path, precision: Precision | None) -> Path:
    """The graph file of an exported folder or a package.

    Raises:
        ModelError: There is none.
    """
    wanted = [precision] if precision is not None else list(GRAPH_FILES)
    for name in wanted:
        for place in (folder, folder / "onnx"):
            if (place / GRAPH_FILES[name]).is_file():
                return place / GRAPH_FILES[name]
    names = " or ".join(GRAPH_FILES[name] for name in wanted)
    raise ModelError(f"{folder}: no {names} in it or in its folder onnx; export the student with `edgeelad export`")
