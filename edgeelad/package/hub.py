"""Upload packages to the Hugging Face Hub and download them, with huggingface_hub.

A repository is named `org/model`, or `org/model@revision` with a branch, a tag or a commit. A download takes the files
that the manifest lists and no others, from one commit, into huggingface_hub's cache; their checksums are compared once.
Tokens, endpoint and cache are huggingface_hub's: HF_TOKEN, HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeelad.engine.graph_files import ONNX_FOLDER
from edgeelad.errors import EdgeeladError, HubError, PackageError
from edgeelad.files import write_text
from edgeelad.package.manifest import CARD_FILE, MANIFEST_FILE, check_checksum, check_files, printable, read_manifest

CONNECT_S = 5.0
_NAME = re.compile(r"(?P<repository>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Upload:
    """An upload.

    Attributes:
        url: The repository's page.
        commit: The commit that was made.
        files: The uploaded files with their sizes in bytes.
    """

    url: str
    commit: str
    files: tuple[tuple[str, int], ...]


def find_package(name: str | Path) -> Path:
    """Return the folder of a student: a path as it is, or a repository of the Hub, downloaded unless cached.

    A name is a repository's if it has the form `org/model` and no folder `org` exists here.

    Raises:
        HubError: The repository cannot be downloaded.
        PackageError: It is no package, or a file is not what its manifest says.
    """
    path, found = Path(name), _NAME.fullmatch(Path(name).as_posix())
    if found is None or path.exists() or path.parent.is_dir():
        return path
    return _download(found["repository"], found["revision"])


def push_package(folder: Path, repository: str, *, is_public: bool = False) -> Upload:
    """Verify a package and upload it; a repository that does not exist is made.

    The folder `onnx` of the repository is replaced, and other files that the package does not have are left alone.

    Args:
        folder: The package.
        repository: Its name, `org/model`.
        is_public: Whether a new repository is public.

    Raises:
        HubError: The name is no repository's, or the Hub cannot be reached or refuses.
        PackageError: The package cannot be opened, or is not verified on this machine.
    """
    from edgeelad.package.verify import verify_package  # `find_package` needs none of it

    found = _NAME.fullmatch(repository)
    if found is None or found["revision"]:
        raise HubError(f"{repository!r} is not the name of a repository; name it as org/model")
    report = verify_package(folder)
    if not report.is_ok:
        raise PackageError(f"{folder}: not uploaded, because it is not verified here; see `edgeelad verify {folder}`")
    manifest = read_manifest(folder)
    names = sorted({MANIFEST_FILE, CARD_FILE, *manifest.paths})
    names = [name for name in names if (folder / name).is_file()]
    with _errors(repository):
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

        if not _is_reachable():
            raise HubError(f"{repository}: the Hub cannot be reached; connect, then run the command again")
        api = HfApi()
        url = api.create_repo(repository, private=not is_public, exist_ok=True)
        there = set(api.list_repo_files(repository))
        old = sorted(name for name in there - set(names) if name.startswith(f"{ONNX_FOLDER}/"))
        commit = api.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, folder / name) for name in names),
                *(CommitOperationDelete(name) for name in old),
            ],
            commit_message=f"Upload {printable(manifest.name)} with edgeelad",
        )
    return Upload(str(url), commit.oid, tuple((name, (folder / name).stat().st_size) for name in names))


def _download(repository: str, revision: str | None) -> Path:
    with _errors(repository):
        from huggingface_hub import hf_hub_download

        is_cached = not _is_reachable()
        folder = Path(hf_hub_download(repository, MANIFEST_FILE, revision=revision, local_files_only=is_cached)).parent
        manifest = read_manifest(folder)
        for name in sorted(manifest.paths):
            if not (folder / name).exists():
                hf_hub_download(repository, name, revision=folder.name, local_files_only=is_cached)
    # beside the snapshots, where no package can have a file
    checked = folder.parents[1] / "edgeelad-checked" / folder.name
    if not checked.exists():
        try:
            check_files(folder, manifest)
            for entry in manifest.files:
                if entry.path != CARD_FILE:
                    check_checksum(folder, entry)
        except PackageError as error:
            raise PackageError(f"{repository}: {error}; delete {folder.parents[1]} to download it again") from error
        write_text(checked, "")
    return folder


def _is_reachable() -> bool:
    """Whether something listens at the Hub's address, or a proxy is set: huggingface_hub tries for half a minute."""
    import socket  # these load TLS and mail, for which a package in a folder does not wait
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    url = urlsplit(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE or url.scheme in getproxies():
        return not constants.HF_HUB_OFFLINE
    try:
        socket.create_connection((url.hostname or "", url.port or 443), timeout=CONNECT_S).close()
    except OSError:
        return False
    return True


@contextmanager
def _errors(repository: str) -> Iterator[None]:
    """Turn huggingface_hub's errors into one line each."""
    from huggingface_hub import errors

    try:
        yield
    except EdgeeladError:
        raise
    except errors.LocalEntryNotFoundError as error:
        raise HubError(
            f"{repository}: no such folder, not in huggingface_hub's cache, and the Hub cannot be reached; connect, or "
            "name a folder"
        ) from error
    except errors.EntryNotFoundError as error:
        raise HubError(f"{repository}: no package: it lacks {MANIFEST_FILE}, or a file that this lists") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository}: no such revision; name a branch, a tag or a commit after @") from error
    except errors.RepositoryNotFoundError as error:
        raise HubError(
            f"{repository}: no such folder, and no such repository on the Hub, or no access to it; set HF_TOKEN if it "
            "is private"
        ) from error
    except Exception as error:  # of huggingface_hub, requests or httpx, by its version
        reason = printable(str(error)) or type(error).__name__
        raise HubError(f"{repository}: the Hub cannot be reached, or refuses: {reason[:300]}") from error
