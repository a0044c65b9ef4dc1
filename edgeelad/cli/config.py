"""`edgeelad config`: print a configuration with every key."""

from __future__ import annotations

from pathlib import Path

import click

from edgeelad.cli.shared import PATH, SET
from edgeelad.cli.terminal import write


@click.command()
@click.argument("file", required=False, type=PATH)
@SET
def config(file: Path | None, overrides: tuple[str, ...]) -> None:
    """Print the configuration as TOML: every key with its meaning, range and default.

    Without FILE these are the defaults: `edgeelad config > run.toml` is a start for a run of your own. Keys that are
    not set are comments.
    """
    from edgeelad.config import load_config, make_config
    from edgeelad.config_toml import dump_toml

    resolved = load_config(file, overrides) if file is not None else make_config({}, overrides, "command line")
    write(dump_toml(resolved), newline=False)
