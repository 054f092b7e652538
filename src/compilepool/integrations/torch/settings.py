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
