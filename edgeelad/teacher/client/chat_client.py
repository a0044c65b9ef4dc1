"""Buy replies: look into the ledger, reserve the worst case, send, read, record; retry if that is safe.

`ChatClient.complete` takes a request and gives its reply, from the ledger if it was ever bought. Every HTTP attempt is
a ledger row before it is sent. How long a request is tried is decided in `patience`. A refusal that no other request
escapes cancels all requests that wait. Does not read what replies mean.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, RunError, TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.accounts import Accounts
from edgeelad.teacher.client.batch_book import BatchBook
from edgeelad.teacher.client.endpoint import Endpoint, open_transport
from edgeelad.teacher.client.limiter import Entry, Limiter, windows_from_config
from edgeelad.teacher.client.outcomes import Answered, Outcome, classify
from edgeelad.teacher.client.patience import Patience, Purchase
from edgeelad.teacher.client.refusals import Again, Refused, Unsupported
from edgeelad.teacher.client.transport import Lost
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger

# malformed replies at one level of structured output, after which the next lower level is tried
MAX_MALFORMED = 2
# successive requests answered only at a lower level, after which all requests use it
MAX_LEVELS_DOWN = 3
# maximum number of features that one request may lose
MAX_LESSONS = 12
# the attempt at which the system turn is merged into the user's, if a new endpoint answers with bare errors 500
SYSTEM_ROLE_TRIAL = 3
# how often to look whether another process has its reply
POLL_S = 0.5
# of English text, for the rate limits; replaced by the actual tokens afterwards
BYTES_PER_TOKEN = 4


class ChatClient:
    """Client of one endpoint; thread-safe. Close it when done."""

    def __init__(
        self,
        config: TeacherConfig,
        ledger: Ledger,
        *,
        run: str = "",
        count_tokens: Callable[[str], int] | None = None,
        is_replay: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            config: Endpoint, model, caps, limits.
            ledger: Where exchanges are kept.
            run: Whose budget is counted.
            count_tokens: Counts a text's tokens, for replies without usage; default: the worst case.
            is_replay: Answer from the ledger only; what it does not hold is an error.
            clock: Seconds, monotonic.
            sleep: Waits; the default is cut short by `interrupt`.
            rng: Jitter.

        Raises:
            ConfigError: See `Endpoint`; or the variable that holds the key is not set.
            RunError: The run has a batch under way, which would be paid for a second time.
        """
        self.config = config
        self.accounts = Accounts(config, ledger, run, count_tokens)
        self.endpoint = Endpoint(config, ledger)
        if not is_replay and any(batch.is_own for batch in BatchBook(ledger, run, self.endpoint.url).open_batches()):
            raise RunError(
                f"{ledger.path}: a batch of this run is under way at {self.endpoint.url}; set teacher.batch = true to "
                "bring it in"
            )
        self._is_replay = is_replay
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = sleep or self._wait
        self._rng = rng or random.Random()
        self._patience = self._new_patience(config.max_retry_s)
        self._lock = threading.Lock()
        self._key_locks: dict[str, tuple[threading.Lock, int]] = {}
        self._final: TeacherRefusedError | TeacherUnavailableError | None = None
        self._num_levels_down = 0
        self._settled = threading.Condition()
        self._num_settled = 0
        self._limiter = Limiter(config.max_concurrency, windows_from_config(config), clock, self._sleep)
        self._transport = open_transport(config, self.endpoint.url, is_replay=is_replay)

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def interrupt(self) -> None:
        """Send no further request; what is under way is still read and written down."""
        self._stopped.set()

    def reopen(self, max_retry_s: float | None = None) -> None:
        """Send requests again after the endpoint was unavailable; each is tried for `max_retry_s`, if it is given."""
        self._patience = self._new_patience(self.config.max_retry_s if max_retry_s is None else max_retry_s)
        self._final = None
        self._stopped.clear()

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        """The reply to a request: from the ledger, or bought now. `reply.problem` says why it is unusable, if so.

        Raises:
            TeacherReplyError: This request gets no reply; others may.
            TeacherUnavailableError: The teacher does not answer.
            TeacherRefusedError: The teacher refuses every request.
            BudgetError: A cap could be passed.
            StorageError: The ledger cannot be written.
        """
        with self._alone(request.key):
            if self._is_replay:
                return self._recall(request)
            found = self.accounts.find(request.key, completion_cap)
            if found is not None:
                return found
            purchase = Purchase(request, question_id, completion_cap, self._clock())
            try:
                return self._buy(purchase)
            except (TeacherRefusedError, TeacherUnavailableError) as error:
                # no other request will fare better: those that wait are not sent
                self._final = self._final or error
                self._stopped.set()
                raise
            finally:
                self._patience.ended(purchase)

    def _new_patience(self, max_retry_s: float) -> Patience:
        has_answered = self._has_answered()
        return Patience(str(self.endpoint), max_retry_s, has_answered, self._clock, time.time, self._rng)

    def _has_answered(self) -> bool:
        """Whether the endpoint has answered this run before."""
        sql = (
            "SELECT 1 FROM attempts a JOIN requests r ON r.key = a.key WHERE a.run = ? AND a.outcome = 'answered' "
            "AND json_extract(r.canonical, '$.endpoint') = ? LIMIT 1"
        )
        return bool(self.accounts.ledger.rows(sql, (self.accounts.run, self.endpoint.url)))

    def _recall(self, request: TeacherRequest) -> StoredReply:
        found = self.accounts.ledger.find(request.key)
        if found is None:
            raise TeacherReplyError(
                f"the ledger {self.accounts.ledger.path} holds no reply to this request ({request.prompt_id}), and "
                "nothing is sent in a replay"
            )
        return found

    def _buy(self, purchase: Purchase) -> StoredReply:
        while True:
            self._check_running()
            num_settled = self._num_settled
            body = self.endpoint.body(
                purchase.request,
                purchase.completion_cap,
                levels_down=purchase.levels_down,
                has_system_role=purchase.has_system_role,
            )
            wanted = self.accounts.reserve(body)
            entry = self._limiter.enter(wanted.prompt_tokens / BYTES_PER_TOKEN, wanted.completion_tokens)
            billing = None
            try:
                self._check_running()
                begun = self.accounts.begin(
                    purchase.request,
                    wanted,
                    question_id=purchase.question_id,
                    completion_cap=purchase.completion_cap,
                )
                if begun.reply is not None:
                    return begun.reply
                outcome: Outcome | None = None
                if begun.attempt_id is not None:
                    outcome = self._attempt(begun.attempt_id, body, purchase.request.key)
                    if isinstance(outcome, Answered):
                        reply = self.accounts.keep(
                            begun.attempt_id, purchase.request, outcome, purchase.completion_cap, wanted
                        )
                        billing = reply.billing
                        self._note_reply(purchase)
                        return reply
                    self._note_failure(begun.attempt_id, outcome, entry)
            finally:
                self._limiter.leave(entry, billing)
            if outcome is None:
                self._wait_for_others(num_settled)
            else:
                self._sleep(self._delay(purchase, outcome, body))

    def _attempt(self, attempt_id: int, body: dict[str, Any], key: str) -> Outcome:
        try:
            reply = self._transport.post(body, request_id=f"{key[-16:]}-{attempt_id}")
        except ConfigError as error:
            self.accounts.fail(attempt_id, Refused(str(error)))
            raise
        if not isinstance(reply, Lost):
            self._patience.contacted()
        return classify(reply, time.time(), body)

    def _note_reply(self, purchase: Purchase) -> None:
        self._patience.answered()
        if not purchase.has_system_role:
            self.endpoint.learn_system_role()
        with self._lock:
            self._num_levels_down = self._num_levels_down + 1 if purchase.levels_down else 0
            is_level_lost = self._num_levels_down >= MAX_LEVELS_DOWN
            if is_level_lost:
                self._num_levels_down = 0
        if is_level_lost:
            self.endpoint.lower_structure()
        self._limiter.succeeded()
        self._note_settled()

    def _note_failure(self, attempt_id: int, outcome: Again | Refused | Unsupported, entry: Entry) -> None:
        self.accounts.fail(attempt_id, outcome)
        self._note_settled()
        if isinstance(outcome, Again) and outcome.is_throttle:
            told = outcome.retry_after_s
            self._limiter.throttled(entry, told if told is None or told <= self.config.max_retry_s else None)

    def _delay(self, purchase: Purchase, outcome: Outcome, body: dict[str, Any]) -> float:
        """Seconds until this request may be sent again; raises if it may not."""
        assert not isinstance(outcome, Answered)
        if isinstance(outcome, Refused):
            self._patience.refused(purchase, outcome)
        if isinstance(outcome, Unsupported):
            purchase.num_lessons += 1
            if purchase.num_lessons > MAX_LESSONS:
                raise TeacherRefusedError(f"{self.endpoint} refused: {outcome.reason}")
            self.endpoint.learn(outcome, body)
            return 0.0
        if outcome.is_generation and self._can_lower(purchase, body):
            return 0.0
        delay = self._patience.delay(purchase, outcome)
        is_bare = outcome.suspect == "server or request" and outcome.outcome == "unbilled"
        is_trial = is_bare and not self._patience.has_answered and purchase.num_alike == SYSTEM_ROLE_TRIAL - 1
        purchase.has_system_role = not is_trial
        return delay

    def _can_lower(self, purchase: Purchase, body: dict[str, Any]) -> bool:
        """Whether to ask again after a malformed reply: once at this level of structured output, then a level down."""
        if "response_format" not in body or self.config.structured != "auto":
            return False
        purchase.num_malformed += 1
        if purchase.num_malformed >= MAX_MALFORMED:
            purchase.levels_down += 1
            purchase.num_malformed = 0
        return True

    def _note_settled(self) -> None:
        """Wake the requests that wait for room in the budget, since the actual cost of an attempt is known."""
        with self._settled:
            self._num_settled += 1
            self._settled.notify_all()

    def _wait_for_others(self, num_settled: int) -> None:
        with self._settled:
            self._settled.wait_for(lambda: self._num_settled != num_settled, timeout=POLL_S)

    def _wait(self, seconds: float) -> None:
        self._stopped.wait(seconds)
        self._check_running()

    def _check_running(self) -> None:
        if self._final is not None:
            raise type(self._final)(str(self._final))
        if self._stopped.is_set():
            raise TeacherUnavailableError("interrupted before this request was sent; everything is kept")

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """Admit one thread per request, so that a second thread finds what the first has bought."""
        with self._lock:
            lock, num_waiting = self._key_locks.get(key, (threading.Lock(), 0))
            self._key_locks[key] = (lock, num_waiting + 1)
        try:
            with lock:
                yield
        finally:
            with self._lock:
                lock, num_waiting = self._key_locks[key]
                if num_waiting == 1:
                    del self._key_locks[key]
                else:
                    self._key_locks[key] = (lock, num_waiting - 1)
