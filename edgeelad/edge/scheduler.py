"""Run the sequences of all requests on one student: a thread that owns the batch, and the queue before it.

The batch is the engine's (`engine.generate.LiveBatch`): a waiting sequence joins as soon as there is room, and one that
ends or is canceled leaves before the next step. A failure ends the sequences that it concerns; the thread continues.

`Scheduler.submit`, `cancel` and `drain`, and all methods of `Job`, belong to the event loop.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import suppress
from types import TracebackType

from edgeelad.edge.api import ApiError, failure
from edgeelad.engine.generate import GeneratedTokens, LiveBatch, LiveSequence, SequenceRequest

# prompt tokens after which the running sequences advance by a token before further prompts are prefilled
MAX_PREFILL_TOKENS = 512
_log = logging.getLogger(__name__)


class Job:
    """A sequence that is waiting, running or done.

    Attributes:
        request: What to generate.
        sequence: Its tokens so far; None while it is waiting.
        submitted_s, first_token_s: When it was submitted and had its first token, in seconds of `time.perf_counter`.
    """

    def __init__(self, request: SequenceRequest) -> None:
        self.request = request
        self.sequence: LiveSequence | None = None
        self.submitted_s, self.first_token_s = time.perf_counter(), 0.0
        self.error: Exception | None = None
        self.is_done = self.is_canceled = False
        self.news = asyncio.Event()

    async def tokens(self) -> AsyncIterator[list[int]]:
        """The tokens as they are generated, without the end token, up to the end of the sequence.

        Raises:
            ApiError: The sequence could not be generated.
        """
        num_seen, is_done = 0, False
        while not is_done:
            await self.news.wait()
            self.news.clear()
            is_done = self.is_done  # read before the tokens, which are complete then
            if self.error is not None:
                raise self.error if isinstance(self.error, ApiError) else failure()
            fresh = [] if self.sequence is None else self.sequence.ids[num_seen:]
            num_seen += len(fresh)
            if fresh:
                yield fresh

    def result(self, num_tokens: int | None = None) -> GeneratedTokens:
        """The sequence that has ended, or its first `num_tokens` tokens."""
        assert self.sequence is not None, "it has run"
        found = self.sequence
        if num_tokens is None:
            return found.result()
        logprobs, entropies = tuple(found.logprobs[:num_tokens]), tuple(found.entropies[:num_tokens])
        return GeneratedTokens(tuple(found.ids[:num_tokens]), logprobs, entropies, "stop")


class Scheduler:
    """Runs jobs on a batch in a thread of its own; use it as a context manager.

    Attributes:
        max_waiting: Sequences that may wait besides those that run; more are refused.
    """

    def __init__(self, batch: LiveBatch, max_waiting: int) -> None:
        self.max_waiting = max_waiting
        self._batch = batch
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()  # guards what both threads use: the two lists and the flag
        self._is_closed = False
        self._is_draining = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._work, name="edgeelad-scheduler", daemon=True)

    def __enter__(self) -> Scheduler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def max_running(self) -> int:
        """Maximum number of sequences that run together."""
        return self._batch.num_rows

    @property
    def num_running(self) -> int:
        """Number of sequences that run."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Number of sequences that wait."""
        return len(self._waiting)

    def submit(self, requests: Sequence[SequenceRequest]) -> list[Job]:
        """Queue sequences that belong together; all of them, or none.

        Raises:
            ApiError: 503, too many are waiting already, or the server is shutting down.
        """
        if self._is_draining:
            raise _overloaded("The server is shutting down.")
        self._loop = asyncio.get_running_loop()
        jobs = [Job(request) for request in requests]
        with self._changed:
            num_others = len(self._waiting) + len(self._running)
            if num_others + len(jobs) > self.max_waiting + self.max_running:
                raise _overloaded(f"{len(self._waiting)} requests are waiting already; try again in a moment.")
            self._waiting.extend(jobs)
            self._changed.notify()
        return jobs

    def cancel(self, jobs: Iterable[Job]) -> None:
        """Free the places of jobs that nobody waits for any more."""
        with self._changed:
            for job in jobs:
                job.is_canceled = True
                with suppress(ValueError):
                    self._waiting.remove(job)

    async def drain(self, seconds: float) -> None:
        """Accept nothing more, let the jobs run for some seconds, and end those that are left with an error."""
        self._is_draining = True
        deadline = time.perf_counter() + seconds
        while (self._waiting or self._running) and time.perf_counter() < deadline:
            await asyncio.sleep(0.05)
        with self._changed:
            left = [*self._waiting, *self._running]
            self._waiting.clear()
        for job in left:
            job.is_canceled, job.error = True, _overloaded("The server is shutting down.")
            job.news.set()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._waiting or self._running or self._is_closed):
                    self._changed.wait()
                if self._is_closed:
                    return
            try:
                self._remove_canceled()
                self._admit()
                self._batch.step()
                self._tell()
            except Exception as error:
                _log.exception("the student failed; the requests that it was working on end with an error")
                self._batch.clear()
                self._tell(error)

    def _remove_canceled(self) -> None:
        for job in [job for job in self._running if job.is_canceled]:
            assert job.sequence is not None, "it runs"
            self._batch.remove(job.sequence)
            self._end(job)

    def _admit(self) -> None:
        """Start waiting jobs while there is room, up to a number of prompt tokens."""
        num_tokens = 0
        while num_tokens < MAX_PREFILL_TOKENS and len(self._batch.live) < self._batch.num_rows:
            with self._changed:
                if not self._waiting:
                    return
                job = self._waiting.popleft()
                self._running.append(job)
            try:
                job.sequence = self._batch.add(job.request)
            except Exception as error:
                _log.exception("the student failed to read a prompt; its request ends with an error")
                self._end(job, error)
                continue
            if job.sequence is None:
                with self._changed:
                    self._running.remove(job)
                    if not job.is_canceled:
                        self._waiting.appendleft(job)
                return
            num_tokens += len(job.request.prompt_ids)
            self._tell_one(job)  # its first token does not wait for other prompts

    def _tell(self, error: Exception | None = None) -> None:
        """Wake those who wait for the running jobs, and end the jobs whose sequence has ended."""
        for job in list(self._running):
            self._tell_one(job, error)

    def _tell_one(self, job: Job, error: Exception | None = None) -> None:
        if job.sequence is not None and job.sequence.logprobs and not job.first_token_s:
            job.first_token_s = time.perf_counter()
        if error is not None or (job.sequence is not None and job.sequence.is_done):
            own = None if job.sequence is None else job.sequence.error
            if own is not None:
                _log.error("a request ends with an error: %s", own)
            self._end(job, error or own)
        else:
            self._wake(job)

    def _end(self, job: Job, error: Exception | None = None) -> None:
        with self._changed:
            self._running.remove(job)
        job.error, job.is_done = job.error or error, True
        self._wake(job)

    def _wake(self, job: Job) -> None:
        assert self._loop is not None, "a job was submitted"
        with suppress(RuntimeError):  # the event loop is closed: nobody waits
            self._loop.call_soon_threadsafe(job.news.set)


def _overloaded(message: str) -> ApiError:
    return ApiError(503, message, code="overloaded", kind="server_error")
