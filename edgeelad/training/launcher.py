"""What `torchrun` and `accelerate launch` leave in the environment of the processes that they start.

Light: imports nothing.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

_LEFT = re.compile(r"(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_\w+")


@dataclass(frozen=True, slots=True)
class Launched:
    """This process among those that a launcher started together."""

    rank: int
    num_processes: int
    num_here: int  # on this machine


def launched() -> Launched | None:
    """This process's place among several that a launcher started; None if it was started alone."""
    num_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes == 1:
        return None
    num_here = int(os.environ.get("LOCAL_WORLD_SIZE", num_processes))
    return Launched(int(os.environ.get("RANK", "0")), num_processes, num_here)


def environment_alone() -> dict[str, str]:
    """The environment as it would be without a launcher."""
    return {name: value for name, value in os.environ.items() if not _LEFT.fullmatch(name)}


def continue_alone() -> None:
    """Forget the launcher: nothing in this process waits for the others from now on."""
    for name in os.environ.keys() - environment_alone().keys():
        del os.environ[name]
