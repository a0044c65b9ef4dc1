"""An exported student at the level of text: explains questions, generates reasoning trees, continues, streams.

Opens an exported folder or a package; a `generate.TokenGenerator` generates the tokens. Needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType

from edgeelad.engine.codec import Codec
from edgeelad.engine.generate import (
    ForcedToken,
    GeneratedTokens,
    Limits,
    LiveBatch,
    TokenGenerator,
    TreeRequest,
    TreeResult,
)
from edgeelad.engine.open import open_generator
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.packed.graph import PackedGraph
from edgeelad.engine.sampling import SamplingParams
from edgeelad.engine.tree import (
    TreeParams,
    answer_stop,
    generated_step_ends,
    greedy_params,
    read_answer,
    removal_requests,
    tree_request,
)
from edgeelad.errors import PromptTooLongError
from edgeelad.records import Branch, FinishReason, Probe, Question, ReasoningTree, TokenCounts
from edgeelad.text.explanation import join_steps, split

# minimum room that a prompt must leave for an explanation
MIN_EXPLANATION_TOKENS = 8


class Student:
    """An exported student; use it as a context manager.

    Attributes:
        codec: Its tokenization.
    """

    def __init__(self, codec: Codec, generator: TokenGenerator, batch_size: int = 64) -> None:
        self.codec = codec
        self._generator = generator
        self._batch_size = batch_size
        self._limits = Limits(codec.eos_ids, codec.max_context, answer_stop(codec))

    @classmethod
    def open(
        cls,
        folder: Path,
        options: EngineOptions | None = None,
        engine: Callable[[], PackedGraph | None] | None = None,
    ) -> Student:
        """Open an exported folder or a package in this process.

        Args:
            folder: The folder.
            options: How to run the student.
            engine: Gives its engine graph; None: it is opened here.

        Raises:
            ModelError: A file is missing, or cannot be used.
        """
        options = options or EngineOptions()
        codec = Codec.load(folder)
        return cls(codec, open_generator(folder, codec, options, engine), options.batch_size)

    def close(self) -> None:
        """Release the session and its memory. Idempotent."""
        self._generator.close()

    def __enter__(self) -> Student:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def fits(self, question: Question) -> bool:
        """Whether the question leaves room for an explanation in the student's context."""
        return fits(self.codec, question)

    def explain(self, questions: Sequence[Question], max_tokens: int) -> list[ReasoningTree]:
        """The greedy explanation of each question, without branches.

        Raises:
            PromptTooLongError: A question leaves no room for an explanation.
        """
        return list(self.generate_trees(questions, greedy_params(max_tokens)))

    def generate_trees(self, questions: Sequence[Question], params: TreeParams) -> Iterator[ReasoningTree]:
        """The reasoning tree of each question, in their order.

        Raises:
            PromptTooLongError: A question leaves no room for an explanation.
        """
        for start in range(0, len(questions), self._batch_size):
            yield from self._generate(questions[start : start + self._batch_size], params)

    def continue_from(
        self,
        items: Sequence[tuple[Question, tuple[str, ...]]],
        max_tokens: int,
        *,
        only_finished: bool = False,
    ) -> list[str]:
        """Continue each question greedily after the given steps; items are independent of one another.

        A continuation is empty if the steps fill the student's context; with `only_finished` also if it was cut off
        before it stated an answer, for its last number is none.

        Raises:
            PromptTooLongError: A question leaves no room for an explanation.
        """
        prompts = [self._prompt(question) for question, _ in items]
        prefixes = [self.codec.encode_completion(join_steps(steps)) for _, steps in items]
        generated = self._generator.generate(prompts, SamplingParams(max_tokens), self._limits, prefixes=prefixes)
        texts = [self.codec.decode(sequence.ids) for sequence in generated]
        if only_finished:
            ends = (sequence.finish_reason for sequence in generated)
            return [
                text if end != "length" or read_answer(text, question, end) is not None else ""
                for text, end, (question, _) in zip(texts, ends, items, strict=True)
            ]
        return texts

    def stream(self, question: Question, max_tokens: int) -> Generator[str, None, tuple[str, FinishReason]]:
        """The greedy explanation of one question, in pieces of whole characters that joined are its text.

        Returns:
            The whole text, and why it ended: the value of `yield from`.

        Raises:
            PromptTooLongError: The question leaves no room for an explanation.
        """
        prompt, ids, stop = self._prompt(question), [], self._limits.stop

        def kept() -> Iterator[int]:
            for token in self._generator.stream(prompt, max_tokens, self._limits):
                ids.append(token)
                yield token

        yield from self.codec.stream(kept())
        text = self.codec.decode(ids)
        if stop is not None and ids and ids[-1] in stop.tokens and stop.check(ids):
            return text, "stop"
        is_cut = len(ids) == min(max_tokens, self._limits.max_context - len(prompt))
        return text, "length" if is_cut else "eos"

    def open_batch(self, num_rows: int) -> LiveBatch:
        """Open a batch of up to `num_rows` explanations that start at any time; see `generate.LiveBatch`."""
        return self._generator.open_batch(self._limits, num_rows)

    def read(self, question: Question, prompt: Sequence[int], sequence: GeneratedTokens) -> ReasoningTree:
        """The explanation that a sequence of tokens after a question's prompt is, without branches."""
        request = TreeRequest(tuple(prompt), sequence.ids, ())
        return self._tree(question, sequence, request, TreeResult((), ()), ())

    def _prompt(self, question: Question) -> list[int]:
        prompt = self.codec.encode_prompt(question)
        if len(prompt) > self.codec.max_context - MIN_EXPLANATION_TOKENS:
            raise PromptTooLongError(
                f"question {question.id}: its prompt has {len(prompt)} tokens and leaves no room for an explanation in "
                f"the student's context of {self.codec.max_context}; shorten it or use a student with a longer context"
            )
        return prompt

    def _generate(self, questions: Sequence[Question], params: TreeParams) -> Iterator[ReasoningTree]:
        prompts = [self._prompt(question) for question in questions]
        greedy = self._generator.generate(prompts, SamplingParams(params.max_explanation_tokens), self._limits)
        if params.is_greedy:
            requests = [
                TreeRequest(tuple(prompt), sequence.ids, ()) for prompt, sequence in zip(prompts, greedy, strict=True)
            ]
            results = [TreeResult((), ())] * len(requests)
        else:
            requests = [
                tree_request(self.codec, question, prompt, sequence.ids, params)
                for question, prompt, sequence in zip(questions, prompts, greedy, strict=True)
            ]
            sampling = SamplingParams(params.max_branch_tokens, params.temperature, params.top_k, params.top_p)
            results = self._generator.generate_trees(requests, sampling, self._limits)
        removals = self._removals(questions, prompts, greedy, params)
        for question, sequence, request, result, removed in zip(
            questions, greedy, requests, results, removals, strict=True
        ):
            yield self._tree(question, sequence, request, result, removed)

    def _removals(
        self,
        questions: Sequence[Question],
        prompts: Sequence[Sequence[int]],
        greedy: Sequence[GeneratedTokens],
        params: TreeParams,
    ) -> list[tuple[tuple[Branch, ...], ...]]:
        """Per question and step, the branches sampled after all its other steps."""
        if not params.num_removal_branches:
            return [()] * len(questions)
        all_steps = [split(self.codec.decode(sequence.ids)).steps for sequence in greedy]
        requests = [
            removal_requests(self.codec, question, prompt, steps, params)
            for question, prompt, steps in zip(questions, prompts, all_steps, strict=True)
        ]
        sampling = SamplingParams(params.max_branch_tokens, params.temperature, params.top_k, params.top_p)
        flat = [request for group in requests for request in group]
        results = iter(self._generator.generate_trees(flat, sampling, self._limits) if flat else [])
        found = []
        for question, steps in zip(questions, all_steps, strict=True):
            groups = []
            for removed in range(len(steps)):
                before = join_steps((*steps[:removed], *steps[removed + 1 :]))
                (group,) = next(results).branches
                groups.append(tuple(self._branch(question, before, tokens) for tokens in group))
            found.append(tuple(groups))
        return found

    def _tree(
        self,
        question: Question,
        sequence: GeneratedTokens,
        request: TreeRequest,
        result: TreeResult,
        removals: tuple[tuple[Branch, ...], ...],
    ) -> ReasoningTree:
        text = self.codec.decode(sequence.ids)
        steps = split(text).steps
        branches: tuple[tuple[Branch, ...], ...] = ()
        if any(point.seeds for point in request.points):
            branches = tuple(
                tuple(self._branch(question, join_steps(steps[:prefix]), tokens) for tokens in group)
                for prefix, group in enumerate(result.branches)
            )
        probes: tuple[Probe, ...] = ()
        if any(point.forced_ids for point in request.points):
            probes = tuple(self._probe(forced) for forced in result.forced)
        return ReasoningTree(
            question=question,
            text=text,
            steps=steps,
            answer=read_answer(text, question, sequence.finish_reason),
            finish_reason=sequence.finish_reason,
            token_logprobs=sequence.logprobs,
            token_entropies=sequence.entropies,
            branches=branches,
            probes=probes,
            tokens=TokenCounts(
                prompt=len(request.prompt_ids),
                explanation=sequence.num_tokens,
                branch=sum(branch.num_tokens for group in (*branches, *removals) for branch in group),
                probe=sum(len(point.forced_ids) for point in request.points),
            ),
            step_ends=generated_step_ends(self.codec, sequence.ids, len(steps)),
            is_symbol=tuple(token in self.codec.symbol_ids for token in sequence.ids),
            removals=removals,
        )

    def _branch(self, question: Question, before: str, sequence: GeneratedTokens) -> Branch:
        text = self.codec.decode(sequence.ids)
        answer = read_answer(before + text, question, sequence.finish_reason)
        return Branch(text, answer, sequence.mean_logprob, sequence.num_tokens)

    def _probe(self, forced: ForcedToken | None) -> Probe:
        """The forced answer; without room for it in the context, none, with entropy 0."""
        if forced is None:
            return Probe(None, 0.0)
        return Probe(self.codec.decode([forced.id]).strip() or None, forced.entropy)


def fits(codec: Codec, question: Question) -> bool:
    """Whether a question leaves room for an explanation in the student's context."""
    return len(codec.encode_prompt(question)) <= codec.max_context - MIN_EXPLANATION_TOKENS
