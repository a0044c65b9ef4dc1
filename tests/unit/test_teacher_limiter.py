import pytest

from edgeelad.config import TeacherConfig
from edgeelad.teacher.client.limiter import Limiter, windows_from_config
from edgeelad.teacher.ledger.exchange import Billing


class Time:
    def __init__(self):
        self.now = 1000.0
        self.slept = []

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def make(time, concurrency=8, **limits):
    config = TeacherConfig(**{f"{name}_per_minute": value for name, value in limits.items()})
    return Limiter(concurrency, windows_from_config(config), time.clock, time.sleep)


def test_requests_a_minute():
    time = Time()
    limiter = make(time, requests=3)
    for _ in range(7):
        limiter.leave(limiter.enter(1, 0), None)
    assert time.slept == [60.0, 60.0]


def test_less_than_one_request_a_minute():
    time = Time()
    limiter = make(time, requests=0.5)
    for _ in range(3):
        limiter.leave(limiter.enter(1, 0), None)
    assert time.slept == [120.0, 120.0]


def test_tokens_a_minute_count_what_was_taken():
    time = Time()
    limiter = make(time, tokens=100)
    limiter.leave(limiter.enter(60, 30), Billing(15, 5))
    limiter.leave(limiter.enter(20, 50), None)
    assert time.slept == []
    time.now += 10
    limiter.enter(50, 0)
    assert time.slept == [50.0]


def test_prompt_and_completion_tokens_a_minute():
    time = Time()
    limiter = make(time, prompt_tokens=100, completion_tokens=10)
    limiter.enter(90, 1)
    limiter.enter(5, 5)
    assert time.slept == []
    limiter.enter(6, 1)
    assert time.slept == [60.0]
    limiter.enter(1, 10)
    assert time.slept == [60.0, 60.0]


def test_a_request_larger_than_the_window_goes_alone():
    time = Time()
    limiter = make(time, tokens=100)
    limiter.enter(500, 0)
    limiter.enter(1, 0)
    assert time.slept == [60.0]


def test_concurrency_shrinks_once_a_burst_and_recovers():
    time = Time()
    limiter = make(time, concurrency=8)
    burst = [limiter.enter(1, 0) for _ in range(8)]
    for entry in burst:
        time.now += 0.1
        limiter.throttled(entry, None)
        limiter.leave(entry, None)
    assert limiter.concurrency == 4
    later = limiter.enter(1, 0)
    limiter.throttled(later, None)
    limiter.leave(later, None)
    assert limiter.concurrency == 2
    for _ in range(40):
        limiter.succeeded()
    assert limiter.concurrency == 8


def test_a_pause_holds_all_requests():
    time = Time()
    limiter = make(time)
    entry = limiter.enter(1, 0)
    limiter.throttled(entry, 30.0)
    limiter.leave(entry, None)
    limiter.enter(1, 0)
    assert time.slept == [30.0]


def test_an_interrupted_wait_leaves_no_place_taken():
    time = Time()
    limiter = make(time, concurrency=1, requests=1)
    limiter.leave(limiter.enter(1, 0), None)

    def interrupted(seconds):
        raise InterruptedError

    limiter._sleep = interrupted
    with pytest.raises(InterruptedError):
        limiter.enter(1, 0)
    limiter._sleep = time.sleep
    limiter.enter(1, 0)
    assert time.slept == [60.0]
