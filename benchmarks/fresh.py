"""Another interpreter, for what can be done only once in each."""

from __future__ import annotations

import subprocess
import sys
import time


def fresh_python(code: str, *args: str, timeout_s: float = 60.0) -> tuple[float, str]:
    """Run code in a new interpreter.

    Returns:
        time.monotonic() as it was before, and the last line that it printed.
    """
    command = [sys.executable, "-W", "ignore", "-c", code, *args]
    began = time.monotonic()
    process = subprocess.run(
        command, stdout=subprocess.PIPE, timeout=timeout_s, check=True, text=True
    )
    return began, process.stdout.splitlines()[-1]
