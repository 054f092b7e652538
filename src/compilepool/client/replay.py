"""Runs a job that has crashed its worker once more: in a fresh worker, or under gdb.

This process becomes like the one that submitted the job, so it should have no other use.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from compilepool.client.connection.setup import PoolSetup
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.client.crashes.versions import implementation
from compilepool.client.future import CompileFuture
from compilepool.client.options import PoolOptions
from compilepool.client.session.session import Session
from compilepool.linux.spawn import process_command
from compilepool.wire.payloads import Payload, pack
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.serializers import dump
from compilepool.wire.submission import JobTerms


class _Unread:
    """A serializer that leaves results pickled: unpickling one could crash this process, too."""

    def dumps(self, obj: object, /) -> bytes:
        """Not used: the job is pickled already, and the worker has the job's own serializer."""
        raise NotImplementedError("a replayed job is pickled already")

    def loads(self, data: bytes, /) -> Any:
        """The result, still pickled."""
        return data


def replay(crash: KeptCrash, tell: Callable[[str], object]) -> CompileFuture[Any]:
    """Run the job of a crash folder once more, in a pool of its own that has one worker.

    Changes this process's environment, `sys.path`, `sys.argv` and working directory to the job's.

    Args:
        crash: the folder; it may be closed when this has returned.
        tell: called with a line for the user about what cannot be as it was.

    Returns:
        The future of the job's result, which is not unpickled. The pool ends with the job.

    Raises:
        ValueError: something is missing or damaged, or needs another Python.
        CompilePoolError: the pool could not be started.
    """
    _check_python(crash)
    config, env = crash.config(), crash.env()
    with contextlib.ExitStack() as unused:
        payload = crash.call()
        unused.callback(payload.close)
        startup = crash.startup() or pack(dump((None, None, ())), inline_limit=-1)
        unused.callback(startup.close)
        config = _at_its_place(config, tell)
        os.environ.clear()
        os.environ.update(env)
        sys.path[:] = config.sys_path
        sys.argv[:] = config.argv
        options = PoolOptions(
            max_workers=1,
            preload=config.preload,
            initializer=None,  # it is in `startup`
            initargs=(),
            start_method=config.start_method,
            serializer=_Unread(),
            capture=False,  # its output goes to whoever has started this process
            keep_crashes=False,
            nice=config.nice,
            seed=config.seed,
        )
        options.check()
        setup = PoolSetup(options)
        setup.env = dict(os.environ)  # with nothing of this pool's own
        setup.python_flags = config.python_flags
        session = Session(options, setup=setup, startup=startup)
        unused.pop_all()
    try:
        return session.submit_packed(crash.job, payload, JobTerms(seed=crash.seed))
    finally:
        session.shutdown(wait=False)


def debug(crash: KeptCrash, tell: Callable[[str], object]) -> NoReturn:
    """Become gdb, which runs the job of a crash folder once more and stops where it crashes.

    Args:
        crash: the folder.
        tell: called with a line for the user about what cannot be as it was.

    Raises:
        ValueError: something is missing or damaged, or needs another Python.
        OSError: gdb is not installed, or cannot be run.
    """
    gdb = shutil.which("gdb")  # in this process's PATH, not in the job's
    if gdb is None:
        raise FileNotFoundError("gdb is not installed")
    _check_python(crash)
    config, env = _at_its_place(crash.config(), tell), crash.env()
    payloads: list[Payload | None] = []
    try:
        payloads += [config.payload(inline_limit=-1), crash.call()]
        payloads.append(crash.startup())
        fds = [payload.fd for payload in payloads if payload is not None]
        for fd in fds:
            os.set_inheritable(fd, True)  # gdb hands on what it has inherited
        command = process_command([*config.python_flags, "-P"], "compilepool.worker.alone")
        seed = "-" if crash.seed is None else str(crash.seed)
        arguments = [*command, seed, *map(str, fds)]
        os.execve(gdb, [gdb, "-q", "-ex", "run", "--args", *arguments], env)
    finally:
        for payload in payloads:
            if payload is not None:
                payload.close()


def _check_python(crash: KeptCrash) -> None:
    try:
        needed, executable = (
            crash.report["versions"][key] for key in ("implementation", "executable")
        )
    except (KeyError, TypeError):
        raise ValueError(
            f"{crash.folder} cannot be replayed: it does not say which Python it needs"
        ) from None
    if needed != implementation():
        raise ValueError(
            f"{crash.folder} cannot be replayed by {implementation()}: it needs {needed}, and was"
            f" kept by {executable}; run that one's compilepool"
        )


def _at_its_place(config: PoolConfig, tell: Callable[[str], object]) -> PoolConfig:
    """Go to the working directory that a job had, so that nothing runs from the user's.

    Returns:
        The configuration to run the job with. If that folder is gone, the working directory is the
        root folder, where nobody can lay a trap, and nothing is imported by a relative path.
    """
    try:
        os.chdir(config.cwd)
        return config
    except OSError as error:
        was = f"{config.cwd} ({error.strerror})" if config.cwd else "one that was deleted"
        tell(f"differs now: working directory /, was {was}")
        os.chdir("/")
        absolute = [path for path in config.sys_path if os.path.isabs(path)]
        return config._replace(cwd="/", sys_path=absolute)
