"""Imports the preload modules: in the fork server, or in each worker that is exec'ed."""

from __future__ import annotations

import importlib
import time
import traceback

from compilepool.wire.channel import Channel
from compilepool.wire.messages import Kind, Level, json_message, log_message, text_message


def preload(module: str, channel: Channel) -> bool:
    """Import a module, telling the supervisor beforehand, in case it crashes us.

    Returns:
        False if it could not be imported. The supervisor knows; this process should exit.
    """
    channel.send(text_message(Kind.IMPORTING, module))
    start = time.monotonic()
    try:
        importlib.import_module(module)
    except BaseException:  # noqa: BLE001 - a module may raise SystemExit, too
        body = {"module": module, "text": traceback.format_exc()}
        channel.send(json_message(Kind.PRELOAD_FAILED, body))
        return False
    seconds = time.monotonic() - start
    channel.send(log_message(Level.DEBUG, __name__, f"imported {module} in {seconds:.3g} s"))
    return True
