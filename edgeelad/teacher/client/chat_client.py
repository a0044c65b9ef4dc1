"""Buy replies: look into the ledger, reserve, send, read, write down; again where that is safe.

`ChatClient.complete` takes a request and gives its reply, from the ledger if it was ever bought. Every HTTP attempt is
a ledger row before it is sent. Waits as the server says (Retry-After, in full), else exponentially with jitter, up to
a total time; errors that no retry can mend end at once. Knows nothing of what the replies mean.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from edgeelad.config import TeacherConfig
from edgeelad.errors import ConfigError, RunError, TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.accounts import Accounts
from edgeelad.teacher.client.batch_book import BatchBook
from edgeelad.teacher.client.endpoint import Endpoint, read_key
from edgeelad.teacher.client.limiter import Entry, Limiter, windows_from_config
from edgeelad.teacher.client.outcomes import Again, Answered, Outcome, Refused, Unsupported, classify
from edgeelad.teacher.client.transport import Lost, Transport
from edgeelad.teacher.ledger.exchange import StoredReply, TeacherRequest
from edgeelad.teacher.ledger.ledger import Ledger

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
# an endpoint that has never answered is given up sooner: a wrong port should not take ten minutes to notice
FIRST_CONTACT_S = 15.0
# refusals in a row after which it is not the requests any more
MAX_UNCLEAR = 5
# attempts of one request that may have been billed without bringing anything
MAX_DOUBTFUL = 4
# how often to look whether another process has got its reply
POLL_S = 0.5
# of English text, for the windows a minute; what it really took is set right afterwards
BYTES_PER_TOKEN = 4


@dataclass(slots=True)
class _Purchase:
    """How far the buying of one request has come."""

    request: TeacherRequest
    question_id: str
    completion_cap: int
    began: float
    num_failures: int = 0
    num_doubtful: int = 0


class ChatClient:
    """A client of one endpoint; thread-safe. Close it when done."""

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
            count_tokens: For replies that do not tell their usage; without it the worst case is counted.
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
        if not is_replay and BatchBook(ledger, run, self.endpoint.url).open_batches():
            raise RunError(
                f"{ledger.path}: a batch of this run is under way at {self.endpoint.url}; set teacher.batch = true to "
                "bring it in"
            )
        self._is_replay = is_replay
        self._clock = clock
        self._stopped = threading.Event()
        self._sleep = sleep or self._wait
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._key_locks: dict[str, tuple[threading.Lock, int]] = {}
        self._last_contact = float("-inf")
        self._last_answer = float("-inf")
        self._num_unclear = 0
        self._settled = threading.Condition()
        self._num_settled = 0
        self._limiter = Limiter(config.max_concurrency, windows_from_config(config), clock, self._sleep)
        self._transport = Transport(
            self.endpoint.url,
            None if is_replay else read_key(config.api_key_env),
            config.extra_headers,
            connect_timeout_s=config.connect_timeout_s,
            read_timeout_s=config.read_timeout_s,
        )

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()

    def interrupt(self) -> None:
        """Let no request be sent any more; what is under way is still read and written down."""
        self._stopped.set()

    def complete(self, request: TeacherRequest, question_id: str, completion_cap: int) -> StoredReply:
        """The reply to a request: from the ledger, or bought now. `reply.problem` says why it is unusable, if so.

        Raises:
            TeacherReplyError: This request gets no reply, though the teacher answers others.
            TeacherUnavailableError: The teacher does not answer.
            TeacherRefusedError: The teacher refuses for good.
            BudgetError: A cap could be passed.
            StorageError: The ledger cannot be written.
        """
        with self._alone(request.key):
            if self._is_replay:
                return self._recall(request)
            found = self.accounts.find(request.key, completion_cap)
            if found is not None:
                return found
            return self._buy(_Purchase(request, question_id, completion_cap, self._clock()))

    def _recall(self, request: TeacherRequest) -> StoredReply:
        found = self.accounts.ledger.find(request.key)
        if found is None:
            raise TeacherReplyError(
                f"the ledger {self.accounts.ledger.path} holds no reply to this request ({request.prompt_id}), and "
                "nothing is sent in a replay"
            )
        return found

    def _buy(self, purchase: _Purchase) -> StoredReply:
        while True:
            self._check_running()
            num_settled = self._num_settled
            body = self.endpoint.body(purchase.request, purchase.completion_cap)
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
                        self._note_reply()
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
            self._last_contact = self._clock()
        return classify(reply, time.time())

    def _note_reply(self) -> None:
        with self._lock:
            self._last_answer = self._clock()
            self._num_unclear = 0
        self._limiter.succeeded()
        self._note_settled()

    def _note_failure(self, attempt_id: int, outcome: Again | Refused | Unsupported, entry: Entry) -> None:
        self.accounts.fail(attempt_id, outcome)
        self._note_settled()
        if isinstance(outcome, Again) and outcome.is_throttle:
            self._limiter.throttled(entry, outcome.retry_after_s)

    def _delay(self, purchase: _Purchase, outcome: Outcome, body: dict[str, Any]) -> float:
        """Seconds until this request may be sent again; raises where it may not."""
        if isinstance(outcome, Unsupported):
            self.endpoint.learn(outcome, body)
            return 0.0
        if isinstance(outcome, Refused):
            if outcome.is_about_request or self._is_odd_one_out(outcome):
                raise TeacherReplyError(f"the teacher refused this request: {outcome.reason}")
            raise TeacherRefusedError(f"{self.endpoint} refused: {outcome.reason}")
        assert isinstance(outcome, Again)
        purchase.num_failures += 1
        purchase.num_doubtful += outcome.outcome == "in_doubt"
        if purchase.num_doubtful >= MAX_DOUBTFUL:
            self._give_up(purchase, outcome)
        backoff = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(purchase.num_failures - 1, 16))
        delay = backoff * self._rng.uniform(0.5, 1.0) if outcome.retry_after_s is None else outcome.retry_after_s
        limit_s = self.config.max_retry_s
        if self._last_contact == float("-inf"):
            limit_s = min(limit_s, FIRST_CONTACT_S)
        if self._clock() - purchase.began + delay > limit_s:
            self._give_up(purchase, outcome)
        return delay

    def _is_odd_one_out(self, outcome: Refused) -> bool:
        """Whether others are taken, so that an unclear refusal is about this request."""
        with self._lock:
            self._num_unclear += 1
            has_answered = self._last_answer > float("-inf")
            return outcome.is_unclear and has_answered and self._num_unclear < MAX_UNCLEAR

    def _give_up(self, purchase: _Purchase, outcome: Again) -> NoReturn:
        tries = (
            f"{purchase.num_failures} attempts in {self._clock() - purchase.began:.0f} s; the last: {outcome.reason}"
        )
        if self._last_answer > purchase.began:
            # it answers others, so it is this request
            raise TeacherReplyError(f"no reply to this request, though the teacher answers others: {tries}")
        raise TeacherUnavailableError(f"{self.endpoint} does not answer: {tries}; everything is kept, try again later")

    def _note_settled(self) -> None:
        """What an attempt really cost is known: those that wait for room in the budget may look again."""
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
        if self._stopped.is_set():
            raise TeacherUnavailableError("interrupted before this request was sent; everything is kept")

    @contextmanager
    def _alone(self, key: str) -> Iterator[None]:
        """One thread at a time for one request, so that a second asker finds what the first has bought."""
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
