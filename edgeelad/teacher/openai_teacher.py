"""A teacher behind an OpenAI-compatible API: renders the prompts, buys the replies, reads them.

A reply that cannot be used (cut off, empty, not what was asked for) is asked for once more: with twice the cap if it
was cut off, else at the resampling temperature. Then it is an `UnusableReplyError`. If reply after reply is cut off,
the cap is too low for this teacher, and the run ends instead of paying for more. Every reply carries what it cost when
it was bought, also if it comes from the ledger.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from edgeelad.config import TeacherConfig
from edgeelad.errors import CompletionCapError, TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.client.batch_client import BatchClient
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.client.fallback_client import FallbackClient
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest, canonical_json
from edgeelad.teacher.prompts.messages import Message, Turn, load_prompt, render_judge_messages, render_messages
from edgeelad.teacher.prompts.parse import parse_answer, parse_chain, parse_check, parse_first_error, parse_judgment
from edgeelad.teacher.protocol import (
    AnswerReply,
    ChainReply,
    FirstErrorReply,
    JudgeReply,
    UnusableReplyError,
)

# replies to one prompt that were cut off, after which the cap is to blame; and how many of them for one that was read
MAX_CUT = 6
CUT_PER_READ = 4

Reply = TypeVar("Reply", AnswerReply, ChainReply, FirstErrorReply, JudgeReply)


class CutOffs:
    """Counts replies that were cut off before they could be read, by prompt; thread-safe."""

    def __init__(self, config: TeacherConfig) -> None:
        self._config = config
        self._cut: dict[str, set[str]] = defaultdict(set)
        self._read: dict[str, set[str]] = defaultdict(set)
        self._error: CompletionCapError | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise what `note_cut` has raised, in the calls that wait for their turn."""
        if self._error is not None:
            raise self._error

    def note_read(self, prompt_id: str, key: str) -> None:
        """A reply could be read."""
        with self._lock:
            self._read[prompt_id].add(key)

    def note_cut(self, prompt_id: str, key: str, problem: str) -> None:
        """A reply was cut off.

        Raises:
            CompletionCapError: That happened so often that the next one would be cut off as well.
        """
        with self._lock:
            self._cut[prompt_id].add(key)
            num_cut, num_read = len(self._cut[prompt_id]), len(self._read[prompt_id])
        if num_cut >= MAX_CUT and num_cut >= CUT_PER_READ * num_read:
            cap = self._config.max_completion_tokens
            self._error = CompletionCapError(
                f"{num_cut} of {num_cut + num_read} replies to the prompt {prompt_id} cannot be read ({problem}; half "
                f"of them at twice the cap): raise teacher.max_completion_tokens = {cap} or "
                "teacher.max_reasoning_tokens, or lower teacher.reasoning_effort, then resume; everything is kept"
            )
        self.check()


