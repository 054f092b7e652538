"""The environment variables that switch the integration on, and set it up."""

from __future__ import annotations

ENABLE = "COMPILEPOOL_TORCH"
"""The variable that switches the integration on, by 1."""

PROGRAM_PID = "COMPILEPOOL_TORCH_PID"
"""The variable with the process that `compilepool run` has become; all others descend from it."""

OPTIONS = "COMPILEPOOL_TORCH_OPTIONS"
"""The variable with the arguments of `install`, as JSON."""
