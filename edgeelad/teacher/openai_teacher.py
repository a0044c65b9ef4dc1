"""A teacher behind an OpenAI-compatible API: renders the prompts, buys the replies, reads them.

A reply that cannot be used (cut off, empty, not what was asked for) is asked for once more: with twice the cap where it
was cut off, at the resampling temperature otherwise. Then it is an `UnusableReplyError`. Every reply carries what it
cost when it was bought, so a reply that the ledger had already still tells its price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherReplyError
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.client.batch_client import BatchClient
from edgeelad.teacher.client.chat_client import ChatClient
from edgeelad.teacher.client.fallback_client import FallbackClient
from edgeelad.teacher.ledger.exchange import TeacherRequest, canonical_json
from edgeelad.teacher.prompts.messages import Message, Turn, load_prompt, render_judge_messages, render_messages
from edgeelad.teacher.prompts.parse import parse_answer, parse_chain, parse_first_error, parse_judgment
from edgeelad.teacher.protocol import (
    AnswerReply,
    ChainReply,
    FirstErrorReply,
    JudgeReply,
    UnusableReplyError,
)

Reply = TypeVar("Reply", AnswerReply, ChainReply, FirstErrorReply, JudgeReply)


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

    def answer(self, question: Question, sample: int = 0) -> AnswerReply:
        """Answer a question; see `Teacher.answer`."""
        messages = render_messages("answer", question)
        return self._ask("answer", question, messages, lambda text: parse_answer(text, question), sample)

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
            "find_first_error", question, messages, lambda text: parse_first_error(text, question, len(steps))
        )

    def judge_step(
        self, question: Question, steps: Sequence[str], turns: Sequence[Turn], next_step: str, reference: str | None
    ) -> JudgeReply:
        """Judge one step; see `FullTeacher.judge_step`."""
        messages = render_judge_messages(
            question, next_step, style=self._config.style, reference=reference, steps=steps, turns=turns
        )
        number = len(steps) + len(turns) + 1
        return self._ask("judge_step", question, messages, lambda text: parse_judgment(text, question, number))

    def complete(self, question: Question, steps: Sequence[str], reference: str | None) -> ChainReply:
        """Continue from correct steps; see `FullTeacher.complete`."""
        messages = render_messages("complete", question, style=self._config.style, reference=reference, steps=steps)
        return self._ask("complete", question, messages, lambda text: parse_chain(text, question, len(steps)))

    def rationale(self, question: Question, reference: str | None, sample: int = 0) -> ChainReply:
        """Write a whole explanation; see `Teacher.rationale`."""
        messages = render_messages("rationale", question, style=self._config.style, reference=reference)
        return self._ask("rationale", question, messages, lambda text: parse_chain(text, question), sample)

    def usage(self) -> TeacherUsage:
        """What this run's requests have cost so far."""
        return self._accounts.ledger.totals(self._accounts.run, self._accounts.prices).usage

    def interrupt(self) -> None:
        """Send nothing more."""
        self.client.interrupt()

    def _ask(
        self,
        prompt_id: str,
        question: Question,
        messages: tuple[Message, ...],
        parse: Callable[[str], Reply],
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
        problem = ""
        for retry in (0, 1):
            reply = self.client.complete(request, question.id, cap)
            # another endpoint than the one that was asked first may have given the reply
            keys |= {request.key, reply.key}
            problem = reply.problem
            if not problem:
                try:
                    return replace(parse(reply.content), usage=self._usage_of(keys))
                except TeacherReplyError as error:
                    problem = str(error)
                    self._accounts.ledger.note_problem(reply.key, problem)
            if reply.finish_reason == "content_filter" or retry:
                break
            if reply.finish_reason == "length":
                cap *= 2
            else:
                temperature = max(temperature, self._config.resample_temperature)
            request = replace(request, retry=1, temperature=temperature)
        raise UnusableReplyError(f"the teacher's reply cannot be used: {problem}", self._usage_of(keys))

    def _usage_of(self, keys: set[str]) -> TeacherUsage:
        return self._accounts.ledger.usage_of(sorted(keys), self._accounts.prices)
