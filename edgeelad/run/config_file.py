"""config.toml of a run folder: recorded before anything is made, and changed only by settings that a run may change."""

from __future__ import annotations

from urllib.parse import urlsplit

from edgeelad.config import RESUMABLE, RunConfig, load_config
from edgeelad.config_toml import dump_toml
from edgeelad.errors import ConfigError
from edgeelad.files import PRIVATE, write_text
from edgeelad.hosts import is_loopback
from edgeelad.run.folder import RunFolder

# a run folder may be moved, and a teacher on this machine may listen on another port
PLACES = {"run": {"out"}, "teacher": {"url"}}


def read_config(folder: RunFolder, changes: tuple[str, ...] = ()) -> RunConfig:
    """Read a run's configuration, with `section.key=value` changes applied.

    Raises:
        RunError: The file was changed since the run wrote it.
        ConfigError: It cannot be read.
    """
    folder.digests.check(
        folder.config, "restore it (what a run may change is changed with --resume --set SECTION.KEY=VALUE)"
    )
    return load_config(folder.config, changes)


def write_config(folder: RunFolder, config: RunConfig, header: str) -> None:
    """Record a run's configuration; the caller holds the folder's lock.

    Raises:
        StorageError: It cannot be written.
    """
    with folder.digests.recording(folder.config):
        write_text(folder.config, dump_toml(config, header=header), PRIVATE)


def check_changes(recorded: RunConfig, config: RunConfig) -> None:
    """Check that a configuration changes only what a run may change.

    Raises:
        ConfigError: It changes something else; names the key and both values.
    """
    before, now = recorded.model_dump(), config.model_dump()
    for section, keys in now.items():
        allowed = RESUMABLE.get(section, set()) | PLACES.get(section, set())
        for key, value in keys.items():
            was = before[section][key]
            is_moved = key != "url" or (_is_local(was) and _is_local(value))
            if value != was and not (key in allowed and is_moved):
                raise ConfigError(
                    f"{section}.{key} was {was!r} when this run began and is {value!r} now; it cannot "
                    "be changed: start a new run with another --out"
                )


def _is_local(url: str | None) -> bool:
    return is_loopback(urlsplit(url or "").hostname or "")
