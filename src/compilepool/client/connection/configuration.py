"""Makes the configuration that a pool's supervisor gets, from the options and this process."""

from __future__ import annotations

import glob
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable

from compilepool.client.connection.own_process import own_authkey, own_name, own_start_method
from compilepool.client.options import PoolOptions
from compilepool.text import bytes_of
from compilepool.wire.pool_config import PoolConfig


def config_of(options: PoolOptions, max_workers: int, python_flags: list[str]) -> PoolConfig:
    """The configuration of a pool that starts now.

    Args:
        options: the pool's.
        max_workers: how many workers it may have.
        python_flags: this interpreter's.
    """
    try:
        cwd = os.getcwd()
    except OSError:
        cwd = ""
    return PoolConfig(
        max_workers=max_workers,
        start_method=options.start_method,
        preload=list(options.preload),
        python_flags=python_flags,
        sys_path=_absolute(
            (os.fsdecode(path) for path in sys.path if isinstance(path, str | os.PathLike)), cwd
        ),
        argv=[str(argument) for argument in getattr(sys, "argv", None) or [""]],
        cwd=cwd,
        capture=options.capture,
        log_dir=os.path.abspath(options.log_dir) if options.log_dir is not None else "",
        native_tracebacks=options.native_tracebacks,
        libdw=find_libdw(),
        nice=options.nice,
        cpus=_cpus(options),
        pin_workers=options.pin_workers,
        min_workers=min(options.min_workers, max_workers),
        idle_timeout_s=options.idle_timeout,
        max_jobs_per_worker=options.max_jobs_per_worker,
        max_worker_memory=_bytes_or_none(options.max_worker_memory),
        log_level=own_log_level(),
        main_file=_main_file(),
        seed=options.seed,
        client_pid=os.getpid(),
        client_name=own_name(),
        authkey=own_authkey(),
        mp_start_method=own_start_method(),
    )


def for_all_clients(config: PoolConfig) -> PoolConfig:
    """A configuration without what belongs to one client.

    Each job brings its client's seed and key of `multiprocessing`. Ranks are told their number by
    an argument, so workers see the name of the script, and no arguments.
    """
    return config._replace(
        argv=config.argv[:1],
        log_level=logging.DEBUG,
        seed=None,
        client_pid=0,
        client_name="MainProcess",
        authkey="",
        is_shared=True,
    )


def _main_file() -> str:
    """The absolute path of the program's script; empty if the program is no script."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if not isinstance(file, str) or file.startswith("<"):  # "<stdin>"
        return ""
    return os.path.abspath(file)


def find_libdw() -> str:
    """The libdw that unwinds native stacks: the copy in the pystack package, else the system's.

    It finds pystack without importing it. The wheels of pystack keep their libraries in a folder
    beside the package.

    Returns:
        A path, or a name for the dynamic linker. Nothing is loaded here.
    """
    try:
        spec = importlib.util.find_spec("pystack")
    except (ImportError, ValueError):  # a module of that name is only partly loaded
        spec = None
    for folder in (spec and spec.submodule_search_locations) or ():
        beside = os.path.join(os.path.dirname(folder), "pystack.libs", "libdw-*.so*")
        for path in sorted(glob.glob(beside)):
            return path
    return "libdw.so.1"


def own_log_level() -> int:
    """The lowest level that any logger of ours handles now."""
    # `list` copies at once; other threads may make loggers meanwhile.
    all_names = list(logging.root.manager.loggerDict)
    names = [name for name in all_names if name.startswith("compilepool.")]
    return min(logging.getLogger(name).getEffectiveLevel() for name in ["compilepool", *names])


def _bytes_or_none(size: int | str | None) -> int | None:
    return None if size is None else bytes_of(size)


def _cpus(options: PoolOptions) -> tuple[int, ...]:
    if options.cpus is not None:
        return tuple(sorted(set(options.cpus)))
    return tuple(sorted(os.sched_getaffinity(0))) if options.pin_workers else ()


def _absolute(paths: Iterable[str], cwd: str) -> list[str]:
    """The entries of `sys.path`, such that they mean the same in any working directory.

    A replay may have another one. The entry "" stands for the working directory. An entry that
    names no file is left as it is: it may be meant for a hook in `sys.path_hooks`, as the entries
    of editable installs are.
    """

    def absolute(path: str) -> str:
        place = os.path.join(cwd, path) if path else cwd
        return place if os.path.exists(place) else path

    return [place for path in paths if (place := absolute(path))]
