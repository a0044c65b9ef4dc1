"""Buy replies in batches, through a provider's batch API: cheaper, and hours of delay.

`BatchClient.complete` gives what the ledger has, else raises `NotYetError`; `fetch` buys many of those at once and
returns when they have come. A batch is a page in the ledger before it is sent, so after a crash or a Ctrl-C the next
`fetch` first brings in what is under way at the provider, and pays for nothing again.
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
from edgeelad.teacher.client.batch_api import BatchApi, RemoteBatch
from edgeelad.teacher.client.batch_book import BatchBook, OpenAttempt, OpenBatch
from edgeelad.teacher.client.batch_pending import NotYetError, Pending
from edgeelad.teacher.client.endpoint import Endpoint, open_transport
from edgeelad.teacher.client.outcomes import Answered, Outcome, classify
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.client.transport import HttpReply
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger

MAX_BATCH = 10_000
# of one request, in batches that brought nothing for it
MAX_FAILURES = 3


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
        self._transport = open_transport(config, self.endpoint.url)
        base = self.endpoint.url.removesuffix("/chat/completions")
        self._api = BatchApi(base, self._transport, self._sleep, time.time)
        self._book = BatchBook(ledger, run, self.endpoint.url)

    def close(self) -> None:
        """Close all connections; batches under way go on at the provider."""
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
        """Buy these, and wait until they are there; what cannot be bought is told by the next `complete`.

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
        batch_id = self._book.create()
        lines = self._begin(batch_id, missing[:MAX_BATCH])
        if not lines:
            self._book.update(batch_id, "done")
            if not any(item.request.key in self._errors for item in missing):
                # another process has them under way
                self._sleep(self._config.batch_poll_s)
            return
        file_id = self._api.upload("".join(lines).encode())
        self._book.update(batch_id, "uploaded", file_id=file_id)
        self._finish(OpenBatch(batch_id, "uploaded", file_id, None))

    def _begin(self, batch_id: str, pending: Sequence[Pending]) -> list[str]:
        """Write the attempts' rows; gives the lines of the batch's file."""
        lines = []
        for item in pending:
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
                line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
                lines.append(json.dumps(line, ensure_ascii=False) + "\n")
        return lines

    def _finish(self, batch: OpenBatch) -> None:
        """Bring a batch to its end from wherever it is, and its replies into the ledger."""
        remote = self._submitted(batch)
        if remote is None:
            for attempt in self._book.open_attempts(batch.id):
                self.accounts.fail(attempt.attempt_id, Again("the batch was never begun", "unbilled"))
            self._book.update(batch.id, "done")
            return
        while not remote.is_final:
            self._sleep(self._config.batch_poll_s)
            remote = self._api.get(remote.remote_id)
        self._collect(batch.id, remote)

    def _submitted(self, batch: OpenBatch) -> RemoteBatch | None:
        if batch.remote_id is not None:
            return self._api.get(batch.remote_id)
        if batch.state == "new" or batch.file_id is None:
            # its file was not uploaded, or nobody knows under which name: no batch can have come of it
            return None
        remote = self._api.find(batch.id) or self._api.create(batch.file_id, batch.id)
        self._book.update(batch.id, "submitted", remote_id=remote.remote_id)
        return remote

    def _collect(self, batch_id: str, remote: RemoteBatch) -> None:
        opened = self._book.open_attempts(batch_id)
        example = self.endpoint.body(opened[0].request, opened[0].completion_cap) if opened else {}
        attempts = {attempt.custom_id: attempt for attempt in opened}
        outcomes: list[Outcome] = []
        for file_id in (remote.output_file_id, remote.error_file_id):
            for row in self._api.download(file_id) if file_id else ():
                attempt = attempts.pop(str(row.get("custom_id")), None)
                if attempt is not None:
                    outcomes.append(self._settle(attempt, row))
        reason = f"the batch ended as {remote.state} without it{': ' + remote.problem if remote.problem else ''}"
        for attempt in attempts.values():
            self._fail(attempt, Again(reason, "unbilled"))
        self._book.update(batch_id, "done")
        if remote.state == "failed":
            raise TeacherRefusedError(f"{self.endpoint} refused a batch: {remote.problem or 'no reason given'}")
        # all lines of a batch were made alike: a feature that is missing is one lesson, not one a line
        lessons = {outcome.feature: outcome for outcome in outcomes if isinstance(outcome, Unsupported)}
        for lesson in lessons.values():
            self.endpoint.learn(lesson, example)
        has_answered = any(isinstance(outcome, Answered) for outcome in outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Refused) and not (outcome.is_about_request or (outcome.is_unclear and has_answered)):
                raise TeacherRefusedError(f"{self.endpoint} refused: {outcome.reason}")

    def _settle(self, attempt: OpenAttempt, row: dict[str, Any]) -> Outcome:
        """Write one result into the ledger."""
        sent = self.endpoint.body(attempt.request, attempt.wanted.completion_tokens)
        outcome = classify(_reply_of(row), time.time(), sent)
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
            raise TeacherUnavailableError("interrupted while a batch is under way; it goes on at the provider")


def _reply_of(row: dict[str, Any]) -> HttpReply:
    """A line of a result file as the HTTP answer that it stands for."""
    response = row.get("response")
    if isinstance(response, dict) and isinstance(response.get("status_code"), int):
        return HttpReply(response["status_code"], {}, json.dumps(response.get("body")).encode())
    return HttpReply(500, {}, json.dumps({"error": row.get("error")}).encode())
