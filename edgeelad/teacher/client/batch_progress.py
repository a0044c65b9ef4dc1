"""Bring a batch to its end at the provider, from wherever it is: submit it once, follow it, fetch its results.

What was sent is written down before it is sent, so that a batch whose answer was lost is looked for, and never
submitted a second time unless the user says so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeelad.config import TeacherConfig
from edgeelad.errors import TeacherRefusedError, TeacherUnavailableError
from edgeelad.teacher.client.batch_api import BatchApi, NoListError
from edgeelad.teacher.client.batch_book import BatchBook, OpenBatch
from edgeelad.teacher.client.batch_remote import RemoteBatch

# polls in which a batch that has ended may owe its result files
MAX_OWED = 20
# seconds before each look for a batch that may have been created
LOOKS_S = (2.0, 8.0, 20.0)


class BatchProgress:
    """The batches of one run at one provider."""

    def __init__(
        self,
        config: TeacherConfig,
        api: BatchApi,
        book: BatchBook,
        sleep: Callable[[float], None],
        say: Callable[[str], None],
    ) -> None:
        self._api = api
        self._book = book
        self._sleep = sleep
        self._say = say
        self._poll_s = config.batch_poll_s
        self._may_resubmit = config.batch_resubmit

    def submitted(self, batch: OpenBatch) -> RemoteBatch | None:
        """The batch at the provider; None if none can have come of it."""
        if batch.remote_id is not None:
            return self._api.get(batch.remote_id)
        if batch.state == "new" or batch.file_id is None:
            # its file was not uploaded, or nobody knows under which name
            return None
        remote = self._found(batch) if batch.state == "submitting" else None
        for _ in range(2):
            if remote is None:
                remote = self._created(batch.id, batch.file_id) or self._found(batch)
        if remote is None:
            raise TeacherUnavailableError(
                f"{self._api} may have taken a batch of the file {batch.file_id}, but does not show it; resume later"
            )
        self._book.update(batch.id, "submitted", remote_id=remote.remote_id)
        return remote

    def _created(self, batch_id: str, file_id: str) -> RemoteBatch | None:
        self._book.update(batch_id, "submitting")
        try:
            return self._api.create(file_id, batch_id)
        except (TeacherRefusedError, TeacherUnavailableError):
            self._book.update(batch_id, "uploaded")
            raise

    def _found(self, batch: OpenBatch) -> RemoteBatch | None:
        """Look for a batch that may have been created: it may take a moment to appear in the list."""
        assert batch.file_id is not None, "a batch is created from a file"
        for wait_s in LOOKS_S:
            self._sleep(wait_s)
            try:
                found = self._api.find(batch.id, batch.file_id)
            except NoListError:
                if self._may_resubmit:
                    return None
                raise TeacherUnavailableError(
                    f"{self._api} may have taken a batch of the file {batch.file_id}, and has no list to look for it: "
                    "look at the provider's console. If no such batch is there, resume with --set "
                    "teacher.batch_resubmit=true; it would be paid for twice otherwise"
                ) from None
            if found is not None:
                return found
        return None

    def awaited(self, remote: RemoteBatch) -> Awaited:
        """Follow a batch to its end."""
        return Awaited(remote, self._api, self._say)

    def results(self, remote: RemoteBatch) -> list[dict[str, Any]]:
        """The lines of a batch's result files, all that the provider counts."""
        for _ in range(MAX_OWED):
            files = [self._api.download(id_) for id_ in (remote.output_file_id, remote.error_file_id) if id_]
            rows = [row for file in files for row in file or ()]
            if None not in files and len(rows) >= (remote.num_completed or 0):
                return rows
            self._sleep(self._poll_s)
        if None in files:
            raise TeacherUnavailableError(
                f"{self._api}: a result file of the batch {remote.remote_id} is not there; resume later to bring it in"
            )
        return rows


class Awaited:
    """A batch that the provider works on."""

    def __init__(self, remote: RemoteBatch, api: BatchApi, say: Callable[[str], None]) -> None:
        self._remote = remote
        self._api = api
        self._say = say
        self._is_told = True
        self._num_owed = self._num_unknown = 0

    def look(self) -> RemoteBatch | None:
        """The batch if it has ended and its result files are named; None: look again after a while.

        Raises:
            TeacherUnavailableError: It has ended, but names no files.
        """
        if not self._is_told:
            self._remote = self._api.get(self._remote.remote_id)
        self._is_told = False
        remote = self._remote
        self._num_owed = self._num_owed + 1 if remote.owes_results else 0
        self._num_unknown = self._num_unknown + 1 if remote.state == "unknown" else 0
        if remote.is_final and not remote.owes_results:
            return remote
        if self._num_unknown == 1:
            self._say(f"{self._api}: the batch {remote.remote_id} is in the state {remote.told!r}")
        if self._num_unknown >= MAX_OWED and (remote.output_file_id or remote.error_file_id):
            return remote
        if self._num_owed > MAX_OWED:
            raise TeacherUnavailableError(
                f"{self._api} calls the batch {remote.remote_id} {remote.told}, but names no file with replies; "
                "resume later to bring them in"
            )
        return None
