"""What `multiprocessing` says of a worker: its name, its parent, and its client's key.

`ProcessPoolExecutor` hands the key to its workers, too. With it, a job can use a `Manager`'s
proxies. `multiprocessing` is not imported for this: it is told when somebody else has imported it.
The names with an underscore are those that CPython's own `BaseProcess._bootstrap`
(Lib/multiprocessing/process.py) sets in a process that it starts.
"""

from __future__ import annotations

import itertools
import os
import sys

from compilepool.any_process.when_imported import WhenImported
from compilepool.light_typing import Any
from compilepool.wire.pool_config import PoolConfig

_PACKAGE = "multiprocessing"


class _Identity:
    """What is told.

    Attributes:
        config: the client's configuration; None before it is known.
        authkey: the client's key, in hexadecimal digits; empty if it is unknown.
        worker: the number of this worker; 0 in a process that is none.
        parent: the pidfd of the client; -1 before `multiprocessing` asks for it.
    """

    def __init__(self) -> None:
        self.config: PoolConfig | None = None
        self.authkey = ""
        self.worker = 0
        self.parent = -1


_identity = _Identity()


def know_client(config: PoolConfig) -> None:
    """Note who the client is, and tell `multiprocessing` as soon as it is there."""
    _identity.config, _identity.authkey = config, config.authkey
    if _is_loaded():
        _tell()
    else:
        WhenImported(_PACKAGE, lambda _module: _tell())


def become_worker(number: int) -> None:
    """Note that this process is a worker from now on, perhaps forked from one that was none."""
    _identity.worker = number
    if _is_loaded():
        _forget_parents_state()
        _tell()


def use_authkey(authkey: str) -> None:
    """Use a key that the client has got only now, or has changed.

    Args:
        authkey: the key, in hexadecimal digits.
    """
    if authkey != _identity.authkey:
        _identity.authkey = authkey
        if _is_loaded():
            process: Any = sys.modules["multiprocessing.process"]
            process.current_process().authkey = bytes.fromhex(authkey)


def _is_loaded() -> bool:
    package = sys.modules.get(_PACKAGE)
    return package is not None and not getattr(package.__spec__, "_initializing", False)


def _tell() -> None:
    config = _identity.config
    if config is None:
        return
    from compilepool.worker.main_by_value import send_main_by_value

    send_main_by_value()
    process: Any = sys.modules["multiprocessing.process"]
    current = process.current_process()
    if _identity.authkey:
        current.authkey = bytes.fromhex(_identity.authkey)
    if config.mp_start_method:
        context: Any = sys.modules["multiprocessing.context"]
        context._force_start_method(config.mp_start_method)
    if _identity.worker:
        current._identity = (_identity.worker,)
        current.name = f"CompilePoolWorker-{_identity.worker}"
    if config.client_pid and process._parent_process is None:
        try:
            _identity.parent = os.pidfd_open(config.client_pid)
        except OSError:
            return  # the client is gone, and this process is about to be killed
        process._parent_process = process._ParentProcess(
            config.client_name, config.client_pid, _identity.parent
        )


def _forget_parents_state() -> None:
    process: Any = sys.modules["multiprocessing.process"]
    process._process_counter = itertools.count(1)
    process._children = set()
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
