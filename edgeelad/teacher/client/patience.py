"""Decide how long a request is tried: when to send it again, when to set it aside, when to end the run.

One request never ends a run: what fails or is refused the same way again and again is set aside, with the reason. It
is the endpoint's fault only if several questions in a row get nothing, or if the network or the account is the reason.
Takes outcomes, gives seconds or raises. Sends nothing.
"""

from __future__ import annotations

import datetime
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from edgeelad.errors import TeacherRefusedError, TeacherReplyError, TeacherUnavailableError
from edgeelad.teacher.client.refusals import Again, Refused, Suspect
from edgeelad.teacher.ledger.exchange import TeacherRequest

FIRST_BACKOFF_S = 0.5
MAX_BACKOFF_S = 60.0
# an endpoint that has never answered is given up sooner: a wrong port should not take ten minutes to notice
FIRST_CONTACT_S = 15.0
# failures of one kind in a row after which it is the request, if nothing speaks against that
MAX_ALIKE = 5
# of these, failures while the endpoint answers others, or fails no other: one may be the last of an outage that ends
MIN_APART = 2
# attempts of one request that may have been billed without bringing anything
MAX_DOUBTFUL = 4
# questions in a row that get nothing, after which it is the endpoint; fewer if it has never answered one
MAX_QUESTIONS = 5
MAX_FIRST_QUESTIONS = 2


@dataclass(slots=True)
class Purchase:
    """How far the buying of one request has come.

    Attributes:
        request: What is asked.
        question_id: The question that it serves.
        completion_cap: The most tokens of its reply.
        began: When it was first tried.
        num_failures: Attempts that brought nothing.
        num_alike: The latest of these that share a suspect.
        num_apart: The latest failures in a row while the endpoint answered others, or failed no other.
        num_doubtful: Those that may have been billed.
        suspect: What the latest failure is blamed on.
        num_lessons: Attempts that taught what the endpoint does not know.
        num_malformed: Replies at this level of structured output whose form the endpoint itself refused.
        levels_down: Levels of structured output below the endpoint's.
        has_system_role: Whether the system turn is sent as such.
    """

    request: TeacherRequest
    question_id: str
    completion_cap: int
    began: float
    num_failures: int = 0
    num_alike: int = 0
    num_apart: int = 0
    num_doubtful: int = 0
    suspect: Suspect = "network"
    num_lessons: int = 0
    num_malformed: int = 0
    levels_down: int = 0
    has_system_role: bool = True


def check_wait(name: str, told_s: float | None, max_retry_s: float, now: float, reason: str) -> None:
    """Refuse to wait longer than the configuration allows.

    Args:
        name: Who asks to wait.
        told_s: Seconds that it asks for; None if it does not say.
        max_retry_s: The maximum.
        now: Seconds since the epoch.
        reason: Why, in its words.

    Raises:
        TeacherUnavailableError: It asks for more; says until when.
    """
    if told_s is not None and told_s > max_retry_s:
        until = datetime.datetime.fromtimestamp(now + min(told_s, 1e9)).astimezone()
        raise TeacherUnavailableError(
            f"{name} asks to wait until {until:%Y-%m-%d %H:%M %Z}, longer than teacher.max_retry_s = {max_retry_s:g} "
            f"allows ({reason}); everything is kept, resume then"
        )