class OpenAITeacher:
    """A `FullTeacher` on a client that buys at once, or in batches.

    Attributes:
        client: What buys the replies.
        fetch: Buys what is pending, all at once; None if every call buys its own reply.
    """

    def __init__(self, client: ChatClient | BatchClient | FallbackClient, config: TeacherConfig) -> None:
        self.client = client
        self.fetch = client.fetch if isinstance(client, BatchClient) else None
        self._accounts = client.accounts
        self._config = config
        self._extra_body = canonical_json(config.extra_body)
        self._cuts = CutOffs(config)

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """Answer a question; see `Teacher.answer`."""
        messages = render_messages("answer", question)
        return self._ask("answer", question, messages, partial(parse_answer, question=question), sample)

    def check(self, question: Question, steps: Sequence[str], student_answer: str | None) -> FirstErrorReply:
        """Answer, then find and correct the first flawed step; see `FullTeacher.check`."""
        messages = render_messages(
            "check", question, style=self._config.style, steps=steps, student_answer=student_answer
        )
        return self._ask("check", question, messages, partial(parse_check, question=question, num_steps=len(steps)))

    def find_first_error(
        self, question: Question, steps: Sequence[str], reference: str | None, student_answer: str | None
    ) -> FirstErrorReply:
        """Find and correct the first flawed step; see `FullTeacher.find_first_error`."""
        messages = render_messages(
            "find_first_error",
            question,
            style=self._config.style,
            reference=reference,
            steps=steps,
            student_answer=student_answer,
        )
        return self._ask(
            "find_first_error",
            question,
            messages,
            partial(parse_first_error, question=question, num_steps=len(steps)),
        )

    def judge_step(
        self, question: Question, steps: Sequence[str], turns: Sequence[Turn], next_step: str, reference: str | None
    ) -> JudgeReply:
        """Judge one step; see `FullTeacher.judge_step`."""
        messages = render_judge_messages(
            question, next_step, style=self._config.style, reference=reference, steps=steps, turns=turns
        )
        number = len(steps) + len(turns) + 1
        return self._ask("judge_step", question, messages, partial(parse_judgment, question=question, number=number))

    def complete(self, question: Question, steps: Sequence[str], reference: str | None) -> ChainReply:
        """Continue from correct steps; see `FullTeacher.complete`."""
        messages = render_messages("complete", question, style=self._config.style, reference=reference, steps=steps)
        return self._ask("complete", question, messages, partial(parse_chain, question=question, num_given=len(steps)))

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """Write a whole explanation; see `Teacher.rationale`."""
        messages = render_messages("rationale", question, style=self._config.style, reference=reference)
        return self._ask("rationale", question, messages, partial(parse_chain, question=question), sample)

    def usage(self) -> TeacherUsage:
        """What this run's requests have cost so far."""
        return self._accounts.ledger.totals(self._accounts.run, self._accounts.prices).usage

    def interrupt(self) -> None:
        """Send nothing more."""
        self.client.interrupt()

    def reopen(self) -> None:
        """Send requests again after the endpoint was unavailable or refused them; not for batches."""
        assert not isinstance(self.client, BatchClient), "a batch is fetched again instead"
        self.client.reopen()

    def _ask(
        self,
        prompt_id: str,
        question: Question,
        messages: tuple[Message, ...],
        parse: Callable[..., Reply],
        sample: int = 0,
    ) -> Reply:
        cap = self._config.completion_cap
        temperature = self._config.temperature if sample == 0 else self._config.resample_temperature
        request = TeacherRequest(
            endpoint=self.client.endpoint.url,
            model=self.client.endpoint.model,
            messages=messages,
            temperature=temperature,
            prompt_id=prompt_id,
            prompt_sha256=load_prompt(prompt_id).sha256,
            sample=sample,
            extra_body=self._extra_body,
        )
        keys: set[str] = set()
        for retry in (0, 1):
            self._cuts.check()
            reply = self.client.complete(request, question.id, cap)
            # another endpoint than the one that was asked first may have given the reply
            keys |= {request.key, reply.key}
            try:
                return replace(self._read(reply, parse, prompt_id), usage=self._usage_of(keys))
            except TeacherReplyError as error:
                problem = str(error)
            if reply.finish_reason == "content_filter" or retry:
                break
            if reply.finish_reason == "length":
                cap *= 2
            else:
                temperature = max(temperature, self._config.resample_temperature)
            request = replace(request, retry=1, temperature=temperature)
        raise UnusableReplyError(f"the teacher's reply cannot be used: {problem}", self._usage_of(keys))

    def _read(self, reply: StoredReply, parse: Callable[..., Reply], prompt_id: str) -> Reply:
        """Read a reply; what was found unusable before is read again, as this version may be able to.

        Raises:
            TeacherReplyError: It cannot be used; the ledger knows why.
            CompletionCapError: So many were cut off that it is not this one's fault.
        """
        is_cut = reply.finish_reason == "length"
        problem = reply.problem
        if reply.content.strip() and reply.finish_reason != "content_filter":
            try:
                read = parse(reply.content, is_cut=is_cut)
            except TeacherReplyError as error:
                problem = problem or ("cut off at the completion cap" if is_cut else str(error))
                self._accounts.ledger.note_problem(reply.key, problem, is_cut=is_cut)
            else:
                self._cuts.note_read(prompt_id, reply.key)
                return read
        if is_cut:
            self._cuts.note_cut(prompt_id, reply.key, problem)
        raise TeacherReplyError(problem)

    def _usage_of(self, keys: set[str]) -> TeacherUsage:
        return self._accounts.ledger.usage_of(sorted(keys), self._accounts.prices)
