"""Whether a pool is to share its processes, and the name of this program among those that do.

Imports little: every pool asks.
"""

from __future__ import annotations

import math
import os
import sys

from compilepool.client.options import PoolOptions
from compilepool.observe.quiet_logger import QuietLogger

SHARED = "COMPILEPOOL_SHARED"
"""The variable that decides for pools that leave `shared` open: "1" or "0"."""

LINGER = "COMPILEPOOL_LINGER"
"""The variable that decides for pools that leave `linger` open, in seconds."""

NAME_LENGTH = 20
"""How many of an identity's hexadecimal digits name its files."""

_log = QuietLogger(__name__)


class CannotMeet(Exception):
    """There is no supervisor to share, and none could be started. The text says why."""


def wants_to_share(options: PoolOptions) -> bool:
    """Whether a pool with these options shares its processes, unless that turns out impossible."""
    if options.shared is not None:
        return options.shared
    value = os.environ.get(SHARED, "")
    if value not in ("", "0", "1"):
        _log.warning("%s is %r, but it must be 0 or 1; the pool is private", SHARED, value)
    return value == "1" and options.capture


def linger_of(options: PoolOptions) -> float:
    """The seconds for which a pool's processes wait for another client after the last one."""
    if options.linger is not None:
        return options.linger
    value = os.environ.get(LINGER, "")
    try:
        seconds = float(value or 0)
    except ValueError:
        seconds = math.nan
    if 0 <= seconds < math.inf:
        return seconds
    _log.warning("%s is %r, but it must be a number of seconds; it counts as 0", LINGER, value)
    return 0.0


def own_name() -> str:
    """This program for people: the name of its script, and which rank it is."""
    script = os.path.basename((getattr(sys, "argv", None) or [""])[0]) or "python"
    rank = os.environ.get("RANK")
    return script if rank is None else f"{script} (rank {rank})"
