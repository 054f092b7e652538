"""Finds the files that this process has loaded modules from, so that nobody runs outdated code.

A shared pool may outlive the program that has started it. The next program expects its jobs to run
with the files as they are by then.
"""

from __future__ import annotations

import contextlib
import os
import sys

from compilepool.wire.channel import Channel, close_all
from compilepool.wire.loaded_files import LoadedFile, loaded_message

_known: set[str] = set()
"""The names of the modules that were told of. A forked worker inherits the fork server's."""


def tell_loaded_files(channel: Channel) -> None:
    """Tell the supervisor of the modules that this process has loaded since the last call."""
    if len(sys.modules) == len(_known):
        return
    files = []
    for name in sys.modules.keys() - _known:
        _known.add(name)
        # Not by `getattr`: some modules load others when they are asked for any attribute.
        path = getattr(sys.modules.get(name), "__dict__", {}).get("__file__")
        if isinstance(path, str):
            with contextlib.suppress(OSError, ValueError):
                files.append(LoadedFile.at(os.path.abspath(path)))
    _known.intersection_update(sys.modules)
    if not files:
        return
    with contextlib.suppress(OSError):  # no descriptor, or no memory, for a long list
        message = loaded_message(files)
        try:
            channel.send(message)
        finally:
            close_all(message.fds)
