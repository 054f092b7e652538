"""The checks of `compilepool doctor`. Each really tries what it reports on.

A check that a sandbox may answer by killing the process runs in a process of its own; see
`compilepool.cli.doctor.probes`.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from compilepool.cli.doctor.probes import Answer, State, probe, probe_sibling, run_command
from compilepool.linux import proc
from compilepool.linux.cgroups import cgroup_directories, oom_kills, read_file
from compilepool.linux.cpus import usable_cpus
from compilepool.text import printable

_TOOL_PATIENCE_S = 0.7
"""The time that a tool has to print its version, in seconds."""
_THREADS = 4
_FILES_FOR_THREADS = 64
"""The limit of open files from which the checks run in several threads."""

_FILES_OF_ONE_WORKER = 32
"""Open files that a pool of one worker needs: 24, and some for the program itself."""

_WANTED = 64
_WANTED_PER_WORKER = 16
"""Open files and processes that a pool should be allowed: several times what most pools use."""


class Finding(NamedTuple):
    """The result of a check.

    Attributes:
        what: the thing that was tried.
        state: "ok": it works; "limited": it works in part; "missing": it does not work.
        detail: the version, place or value; or the reason why it does not work.
        is_needed: whether no pool can run without it.
    """

    what: str
    state: State
    detail: str
    is_needed: bool


def examine() -> list[Finding]:
    """Run all checks. Imports no compiler, and leaves nothing behind."""
    if sys.platform != "linux":
        return [Finding("platform", "missing", f"needs Linux, this is {sys.platform}", True)]
    import resource
    from concurrent.futures import ThreadPoolExecutor

    # A low limit of open files that is enough for a pool must fail no check but its own.
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ThreadPoolExecutor(_THREADS if soft >= _FILES_FOR_THREADS else 1) as threads:
        return list(threads.map(_Check.run, _CHECKS))


def _ptrace() -> Answer:
    state, detail = probe_sibling("ptrace")
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    yama = f"ptrace_scope {scope.read_text().strip()} of Yama" if scope.exists() else "no Yama"
    # proc(5), `Seccomp` of status: 0 disabled, 1 strict, 2 filter; absent without seccomp.
    seccomp = "a seccomp filter" if proc.status_field("Seccomp") == "2" else "no seccomp filter"
    return state, f"{detail}; {yama}, {seccomp}"


def _architecture() -> Answer:
    machine = os.uname().machine
    is_read = machine == "x86_64" and sys.maxsize >= 1 << 32
    return (
        "ok" if is_read else "missing",
        f"{machine}, Python of {sys.maxsize.bit_length() + 1} bits",
    )


def _libdw() -> Answer:
    from compilepool.client.connection.configuration import find_libdw

    return _library(find_libdw(), "dwfl_getthread_frames")


def _library(path: str, function: str) -> Answer:
    try:
        getattr(ctypes.CDLL(path), function)
    except (OSError, AttributeError) as error:
        return "missing", str(error)
    return "ok", path


def _memory_group() -> Answer:
    for controller, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        for directory in cgroup_directories(controller):
            group = Path(directory, f"compilepool-doctor-{os.getpid()}")
            try:
                group.mkdir()
            except OSError as error:
                return "missing", f"none can be made in {directory}: {error.strerror}"
            try:
                has_limit = (group / limit).exists()
            finally:
                group.rmdir()
            version = f"version {1 if controller else 2}, in {directory}"
            if has_limit:
                return "ok", version
            return "limited", f"{version}, but no memory controller for the groups in there"
    return "missing", "no cgroups found"


def _oom_counter() -> Answer:
    tried: list[str] = []

    def read(path: str) -> str:
        tried.append(path)
        return read_file(path)

    count = oom_kills(read)
    if count is None:
        return "missing", "reported neither by a cgroup nor by /proc/vmstat"
    if tried[-1] == "/proc/vmstat":
        return "limited", f"{count} so far, of the whole machine, in {tried[-1]}"
    return "ok", f"{count} so far, in {tried[-1]}"


def _core_files() -> Answer:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    when = "written with native_tracebacks=False only: else a crash is inspected, then killed"
    # core(5): the limit does not apply if core files are piped to a program.
    if pattern.startswith("|"):
        return "ok", f"go to {pattern[1:].split()[0]}; {when}"
    if soft != 0:
        return "ok", f"up to {_in_words(soft)} bytes, as {pattern}; {when}"
    return "limited", f"limit (RLIMIT_CORE) 0 bytes, may be raised to {_in_words(hard)}"


def _open_files() -> Answer:
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)  # the supervisor raises its soft limit
    if 0 <= hard < _FILES_OF_ONE_WORKER:
        return "missing", f"{hard}; a pool needs {_FILES_OF_ONE_WORKER} at least"
    return _compared(hard)


def _processes() -> Answer:
    import resource

    return _compared(resource.getrlimit(resource.RLIMIT_NPROC)[0])


def _compared(limit: int) -> Answer:
    import resource

    wanted = _WANTED + _WANTED_PER_WORKER * usable_cpus()
    if limit == resource.RLIM_INFINITY or limit >= wanted:
        return "ok", _in_words(limit)
    return "limited", f"{limit}; with {usable_cpus()} workers, a pool should have {wanted}"


def _in_words(limit: int) -> str:
    import resource

    return "unlimited" if limit == resource.RLIM_INFINITY else str(limit)


def _package(name: str) -> Answer:
    from importlib import metadata, util

    try:
        return "ok", metadata.version(name)
    except metadata.PackageNotFoundError:
        spec = util.find_spec(name)
        if spec is None:
            return "missing", "not installed"
        return "ok", f"of unknown version, {spec.origin}"


def _tool(*names: str) -> Answer:
    """Ask the first of the programs that is on PATH for its version."""
    for path in map(shutil.which, names):
        if path is not None:
            return _ask_version(path)
    return "missing", f"no {' or '.join(names)} on PATH"


def _ask_version(path: str) -> Answer:
    exitcode, output = run_command([path, "--version"], _TOOL_PATIENCE_S)
    if exitcode is None:
        return "ok", f"{path}, tells no version within {_TOOL_PATIENCE_S:g} s"
    if exitcode != 0:
        return "limited", f"{path} --version: exit code {exitcode}"
    lines = output.splitlines() or ["tells no version"]
    # CUDA's tools print name and copyright first.
    version = next((line for line in lines if ", release " in line), lines[0])
    return "ok", f"{path}, {version}"


def _ptxas() -> Answer:
    from importlib import util

    triton = util.find_spec("triton")
    folders = (triton.submodule_search_locations if triton else None) or []
    own = [Path(folder, "backends/nvidia/bin/ptxas") for folder in folders]
    # Triton uses the ptxas of its own package unless TRITON_PTXAS_PATH names another.
    found = [str(path) for path in own if path.exists()]
    return _ask_version(found[0]) if found else _tool("ptxas")


def _gpu() -> Answer:
    devices = sorted(str(path) for path in Path("/dev").glob("nvidia*"))
    return ("ok", ", ".join(devices)) if devices else ("missing", "no /dev/nvidia*")


class _Check(NamedTuple):
    what: str
    ask: Callable[[], Answer]
    is_needed: bool = False

    def run(self) -> Finding:
        try:
            state, detail = self.ask()
        except (OSError, ImportError) as error:  # ImportError: even a standard module may fail
            state, detail = "missing", str(error)
        return Finding(self.what, state, printable(detail), self.is_needed)


_CHECKS = (
    _Check("platform", lambda: probe("platform"), is_needed=True),
    _Check("memfds", lambda: probe("memfds"), is_needed=True),
    _Check("pidfds", lambda: probe("pidfds"), is_needed=True),
    _Check("ptrace", _ptrace),
    _Check("process memory", lambda: probe_sibling("memory")),
    _Check("architecture", _architecture),
    _Check("libdw", _libdw),
    _Check("libstdc++", lambda: _library("libstdc++.so.6", "__cxa_demangle")),
    _Check("gdb", lambda: _tool("gdb")),
    _Check("PID namespace", lambda: probe("pid namespace")),
    _Check("memory cgroup", _memory_group),
    _Check("OOM-kill counter", _oom_counter),
    _Check("core files", _core_files),
    _Check("open files", _open_files, is_needed=True),
    _Check("processes", _processes),
    _Check("CPUs", lambda: ("ok", f"{usable_cpus()} usable of {os.cpu_count()}")),
    _Check("torch", lambda: _package("torch")),
    _Check("triton", lambda: _package("triton")),
    _Check("numba", lambda: _package("numba")),
    _Check("C++ compiler", lambda: _tool("g++")),
    _Check("C compiler", lambda: _tool("gcc", "clang")),
    _Check("ptxas", _ptxas),
    _Check("nvcc", lambda: _tool("nvcc")),
    _Check("GPU", _gpu),
)
