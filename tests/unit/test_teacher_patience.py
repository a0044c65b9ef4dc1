"""How long a request is tried, and what its failures are blamed on."""

import random

import pytest
from fixtures.ledgers import numbered

from edgeelad.errors import TeacherReplyError
from edgeelad.teacher.client.patience import MAX_ALIKE, MIN_APART, Patience, Purchase
from edgeelad.teacher.client.refusals import Again

FAILED = Again("status 500", "unbilled", suspect="server or request")


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 0.001
        return self.now


def make(num):
    clock = Clock()
    patience = Patience("the teacher", 600.0, True, clock, lambda: 0.0, random.Random(0))
    patience.contacted()
    return patience, [Purchase(numbered(index), str(index), 100, clock()) for index in range(num)]


def test_the_last_failure_of_an_outage_is_not_the_requests():
    """It may be judged after another request was answered, and after all others have ended."""
    patience, (first, last) = make(2)
    for _ in range(MAX_ALIKE):
        patience.delay(first, FAILED)
        patience.delay(last, FAILED)
    patience.answered()
    patience.ended(first)
    assert patience.delay(last, FAILED) > 0
    patience.answered()
    patience.ended(last)


def test_a_request_that_fails_while_others_are_answered_is_set_aside():
    patience, (first, last) = make(2)
    for _ in range(MAX_ALIKE):
        patience.delay(first, FAILED)
        patience.delay(last, FAILED)
    patience.answered()
    patience.ended(first)
    for _ in range(MIN_APART - 1):
        patience.delay(last, FAILED)
    with pytest.raises(TeacherReplyError, match="though the teacher answers others"):
        patience.delay(last, FAILED)


def test_a_request_that_fails_alone_is_set_aside():
    patience, (alone,) = make(1)
    for _ in range(MAX_ALIKE - 1):
        patience.delay(alone, FAILED)
    with pytest.raises(TeacherReplyError, match=f"{MAX_ALIKE} attempts"):
        patience.delay(alone, FAILED)
