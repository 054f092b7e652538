"""Whether this process may be forked after what it has imported."""

from __future__ import annotations

import re
from collections.abc import Iterable

_GPU_DEVICE = re.compile(
    r"/dev/(nvidia\d+|nvidiactl|nvidia-uvm|kfd|dri/renderD\d+|dri/card\d+|accel\S*|davinci\d+)$"
)


def why_unsafe(threads: Iterable[str], files: Iterable[str]) -> str:
    """Why forking is unsafe; empty if it is not.

    A fork copies one thread only, and whatever locks the others held; a GPU driver's state does
    not survive in the child at all.

    Args:
        threads: names of the threads besides the main one.
        files: targets of the open descriptors.
    """
    reasons = []
    if names := sorted(threads):
        one = len(names) == 1
        reasons.append(
            f"runs {len(names)} more thread{'' if one else 's'} ({', '.join(sorted(set(names)))})"
        )
    if devices := sorted({path for path in files if _GPU_DEVICE.match(path)}):
        reasons.append(f"has opened a GPU ({', '.join(devices)})")
    return " and ".join(reasons)
