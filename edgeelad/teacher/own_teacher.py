"""A teacher of the user's own, with its replies kept in the ledger: no reply is asked for twice, and caps hold.

The teacher is any object with the methods of `protocol.Teacher`, passed to `edgeelad.distill` or installed as a plugin.
Its replies are checked, and its answers made canonical. A cap is checked before each call. What a call will cost is not
known before, so the most expensive call so far is reserved for it: a cap in tokens or dollars can be exceeded by what
the calls in progress cost more than that.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, TeacherError, TeacherReplyError, TeacherUnavailableError
from edgeelad.files import dump_json
from edgeelad.record_files import parse_record
from edgeelad.records import Question, TeacherUsage
from edgeelad.teacher.ledger.budget import PICO, Caps, Prices, Reservation
from edgeelad.teacher.ledger.exchange import Billing, StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger
from edgeelad.teacher.prompts.messages import Message
from edgeelad.teacher.protocol import (
    AnswerReply,
    ChainReply,
    FirstErrorReply,
    JudgeReply,
    Teacher,
    UnusableReplyError,
)
from edgeelad.text.answers import canonical

REPLIES: dict[str, type[AnswerReply | ChainReply | FirstErrorReply | JudgeReply]] = {
    "answer": AnswerReply,
    "rationale": ChainReply,
    "check": FirstErrorReply,
    "find_first_error": FirstErrorReply,
    "judge_step": JudgeReply,
    "complete": ChainReply,
}
WAIT_S = 0.5  # between looks at the ledger while another process has the same request in progress


class OwnTeacher:
    """A `Teacher` that has the methods of another one, as far as it has them.

    Args:
        teacher: The user's object.
        config: Caps, prices and the model's name.
        ledger: Where replies are kept.
        run: Whose budget is counted.
        is_replay: Answer from the ledger only.

    Raises:
        ConfigError: The object lacks a method that every teacher has.
    """

    def __init__(self, teacher: Teacher, config: TeacherConfig, ledger: Ledger, run: str, is_replay: bool) -> None:
        for method in ("answer", "rationale"):
            if not callable(getattr(teacher, method, None)):
                raise ConfigError(f"{type(teacher).__name__} has no method {method}(), which a teacher needs")
        self._teacher = teacher
        self._name = f"python:{type(teacher).__module__}.{type(teacher).__qualname__}"
        self._model = config.model or ""
        self._ledger, self._run, self._is_replay = ledger, run, is_replay
        self._prices, self._caps = Prices.from_config(config), Caps.from_config(config)
        self._interrupted = threading.Event()
        self._asked: set[str] = set()
        self._largest = Reservation(0, 0, 0)
        self._answered = threading.Condition()
        for method in REPLIES:
            call = getattr(teacher, method, None)
            if callable(call):
                setattr(self, method, self._kept(method, call))

    def interrupt(self) -> None:
        """Stop waiting for other processes, and tell the teacher."""
        self._interrupted.set()
        tell = getattr(self._teacher, "interrupt", None)
        if callable(tell):
            tell()

    def _kept(self, method: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def ask(question: Question, *arguments: Any) -> Any:
            request = self._request(method, question, arguments)
            with self._answered:  # two questions of one text are one request
                self._answered.wait_for(lambda: request.key not in self._asked)
                self._asked.add(request.key)
            try:
                return self._ask(request, call, question, arguments)
            finally:
                with self._answered:
                    self._asked.remove(request.key)
                    self._answered.notify_all()

        return ask

    def _ask(
        self, request: TeacherRequest, call: Callable[..., Any], question: Question, arguments: tuple[Any, ...]
    ) -> Any:
        reply = self._ledger.find(request.key)
        while reply is None:
            if self._is_replay:
                raise TeacherReplyError(
                    f"question {question.id}: the ledger {self._ledger.path} holds no reply to {request.prompt_id}(), "
                    "and the teacher is not asked in a replay"
                )
            begun = self._ledger.begin(
                request,
                self._largest,
                self._caps,
                self._prices,
                run=self._run,
                question_id=question.id,
                completion_cap=0,
            )
            reply = begun.reply
            if begun.attempt_id is not None:
                reply = self._buy(begun.attempt_id, request, call, question, arguments)
            elif reply is None and self._interrupted.wait(WAIT_S):
                raise TeacherUnavailableError("interrupted while another process had the same request in progress")
        usage = self._ledger.usage_of([request.key], self._prices)
        if reply.problem:
            raise UnusableReplyError(reply.problem, usage)
        record = parse_record(reply.content.encode(), REPLIES[request.prompt_id], f"{self._ledger.path}: {request.key}")
        return replace(record, usage=usage)

    def _request(self, method: str, question: Question, arguments: tuple[Any, ...]) -> TeacherRequest:
        asked = {"question": question.text, "kind": question.kind, "choices": question.choices}
        plain = [_plain(argument) for argument in arguments]
        content = dump_json({**asked, "arguments": plain})
        return TeacherRequest(self._name, self._model, (Message("user", content),), 0.0, method, "")

    def _buy(
        self,
        attempt_id: int,
        request: TeacherRequest,
        call: Callable[..., Any],
        question: Question,
        arguments: tuple[Any, ...],
    ) -> StoredReply:
        """Call the teacher; what comes of it completes the attempt's row."""
        try:
            given = _checked(request.prompt_id, call(question, *arguments), question)
            content, problem, usage = dump_json({**asdict(given), "usage": {}}), "", given.usage
        except TeacherReplyError as error:
            content, problem = "", str(error) or type(error).__name__
            usage = getattr(error, "usage", TeacherUsage(cost_usd=0.0))
        except BaseException as error:
            is_refused = isinstance(error, TeacherError)
            self._ledger.fail(attempt_id, "unbilled" if is_refused else "in_doubt", f"{type(error).__name__}: {error}")
            raise
        pico = None if usage.cost_usd is None else round(usage.cost_usd * PICO)
        billing = Billing(usage.prompt_tokens, usage.completion_tokens, cost_pico=pico)
        reply, cost = StoredReply(request.key, content, "stop", problem, 0, billing), self._prices.cost(billing)
        self._ledger.answer(attempt_id, reply, cost, model=self._model)
        with self._answered:
            before = self._largest
            self._largest = Reservation(
                max(before.prompt_tokens, billing.prompt_tokens),
                max(before.completion_tokens, billing.completion_tokens),
                max(before.cost_pico or 0, cost or 0),
            )
        return reply


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _checked(method: str, reply: Any, question: Question) -> Any:
    """The reply with canonical answers, and steps as a tuple of lines.

    Raises:
        ConfigError: It is of another type than the method returns.
        TeacherReplyError: Its answer is not one of the question's kind.
    """
    expected = REPLIES[method]
    if not isinstance(reply, expected):
        raise ConfigError(f"the teacher's {method}() returned {type(reply).__name__}; expected {expected.__name__}")
    changes: dict[str, Any] = {}
    for name in ("answer", "ending"):
        value = getattr(reply, name, None)
        if value is not None:
            changes[name] = canonical(str(value), question.kind, question.choices)
            if changes[name] is None:
                raise TeacherReplyError(f"the {name} {value!r} is not a {question.kind}")
    if isinstance(reply, ChainReply):
        changes["steps"] = tuple(" ".join(str(step).split()) for step in reply.steps)
    return replace(reply, **changes)
