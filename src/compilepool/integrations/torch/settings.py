"""The environment variables that switch the integration on, and set it up."""

from __future__ import annotations

import json
import os
from typing import Any

ENABLE = "COMPILEPOOL_TORCH"
"""The variable that switches the integration on, by 1."""

PROGRAM_PID = "COMPILEPOOL_TORCH_PID"
"""The variable with the process that `compilepool run` has become; all others descend from it."""

OPTIONS = "COMPILEPOOL_TORCH_OPTIONS"
"""The variable with the arguments of `install`, as JSON."""

SHARED = "COMPILEPOOL_SHARED"
"""The variable of `CompilePool` that makes all pools shared, or none, by 1 or 0."""

FILES = "COMPILEPOOL_TORCH_FILES"
"""The variable of a shared pool's processes that tells pools of other installed files apart."""


def is_shared(wanted: bool | None, *, by_launcher: bool = False) -> bool:
    """Whether a pool is to be shared with the other ranks of this node.

    Args:
        wanted: what the program says; None: nothing.
        by_launcher: whether to share also if only the launcher's `LOCAL_WORLD_SIZE` speaks for it:
            it tells how many ranks of this program the node has
            (https://docs.pytorch.org/docs/stable/elastic/run.html).
    """
    if wanted is not None:
        return wanted
    variable = os.environ.get(SHARED, "")
    if variable in ("0", "1"):
        return variable == "1"
    ranks = os.environ.get("LOCAL_WORLD_SIZE", "")
    return by_launcher and ranks.isdecimal() and int(ranks) > 1


def options_of_environment() -> dict[str, Any]:
    """The arguments of `install` that the environment has.

    A trace of a process other than the program itself gets the process's PID in its name.

    Raises:
        ValueError: the variable is not a JSON object.
    """
    text = os.environ.get(OPTIONS, "") or "{}"
    try:
        options = json.loads(text)
    except ValueError:
        options = None
    if not isinstance(options, dict):
        raise ValueError(f"{OPTIONS} must be a JSON object, not {text!r}")
    if options.get("trace") and os.environ.get(PROGRAM_PID, pid := str(os.getpid())) != pid:
        options["trace"] = f"{options['trace']}.{pid}"
    return options
