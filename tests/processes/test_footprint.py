"""What the processes are made of: imports, threads, names."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import compilepool
from compilepool import CompilePool, in_toplevel_process
from tests.proc import PATIENCE_S, pool_process, pool_processes, wait_until

PACKAGE = Path(compilepool.__file__).parent


def imported_by(*arguments: str) -> set[str]:
    """The modules that a Python process imports, by `-X importtime`."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    lines = [line for line in run.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def test_importing_the_package_imports_nothing_heavy() -> None:
    modules = imported_by("-c", "import compilepool; compilepool.CompilePool(1)")
    assert "compilepool.client.session.session" in modules  # it is the lazy import that is measured
    heavy = {"rich", "typer", "psutil", "torch", "triton", "cloudpickle", "numpy"}
    assert not {module.partition(".")[0] for module in modules} & heavy


def test_the_supervisor_imports_the_standard_library_and_wire_only() -> None:
    code = f"import sys; sys.path.append({str(PACKAGE.parent)!r});"
    modules = imported_by("-I", "-S", "-c", code + "import compilepool.supervisor.supervisor")
    own = {module for module in modules if module.startswith("compilepool")}
    assert "compilepool.supervisor.supervisor" in own
    folders = ("supervisor", "wire", "linux", "light_typing")
    allowed = tuple(f"compilepool.{name}" for name in folders)
    assert not [module for module in own - {"compilepool"} if not module.startswith(allowed)]
    # `org`: what pickle tries to import for the sake of Jython.
    others = {module.partition(".")[0] for module in modules} - {"compilepool", "org"}
    assert others <= set(sys.stdlib_module_names)


NEW_POOL = (
    "from compilepool import CompilePool; pool = CompilePool(1)",
    # After a silence the client imports what failures need. Machines may be so slow.
    "from compilepool.client.session import receiving; receiving._IDLE_MS = None",
)


def modules_after(*command: str) -> set[str]:
    """The modules that a Python process has when it has run `command`, which is code."""
    code = "; ".join([*command, "import os, sys; print(*sys.modules, flush=True); os._exit(0)"])
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).split())


def test_what_takes_long_to_import_is_not_there_before_the_first_result() -> None:
    slow = {"typing", "dataclasses", "inspect", "socket", "multiprocessing", "tempfile"}
    client = modules_after(*NEW_POOL, "assert pool.submit(abs, -1).result() == 1")
    assert "compilepool.client.session.receiving" in client
    assert not client & {*slow, "ctypes"}
    assert not modules_after("import compilepool.forkserver.server") & slow
    assert not modules_after("import compilepool.supervisor.supervisor") & slow


def test_the_supervisor_imports_next_to_nothing_before_it_starts_the_fork_server() -> None:
    code = f"import sys; sys.path.append({str(PACKAGE.parent)!r});"
    modules = imported_by("-I", "-S", "-c", code + "import compilepool.supervisor.start")
    assert "compilepool.supervisor.fork_server_start" in modules
    assert not modules & {"collections", "contextlib", "ctypes", "enum", "re", "signal", "socket"}


def test_the_processes_can_be_told_apart_and_the_supervisor_has_one_thread() -> None:
    with CompilePool(2) as pool:
        worker = pool.submit(os.getpid).result(PATIENCE_S)
        assert worker in pool_processes("worker")
        names = {}
        for kind in ("supervisor", "fork server", "worker"):
            pid = pool_process(kind)
            names[kind] = Path(f"/proc/{pid}/comm").read_text().strip()
            assert len(os.listdir(f"/proc/{pid}/task")) == 1
        assert names == {
            "supervisor": "cp-supervisor",
            "fork server": "cp-forkserver",
            "worker": "cp-worker",
        }


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_lead_a_session_and_have_only_descriptors_of_their_own(start_method: str) -> None:
    outputs = [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)]

    def look() -> tuple[bool, bool, list[str]]:
        targets = []
        for fd in os.listdir("/proc/self/fd"):
            link = f"/proc/self/fd/{fd}"
            if os.path.islink(link) and int(fd) > 2 and os.readlink(link) not in outputs:
                targets.append(os.readlink(link).partition(":")[0])
        is_leader = os.getsid(0) == os.getpid() == os.getpgid(0)
        return in_toplevel_process(), is_leader, sorted(targets)

    with CompilePool(2, start_method=start_method) as pool:  # type: ignore[arg-type] # parametrized
        pool.warm_up()
        assert wait_until(lambda: len(pool_processes("worker")) == 2)
        is_toplevel, is_leader, targets = pool.submit(look).result(PATIENCE_S)
    assert not is_toplevel
    assert is_leader
    # Its socket and its crash socket, its status, two pipes for output, its parent's pidfd. (And
    # where output goes when there are no more jobs; and the listing itself, which is gone by now.)
    own = [target for target in targets if not target.startswith("/proc")]
    assert own == ["/memfd", "anon_inode", "pipe", "pipe", "socket", "socket"]
    assert in_toplevel_process()


def test_jobs_cannot_eat_what_is_typed_at_the_terminal() -> None:
    with CompilePool(1) as pool:
        assert pool.submit(os.read, 0, 10).result(PATIENCE_S) == b""


def test_the_programs_own_inheritable_descriptors_do_not_reach_the_pool() -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    with CompilePool(1) as pool:
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        os.close(write)
        # The end of file comes only when nobody else has a copy.
        assert os.read(read, 1) == b""
    os.close(read)
