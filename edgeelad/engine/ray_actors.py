"""Workers of `blocks` as actors on a Ray cluster, one per core or per few; Ray places them, and edgeelad feeds them.

The student's files are read in place on the driver's node, and copied once to every other node. Actors of another
version of edgeelad are refused, since it may compute other last bits.
"""

from __future__ import annotations

import getpass
import hashlib
import io
import logging
import os
import platform
import re
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO

import edgeelad
from edgeelad.engine.blocks import (
    BlockWorkers,
    Done,
    Failed,
    Item,
    Message,
    Ready,
    Refused,
    Result,
    Work,
    Worker,
    message_about,
)
from edgeelad.engine.graph_files import Precision
from edgeelad.engine.memory import peak_memory_bytes
from edgeelad.engine.options import EngineOptions
from edgeelad.engine.session import flush_denormals, limit_memory
from edgeelad.errors import MissingExtraError, RunError, UsageError
from edgeelad.files import make_folder
from edgeelad.locks import lock_file

PIECE_BYTES = 32 << 20  # of a student's file that travels in one piece
CONNECT_S = 10.0
WAIT_S = 30.0  # without a ready actor, after which the user is told what it waits for
_log = logging.getLogger(__name__)


def cluster_options(
    address: str | None,
    num_workers: int | None = None,
    num_threads: int = 1,
    *,
    precision: Precision | None = None,
    kv_bytes: int | None = None,
) -> EngineOptions:
    """Connect to a Ray cluster; options for many questions on it, by default on all of its cores.

    Args:
        address: Address as `ray.init` takes it; None: that of RAY_ADDRESS, else a new cluster on this machine.
        num_workers: Maximum number of actors.
        num_threads: Threads, and cores, per actor.
        precision: As in `EngineOptions`.
        kv_bytes: As in `EngineOptions`.

    Raises:
        MissingExtraError: Ray is not installed.
        RunError: There is no cluster at this address.
        UsageError: No node of the cluster has `num_threads` cores, or there is room for fewer actors.
    """
    _connect(address)
    import ray

    cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    room = sum(count // num_threads for count in cores)
    if room < max(num_workers or 1, 1):
        wanted = f"{num_workers or 1} with {num_threads} {'thread' if num_threads == 1 else 'threads'} each"
        raise UsageError(
            f"too many workers: {wanted}, but the Ray cluster's nodes have {', '.join(map(str, cores))} cores; "
            "use fewer workers or threads, or add nodes"
        )
    return EngineOptions(num_workers or room, num_threads, precision=precision, kv_bytes=kv_bytes, on_ray=True)


def _connect(address: str | None) -> None:
    """Connect this process to a cluster, once; Ray's own logging stays quiet, and it reports no usage."""
    if find_spec("ray") is None:
        raise MissingExtraError("ray", "ray", "scoring on a Ray cluster")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    if ray.is_initialized():
        return
    given = address or os.environ.get("RAY_ADDRESS")
    where = given or "this machine"
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)  # it tells of the token of a new cluster
    try:
        if found := re.fullmatch(r"(.+):(\d{1,5})", where.removeprefix("ray://")):
            socket.create_connection((found[1], int(found[2])), CONNECT_S).close()  # Ray itself tries for minutes
        ray.init(
            address=given or "local",  # None would join a cluster that happens to run here
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            include_dashboard=None if given else False,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise RunError(
            f"no Ray cluster at {where}: {_first_line(error)}; check --address (in a configuration: "
            "scoring.ray_address) and that `ray status` shows the cluster"
        ) from error


class RayActors(BlockWorkers[Item, Result]):
    """Actors on the Ray cluster that this process is connected to."""

    def __init__(
        self,
        start: Callable[[Path], AbstractContextManager[Work[Item, Result]]],
        folder: Path,
        options: EngineOptions,
        warn: Callable[[str], None] = _log.warning,
    ) -> None:
        """Start no actor until there is work for it.

        Args:
            start: Called once in every actor with the student's folder on its node; returns the function from a block
                to its results. Must pickle.
            folder: The student's folder here.
            options: The number of actors, and of threads in each.
            warn: Called with a message for every death.
        """
        super().__init__(options.num_workers, warn)
        self._num_threads = options.num_threads
        self._start_work, self._folder = start, _SharedFolder(folder)
        self._is_waiting_told = False
        self._quiet = ExitStack()

    def __enter__(self) -> RayActors[Item, Result]:
        self._quiet.enter_context(redirect_stdout(_WithoutRay(sys.stdout)))
        return self

    def __exit__(self, *raised: Any) -> None:
        with self._quiet:
            super().__exit__(*raised)

    def _start(self) -> _Actor[Item]:
        import ray

        actor_class = ray.remote(_Scorer)
        actor = actor_class.options(num_cpus=self._num_threads, max_restarts=0, max_task_retries=0).remote()
        started = actor.start.remote(self._start_work, self._folder.reference())
        return _Actor(actor, started)

    def _messages(self) -> Iterator[tuple[Worker[Item], Message | None]]:
        import ray

        actors = [worker for worker in self._workers if isinstance(worker, _Actor)]
        pending = {actor.pending: actor for actor in actors if actor.pending is not None}
        done: list[Any] = []
        while not done:
            done, _ = ray.wait(list(pending), timeout=WAIT_S)
            if not done and not self._is_waiting_told and not any(actor.is_ready for actor in actors):
                self._is_waiting_told = True
                self._warn("the Ray cluster has no free cores yet; waiting for them (`ray status` shows who has them)")
        for reference in done:
            actor = pending[reference]
            actor.pending = None
            yield actor, self._message(actor, reference)

    def _message(self, actor: _Actor[Item], reference: Any) -> Message | None:
        import ray

        try:
            message = ray.get(reference)
        except ray.exceptions.RayTaskError as error:  # the actor could not even read what it was to do
            raise RunError(
                f"a Ray actor cannot start: {_first_line(error.cause)}; install edgeelad {edgeelad.__version__} on all "
                "nodes of the cluster, with the same Python"
            ) from error
        except ray.exceptions.RayError as error:
            actor.how = _how_it_died(error)
            return None
        if isinstance(message, _Started):
            if message.version != edgeelad.__version__:
                raise RunError(
                    f"node {message.node} of the Ray cluster has edgeelad {message.version}, and this one "
                    f"{edgeelad.__version__}; install one version on all nodes"
                )
            return Ready()
        assert isinstance(message, Done | Failed | Refused)
        return message


@dataclass(slots=True, eq=False)
class _Actor(Worker[Item]):
    """An actor, the message that is awaited from it, and how it died."""

    handle: Any
    pending: Any
    how: str = "ended"

    def send(self, items: list[Item]) -> None:
        self.pending = self.handle.work.remote(items)

    def kill(self) -> None:
        import ray

        ray.kill(self.handle)

    def join(self) -> str:
        self.kill()
        return self.how


class _WithoutRay(io.TextIOBase):
    """Standard output without what a thread of Ray prints there when an actor or a node dies, which is logged."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        if threading.current_thread().name.startswith("ray_"):
            _log.debug("%s", text.strip())
            return len(text)
        return self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()


@dataclass(frozen=True, slots=True)
class _Started:
    """Message of an actor that has opened the student."""

    node: str
    version: str


class _Scorer:
    """What runs in an actor."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._work: Work[Any, Any] | None = None

    def start(
        self, start: Callable[[Path], AbstractContextManager[Work[Any, Any]]], folder: _FolderReference
    ) -> _Started | Failed | Refused:
        """Open the student."""
        flush_denormals()
        limit_memory()
        if folder.version != edgeelad.__version__:
            return _Started(platform.node(), edgeelad.__version__)
        try:
            self._work = self._stack.enter_context(start(folder.on_this_node()))
        except Exception as error:
            return message_about(error)
        return _Started(platform.node(), edgeelad.__version__)

    def work(self, items: list[Any]) -> Done | Failed | Refused:
        """Work on a block."""
        assert self._work is not None
        try:
            return Done(self._work(items), peak_memory_bytes())
        except Exception as error:  # an error of ours, or whatever an item caused, which is tried again elsewhere
            return message_about(error)


@dataclass(frozen=True, slots=True)
class _FolderReference:
    """A folder as actors get it: its path on the driver's node, and its files in the object store for other nodes."""

    version: str
    node: str
    path: Path
    digest: str
    files: tuple[tuple[str, tuple[Any, ...]], ...]

    def on_this_node(self) -> Path:
        """The folder's path on this node, where it is copied to if need be."""
        import ray

        if ray.get_runtime_context().get_node_id() == self.node:
            return self.path
        copies = Path(tempfile.gettempdir()) / f"edgeelad-{getattr(os, 'getuid', getpass.getuser)()}"
        copies.mkdir(mode=0o700, exist_ok=True)
        is_foreign = hasattr(os, "getuid") and copies.stat().st_uid != os.getuid()
        if copies.is_symlink() or is_foreign:
            raise RunError(f"{copies}: belongs to another user; remove it, or set TMPDIR on this node")
        folder = copies / f"student-{self.digest[:32]}"
        with _held(copies / f"{folder.name}.lock"):
            if not folder.exists():
                make_folder(folder, self._copy)
        return folder

    def _copy(self, folder: Path) -> None:
        import ray

        for name, pieces in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with (folder / name).open("wb") as file:
                for piece in pieces:
                    file.write(ray.get(piece))


class _SharedFolder:
    """A folder that is put into the object store once there is another node."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._digest = ""
        self._files: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def reference(self) -> _FolderReference:
        """The folder for actors on the nodes that there are now."""
        import ray

        here = ray.get_runtime_context().get_node_id()
        if not self._files and any(node["Alive"] and node["NodeID"] != here for node in ray.nodes()):
            self._put()
        return _FolderReference(edgeelad.__version__, here, self._folder, self._digest, self._files)

    def _put(self) -> None:
        import ray

        digest, files = hashlib.sha256(), []
        for path in sorted(path for path in self._folder.rglob("*") if path.is_file()):
            name, pieces = path.relative_to(self._folder).as_posix(), []
            digest.update(f"{name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    digest.update(piece)
                    pieces.append(ray.put(piece))
            files.append((name, tuple(pieces)))
        self._digest, self._files = digest.hexdigest(), tuple(files)


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a lock on a file, waiting for it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                lock_file(descriptor)
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _how_it_died(error: Exception) -> str:
    text = str(error)
    if "node" in text and re.search(r"node.{0,80}(?:died|dead|terminated|removed)", text, re.IGNORECASE | re.DOTALL):
        return "its node left the cluster"
    if "OutOfMemory" in type(error).__name__:
        return "out of memory"
    detail = re.search(r"Worker exit detail: ([^.]*)", text)
    return f"its Ray actor ended: {detail[1].strip()}" if detail else f"its Ray actor ended: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