class Patience:
    """The patience with one endpoint; thread-safe.

    Args:
        name: The endpoint, for messages.
        max_retry_s: Seconds after which a request is given up.
        has_answered: Whether it has answered this run before.
        clock: Seconds, monotonic.
        time_of_day: Seconds since the epoch.
        rng: Jitter.
    """

    def __init__(
        self,
        name: str,
        max_retry_s: float,
        has_answered: bool,
        clock: Callable[[], float],
        time_of_day: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self._name = name
        self._max_retry_s = max_retry_s
        self._clock = clock
        self._time_of_day = time_of_day
        self._rng = rng
        self._lock = threading.Lock()
        self._has_contact = False
        self._last_answer = float("-inf")
        self._trouble_began: float | None = None
        self._failing: set[int] = set()
        self._unanswered: set[str] = set()
        self.has_answered = has_answered

    def contacted(self) -> None:
        """The endpoint sent something, whatever it was."""
        self._has_contact = True

    def answered(self) -> None:
        """A reply came."""
        with self._lock:
            self.has_answered = True
            self._last_answer = self._clock()
            self._trouble_began = None
            self._unanswered.clear()

    def ended(self, purchase: Purchase) -> None:
        """A request is not tried any more, whatever came of it."""
        with self._lock:
            self._failing.discard(id(purchase))

    def refused(self, purchase: Purchase, outcome: Refused) -> NoReturn:
        """Raise what a refusal means.

        Raises:
            TeacherReplyError: This request is set aside.
            TeacherRefusedError: No request will fare better.
        """
        if outcome.is_about_request:
            raise TeacherReplyError(f"the teacher refused this request: {outcome.reason}")
        if not outcome.is_unclear:
            raise TeacherRefusedError(f"{self._name} refused: {outcome.reason}")
        if self._set_aside(purchase):
            raise TeacherReplyError(f"the teacher refused this request: {outcome.reason}")
        raise TeacherRefusedError(
            f"{self._name} refused {len(self._unanswered)} questions in a row; the last: {outcome.reason}"
        )

    def delay(self, purchase: Purchase, outcome: Again) -> float:
        """Seconds until a request may be sent again.

        Raises:
            TeacherReplyError: This request is set aside.
            TeacherUnavailableError: The endpoint does not answer, or asks to wait too long.
        """
        told = outcome.retry_after_s
        check_wait(self._name, told, self._max_retry_s, self._time_of_day(), outcome.reason)
        now = self._clock()
        with self._lock:
            self._failing.add(id(purchase))
            self._trouble_began = now if self._trouble_began is None else self._trouble_began
            is_alone = self._failing == {id(purchase)} and not self._unanswered
            is_apart = self._last_answer > purchase.began or (is_alone and outcome.suspect == "server or request")
        purchase.num_failures += 1
        purchase.num_alike = purchase.num_alike + 1 if outcome.suspect == purchase.suspect else 1
        purchase.num_apart = purchase.num_apart + 1 if is_apart else 0
        purchase.suspect = outcome.suspect
        purchase.num_doubtful += outcome.outcome == "in_doubt"
        backoff = min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(purchase.num_failures - 1, 16))
        delay = backoff * self._rng.uniform(0.5, 1.0) if told is None else told
        if self._is_over(purchase, outcome, now + delay):
            self._give_up(purchase, outcome, now)
        return delay

    def _is_over(self, purchase: Purchase, outcome: Again, next_try: float) -> bool:
        """Whether trying on is no use."""
        limit_s = self._max_retry_s if self._has_contact else min(self._max_retry_s, FIRST_CONTACT_S)
        if purchase.num_doubtful >= MAX_DOUBTFUL or next_try - purchase.began > limit_s:
            return True
        if outcome.suspect == "network" or purchase.num_alike < MAX_ALIKE:
            return False
        if outcome.suspect == "request" or purchase.num_apart >= MIN_APART:
            return True
        with self._lock:
            return bool(self._unanswered) and next_try - (self._trouble_began or next_try) > limit_s

    def _give_up(self, purchase: Purchase, outcome: Again, now: float) -> NoReturn:
        tries = f"{purchase.num_failures} attempts in {now - purchase.began:.0f} s; the last: {outcome.reason}"
        if self._last_answer > purchase.began:
            raise TeacherReplyError(f"no reply to this request, though the teacher answers others: {tries}")
        may_be_request = outcome.suspect == "server or request" or (outcome.suspect == "server" and self.has_answered)
        if outcome.suspect == "request" or (may_be_request and self._set_aside(purchase)):
            raise TeacherReplyError(f"no reply to this request: {tries}")
        raise TeacherUnavailableError(f"{self._name} does not answer: {tries}; everything is kept, try again later")

    def _set_aside(self, purchase: Purchase) -> bool:
        """Count a question that gets nothing; whether it may still be its own fault."""
        with self._lock:
            self._unanswered.add(purchase.question_id)
            return len(self._unanswered) < (MAX_QUESTIONS if self.has_answered else MAX_FIRST_QUESTIONS)
