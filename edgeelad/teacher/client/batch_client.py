"""Buy replies in batches through a provider's batch API: at a lower price, with a delay of up to hours.

`BatchClient.complete` gives a reply that is in the ledger, else raises `NotYetError`; `fetch` buys many of these and
returns when they are there. A batch is in the ledger before it is sent: after a crash or a Ctrl-C, the next `fetch`
first collects the batches in progress at the provider, and pays for nothing twice. As many batches are in progress at
once as the provider's queue has room for, and end in any order; one that is too large is split.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, TeacherError, TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.accounts import Accounts
from edgeelad.teacher.client.batch_api import BatchApi, TooLargeError
from edgeelad.teacher.client.batch_book import BatchBook, OpenAttempt, OpenBatch
from edgeelad.teacher.client.batch_pending import NotYetError, Pending
from edgeelad.teacher.client.batch_progress import Awaited, BatchProgress
from edgeelad.teacher.client.batch_remote import RemoteBatch, reply_of, says_full, says_large
from edgeelad.teacher.client.endpoint import Endpoint, open_transport
from edgeelad.teacher.client.outcomes import Answered, Outcome, classify
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger

# what OpenAI takes in a file (Azure and others take no less), and half of the bytes
MAX_LINES = 50_000
MAX_FILE_BYTES = 90 * 2**20
# lines that are written to the ledger in one transaction: with one for each, 50,000 take minutes
NUM_TOGETHER = 1000
# batches without a reply to one request, before it is set aside
MAX_FAILURES = 3
# batches in a row that the provider refuses for their size, before the run ends; and maximum polls to wait for room in
# its queue before the next one: five hours in total, with polls of 30 seconds
MAX_REFUSED = 60
MAX_PATIENCE = 12


class _HeldError(Exception):
    """The budget is held by open attempts. Never leaves the module."""


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """A batch of the ledger, with the requests in it that this `fetch` has put there."""

    opened: OpenBatch
    items: Sequence[Pending]


@dataclass(slots=True, eq=False)
class _Desk:
    """What one `fetch` has to do.

    Attributes:
        queue: Requests that are in no batch.
        ready: Batches that are uploaded, and for which the provider had no room.
        active: Batches in progress at the provider, by id.
        is_full: Whether it, or the budget, has no room until one of these ends.
    """

    queue: deque[Pending] = field(default_factory=deque)
    ready: deque[_Batch] = field(default_factory=deque)
    active: dict[str, tuple[_Batch, Awaited]] = field(default_factory=dict)
    is_full: bool = False


class BatchClient:
    """A client that buys in batches; `complete` may be called from many threads, `fetch` from one."""

    def __init__(
        self,
        config: TeacherConfig,
        ledger: Ledger,
        *,
        run: str = "",
        count_tokens: Callable[[str], int] | None = None,
        sleep: Callable[[float], None] | None = None,
    ) -> None:
        """Prepare; nothing is sent. Arguments and errors as for `ChatClient`."""
        self.accounts = Accounts(config, ledger, run, count_tokens, config.batch_discount)
        self.endpoint = Endpoint(config, ledger)
        self._config = config
        self._stopped = threading.Event()
        self._sleep = sleep or self._wait
        self._failures: Counter[str] = Counter()
        self._errors: dict[str, TeacherError] = {}
        self._max_lines = MAX_LINES
        self._num_refused = 0
        self._transport = open_transport(config, self.endpoint.url)
        self._api = BatchApi(
            self.endpoint.url, self._transport, self._sleep, time.time, config.batch_poll_s, config.max_retry_s
        )
        self._book = BatchBook(ledger, run, self.endpoint.url)
        self._progress = BatchProgress(config, self._api, self._book, self._sleep, ledger.say)

    def close(self) -> None:
        """Close all connections; the provider continues its batches."""
        self._transport.close()

    def interrupt(self) -> None:
        """Stop waiting for a batch."""
        self._stopped.set()

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        """The reply to a request, if it was ever bought.

        Raises:
            NotYetError: It has to be fetched.
            TeacherReplyError, BudgetError: It cannot be had.
        """
        found = self.accounts.find(request.key, completion_cap)
        if found is not None:
            return found
        error = self._errors.get(request.key)
        if error is not None:
            raise error
        raise NotYetError(Pending(request, question_id, completion_cap))

    def fetch(self, pending: Sequence[Pending]) -> None:
        """Buy these, and wait until they are there; the next `complete` raises for what cannot be bought.

        Raises:
            TeacherRefusedError, TeacherUnavailableError: The provider does not take or finish batches.
            StorageError: The ledger cannot be written.
        """
        wanted = {item.request.key: item for item in pending}
        desk = _Desk()
        for batch in self._book.open_batches():
            # requests of this batch are as good as bought, whichever session has submitted it
            keys = {attempt.request.key for attempt in self._book.open_attempts(batch.id)}
            if (batch.is_own or keys & wanted.keys()) and self._resume(batch, desk):
                wanted = {key: item for key, item in wanted.items() if key not in keys}
        desk.queue.extend(item for key, item in wanted.items() if self.accounts.find(key, item.completion_cap) is None)
        is_waiting = bool(desk.queue) and not desk.active
        while desk.queue or desk.ready or desk.active:
            desk.is_full = desk.is_full and bool(desk.active)
            while (desk.queue or desk.ready) and not desk.is_full:
                self._submit(desk)
            for batch_id in list(desk.active):
                is_waiting = False
                self._look(batch_id, desk)
            if desk.active:
                self._sleep(self._config.batch_poll_s)
        if is_waiting and not any(key in self._errors for key in wanted):
            # another process has them in progress
            self._sleep(self._config.batch_poll_s)

    def _resume(self, batch: OpenBatch, desk: _Desk) -> bool:
        """Take a batch up again that an earlier session has left; False if it came to nothing."""
        try:
            self._enter(_Batch(batch, ()), desk)
        except TooLargeError as error:
            self._split(_Batch(batch, ()), error, desk)
        except TeacherRefusedError:
            if batch.is_own:
                raise
            return False  # submitted with another key: the run that has it can collect the batch
        return batch.id in desk.active

    def _submit(self, desk: _Desk) -> None:
        """Submit a batch that is ready, or one of the first requests in the queue."""
        batch = desk.ready.popleft() if desk.ready else self._upload(desk)
        if batch is None:
            return
        try:
            self._enter(batch, desk)
        except TooLargeError as error:
            self._refused(batch, error, desk)

    def _upload(self, desk: _Desk) -> _Batch | None:
        """Upload a file of the first requests in the queue; None if none of them can be sent now."""
        batch_id = self._book.create()
        items, lines = self._begin(batch_id, desk)
        if not lines:
            self._book.update(batch_id, "done")
            if desk.is_full and not desk.active:
                desk.queue.clear()  # others of this run hold the budget: the next `fetch` may have room
            return None
        try:
            file_id = self._api.upload("".join(lines).encode())
        except TooLargeError as error:
            self._split(_Batch(OpenBatch(batch_id, "new", None, None), items), error, desk)
            return None
        self._book.update(batch_id, "uploaded", file_id=file_id)
        return _Batch(OpenBatch(batch_id, "uploaded", file_id, None), items)

    def _begin(self, batch_id: str, desk: _Desk) -> tuple[list[Pending], list[str]]:
        """Write the attempts' rows; gives the requests, and the lines of the batch's file.

        Requests that another process has in progress leave the queue, too, for the next `fetch`. It stops at one for
        which the budget has no room before batches in progress have ended.
        """
        queue = desk.queue
        items: list[Pending] = []
        lines: list[str] = []
        num_bytes = 0
        while queue and len(lines) < self._max_lines and num_bytes <= MAX_FILE_BYTES and not desk.is_full:
            with self.accounts.ledger.transaction():
                for _ in range(min(NUM_TOGETHER, len(queue), self._max_lines - len(lines))):
                    item = queue.popleft()
                    try:
                        line = self._begin_one(batch_id, item)
                    except _HeldError:
                        queue.appendleft(item)
                        desk.is_full = True
                        break
                    if line is not None:
                        items.append(item)
                        lines.append(line)
                        num_bytes += len(line.encode())
                    if num_bytes > MAX_FILE_BYTES:
                        break
        return items, lines

    def _begin_one(self, batch_id: str, item: Pending) -> str | None:
        """Write an attempt's row; gives its line, or None if nothing is to be sent.

        Raises:
            _HeldError: The budget is held by open attempts.
        """
        body = self.endpoint.body(item.request, item.completion_cap)
        try:
            begun = self.accounts.begin(
                item.request,
                self.accounts.reserve(body),
                question_id=item.question_id,
                completion_cap=item.completion_cap,
                batch=batch_id,
            )
        except BudgetError as error:
            self._errors[item.request.key] = error
            return None
        if begun.is_held:
            raise _HeldError
        if begun.attempt_id is None:
            return None
        custom_id = f"{item.request.key[-16:]}-{begun.attempt_id}"
        line = {"custom_id": custom_id, "method": "POST", "url": self._api.target, "body": body}
        return json.dumps(line, ensure_ascii=False) + "\n"

    def _enter(self, batch: _Batch, desk: _Desk) -> None:
        """Have a batch in progress at the provider, from wherever it is.

        Raises:
            TooLargeError: The provider does not take it.
        """
        remote = self._progress.submitted(batch.opened)
        if remote is None:
            self._release(batch.opened.id, "the batch was never begun")
        else:
            desk.active[batch.opened.id] = (batch, self._progress.awaited(remote))

    def _look(self, batch_id: str, desk: _Desk) -> None:
        """Bring the replies of a batch into the ledger if it has ended."""
        batch, awaited = desk.active[batch_id]
        remote = awaited.look()
        if remote is None:
            return
        del desk.active[batch_id]
        if remote.state == "failed" and (says_full(remote.problem) or says_large(remote.problem)):
            self._refused(batch, TooLargeError(remote.problem, says_full(remote.problem)), desk)
            return
        self._collect(batch_id, remote)
        desk.is_full = False
        self._num_refused, self._max_lines = 0, min(MAX_LINES, 2 * self._max_lines)

    def _refused(self, batch: _Batch, error: TooLargeError, desk: _Desk) -> None:
        """Submit a batch later, if others of this run fill the provider's queue; else make it smaller."""
        if error.is_full and desk.active and batch.opened.file_id is not None:
            desk.is_full = True
            self._book.withdraw(batch.opened.id)
            desk.ready.append(_Batch(replace(batch.opened, state="uploaded", remote_id=None), batch.items))
        else:
            self._split(batch, error, desk)

    def _collect(self, batch_id: str, remote: RemoteBatch) -> None:
        rows = self._progress.results(remote)
        opened = self._book.open_attempts(batch_id)
        example = self.endpoint.body(opened[0].request, opened[0].completion_cap) if opened else {}
        attempts = {attempt.custom_id: attempt for attempt in opened}
        outcomes: list[Outcome] = []
        for first in range(0, len(rows), NUM_TOGETHER):
            with self.accounts.ledger.transaction():
                for row in rows[first : first + NUM_TOGETHER]:
                    attempt = attempts.pop(str(row.get("custom_id")), None)
                    if attempt is not None:
                        outcomes.append(self._settle(attempt, row))
        problem = f": {remote.problem}" if remote.problem else ""
        reason = f"the batch ended as {remote.told} without a reply to this request{problem}"
        for attempt in attempts.values():
            # one that ran to its end may have billed a line that it lost
            is_billed = remote.state in ("completed", "unknown")
            self._fail(attempt, Again(reason, "in_doubt" if is_billed else "unbilled"))
        self._book.update(batch_id, "done")
        if remote.state == "failed":
            raise TeacherRefusedError(f"{self.endpoint} refused a batch: {remote.problem or 'no reason given'}")
        # all lines of a batch were made alike: a feature that is missing is one lesson, not one per line
        lessons = {outcome.feature: outcome for outcome in outcomes if isinstance(outcome, Unsupported)}
        for lesson in lessons.values():
            self.endpoint.learn(lesson, example)
        has_answered = any(isinstance(outcome, Answered) for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Refused) and not (outcome.is_about_request or (outcome.is_unclear and has_answered)):
                raise TeacherRefusedError(f"{self.endpoint} refused: {outcome.reason}")
        if remote.state == "canceled":
            raise TeacherRefusedError(
                f"the batch {remote.remote_id} was canceled at the provider; its replies are kept, and nothing is "
                "submitted again: resume to buy the rest"
            )

    def _split(self, batch: _Batch, error: TooLargeError, desk: _Desk) -> None:
        """Give up a batch that the provider does not take in its size; the next one is half as large.

        Raises:
            TeacherUnavailableError: The provider's queue stays full.
        """
        opened = self._book.open_attempts(batch.opened.id)
        self._release(batch.opened.id, str(error))
        if not error.is_full and len(opened) == 1:
            self._errors[opened[0].request.key] = TeacherReplyError(f"too large for a batch: {error}")
            return
        desk.queue.extendleft(reversed(batch.items))
        self._num_refused += 1
        if self._num_refused > MAX_REFUSED:
            raise TeacherUnavailableError(f"{self._api} refuses even small batches: {error}; resume later")
        self._max_lines = max(1, len(opened) // 2)
        if error.is_full:
            self._sleep(self._config.batch_poll_s * min(self._num_refused, MAX_PATIENCE))

    def _release(self, batch_id: str, reason: str) -> None:
        with self.accounts.ledger.transaction():
            for attempt in self._book.open_attempts(batch_id):
                self.accounts.fail(attempt.attempt_id, Again(reason, "unbilled"))
            self._book.update(batch_id, "done")

    def _settle(self, attempt: OpenAttempt, row: dict[str, Any]) -> Outcome:
        """Write one result into the ledger."""
        sent = self.endpoint.body(attempt.request, attempt.completion_cap)
        outcome = classify(reply_of(row), time.time(), sent)
        if isinstance(outcome, Answered):
            self.accounts.keep(attempt.attempt_id, attempt.request, outcome, attempt.completion_cap, attempt.wanted)
        elif isinstance(outcome, Unsupported):
            self.accounts.fail(attempt.attempt_id, outcome)
        else:
            self._fail(attempt, outcome)
        if isinstance(outcome, Refused) and (outcome.is_about_request or outcome.is_unclear):
            self._errors[attempt.request.key] = TeacherReplyError(f"the teacher refused this request: {outcome.reason}")
        return outcome

    def _fail(self, attempt: OpenAttempt, outcome: Again | Refused) -> None:
        self.accounts.fail(attempt.attempt_id, outcome)
        key = attempt.request.key
        self._failures[key] += 1
        if self._failures[key] >= MAX_FAILURES:
            self._errors[key] = TeacherReplyError(f"no reply in {MAX_FAILURES} batches; the last: {outcome.reason}")

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            raise TeacherUnavailableError(
                "interrupted while a batch is in progress; the provider continues it: resume to collect its replies"
            )
