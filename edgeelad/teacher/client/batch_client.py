"""Buy replies in batches through a provider's batch API: at a lower price, with a delay of up to hours.

`BatchClient.complete` gives a reply that is in the ledger, else raises `NotYetError`; `fetch` buys many of these and
returns when they are there. A batch is in the ledger before it is sent: after a crash or a Ctrl-C, the next `fetch`
first collects the batches in progress at the provider, and pays for nothing twice. A batch that is too large for the
provider's queue is split.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import BudgetError, TeacherError, TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.accounts import Accounts
from edgeelad.teacher.client.batch_api import BatchApi, TooLargeError
from edgeelad.teacher.client.batch_book import BatchBook, OpenAttempt, OpenBatch
from edgeelad.teacher.client.batch_pending import NotYetError, Pending
from edgeelad.teacher.client.batch_progress import BatchProgress
from edgeelad.teacher.client.batch_remote import RemoteBatch, reply_of, says_full, says_large
from edgeelad.teacher.client.endpoint import Endpoint, open_transport
from edgeelad.teacher.client.outcomes import Answered, Outcome, classify
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger

MAX_LINES = 10_000
MAX_FILE_BYTES = 90 * 2**20  # half of what the providers take
# batches without a reply to one request, before it is set aside
MAX_FAILURES = 3
# batches in a row that the provider refuses for their size, before the run ends; and maximum polls to wait for room in
# its queue before the next one: five hours in total, with polls of 30 seconds
MAX_REFUSED = 60
MAX_PATIENCE = 12


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
        for batch in self._book.open_batches():
            self._finish(batch)
        wanted = {item.request.key: item for item in pending}
        missing = [item for key, item in wanted.items() if self.accounts.find(key, item.completion_cap) is None]
        if not missing:
            return
        self._submit(missing[: self._max_lines])

    def _submit(self, pending: Sequence[Pending]) -> None:
        batch_id = self._book.create()
        lines = self._begin(batch_id, pending)
        if not lines:
            self._book.update(batch_id, "done")
            if not any(item.request.key in self._errors for item in pending):
                # another process has them in progress
                self._sleep(self._config.batch_poll_s)
            return
        try:
            file_id = self._api.upload("".join(lines).encode())
        except TooLargeError as error:
            self._split(batch_id, error)
            return
        self._book.update(batch_id, "uploaded", file_id=file_id)
        self._finish(OpenBatch(batch_id, "uploaded", file_id, None))

    def _begin(self, batch_id: str, pending: Sequence[Pending]) -> list[str]:
        """Write the attempts' rows; gives the lines of the batch's file."""
        lines: list[str] = []
        num_bytes = 0
        for item in pending:
            if num_bytes > MAX_FILE_BYTES:
                break
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
                continue
            # neither an attempt nor a reply: the budget is held by this batch's other attempts; the next one has room
            if begun.attempt_id is not None:
                custom_id = f"{item.request.key[-16:]}-{begun.attempt_id}"
                line = {"custom_id": custom_id, "method": "POST", "url": self._api.target, "body": body}
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
                num_bytes += len(lines[-1].encode())
        return lines

    def _finish(self, batch: OpenBatch) -> None:
        """Bring a batch to its end from wherever it is, and its replies into the ledger."""
        try:
            remote = self._progress.submitted(batch)
            if remote is None:
                self._release(batch.id, "the batch was never begun")
                return
            remote = self._progress.awaited(remote)
            if remote.state == "failed" and (says_full(remote.problem) or says_large(remote.problem)):
                raise TooLargeError(remote.problem, says_full(remote.problem))
        except TooLargeError as error:
            self._split(batch.id, error)
            return
        self._collect(batch.id, remote)
        self._num_refused, self._max_lines = 0, min(MAX_LINES, 2 * self._max_lines)

    def _collect(self, batch_id: str, remote: RemoteBatch) -> None:
        rows = self._progress.results(remote)
        opened = self._book.open_attempts(batch_id)
        example = self.endpoint.body(opened[0].request, opened[0].completion_cap) if opened else {}
        attempts = {attempt.custom_id: attempt for attempt in opened}
        outcomes: list[Outcome] = []
        for row in rows:
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

    def _split(self, batch_id: str, error: TooLargeError) -> None:
        """Give up a batch that the provider does not take in its size; the next one is half as large.

        Raises:
            TeacherUnavailableError: The provider's queue stays full.
        """
        opened = self._book.open_attempts(batch_id)
        self._release(batch_id, str(error))
        if not error.is_full and len(opened) == 1:
            self._errors[opened[0].request.key] = TeacherReplyError(f"too large for a batch: {error}")
            return
        self._num_refused += 1
        if self._num_refused > MAX_REFUSED:
            raise TeacherUnavailableError(f"{self._api} refuses even small batches: {error}; resume later")
        self._max_lines = max(1, len(opened) // 2)
        if error.is_full:
            self._sleep(self._config.batch_poll_s * min(self._num_refused, MAX_PATIENCE))

    def _release(self, batch_id: str, reason: str) -> None:
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
