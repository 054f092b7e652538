"""Descriptors, disks and namespaces of programs that share a pool; many programs at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, wait_until
from tests.processes.guests import guests, view
from tests.sharing import Program, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")

NOTHING = "pool.submit(jobs.sleep, 0).result()"


def test_a_program_without_descriptors_disturbs_nobody() -> None:
    with programs(2) as (poor, other):
        other.run(NOTHING)
        poor.run("held = []")
        poor.run(
            "import resource\n"
            "from compilepool import CompilePoolError\n"
            "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "for limit in range(len(os.listdir('/proc/self/fd')) - 1, 40):\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))\n"
            "    try:\n"
            "        with CompilePool(1, shared=True) as own:\n"
            f"            assert own.submit(abs, -1).result({PATIENCE_S}) == 1\n"
            "        held.append(limit)\n"
            "    except Exception as error:\n"
            "        assert isinstance(error, (CompilePoolError, OSError)), repr(error)\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
        )
        assert poor.run("len(held)") > 0
        assert poor.run(NOTHING) == 0
        assert other.run(NOTHING) == 0
        assert other.end() == ""


def test_a_supervisor_with_few_descriptors_serves_whom_it_can() -> None:
    """A program that it has none for gets a private pool. Nobody's job is lost."""
    options = "max_workers=1, shared=True"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))"
    with programs(1, options) as (first,):
        first.run(limit)
        first.run(NOTHING)
        others = [Program(options) for _ in range(30)]
        try:
            for other in others:
                other.run(limit)
                other.run("import compilepool.client.connection.meeting as m; m.PATIENCE_S = 0.5")
                other.start(NOTHING)
            for other in others:
                assert other.answer() == 0
            assert first.run(NOTHING) == 0
            texts = [other.end() for other in others]
        finally:
            for other in others:
                other.close()
        assert {text.count("the pool is not shared") for text in texts} <= {0, 1}
        assert first.run(NOTHING) == 0


def test_large_results_do_not_use_up_the_descriptors_of_a_supervisor() -> None:
    options = "max_workers=2, shared=True"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))"
    with programs(3, options) as ranks:
        for rank in ranks:
            rank.run(limit)
            rank.run(NOTHING)
        assert len(supervisors()) == 1
        for rank in ranks:
            rank.start(
                f"[len(each.result({PATIENCE_S})) for each in"
                " [pool.submit(jobs.large, 300_000) for _ in range(60)]]"
            )
        for rank in ranks:
            assert rank.answer() == [300_000] * 60
        for rank in ranks:
            assert rank.run(NOTHING) == 0


def test_kept_results_leave_descriptors_for_programs_that_come() -> None:
    options = "max_workers=2, shared=True, single_flight=True"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))"
    with programs(2, options) as (first, late):
        for program in (first, late):
            program.run(limit)
        for size in range(300_000, 300_120):
            assert first.run(f"len(pool.submit(jobs.large, {size}).result())") == size
        several = "[len(each.result()) for each in [pool.submit(jobs.large, n) for n in range({})]]"
        assert late.run("len(pool.submit(jobs.large, 300_119).result())") == 300_119
        assert late.run("pool.stats().reused") == 1
        assert first.run(several.format("200_000, 200_020")) == [*range(200_000, 200_020)]
        assert late.end() == ""


# The kernel takes no more descriptors in flight, of all the user's processes, than one of them may
# have open, unix(7). Privileged processes are exempt, so these give up what makes them so.
FEW_IN_FLIGHT = """
import ctypes, resource
PR_CAPBSET_READ, PR_CAPBSET_DROP, CAP_SYS_ADMIN, CAP_SYS_RESOURCE = 23, 24, 21, 24
prctl = ctypes.CDLL(None).prctl
for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE):
    prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
is_exempt = os.geteuid() == 0 and any(
    prctl(PR_CAPBSET_READ, capability, 0, 0, 0) for capability in (CAP_SYS_ADMIN, CAP_SYS_RESOURCE)
)
resource.setrlimit(resource.RLIMIT_NOFILE, (120, 120))
"""


def test_programs_that_are_stopped_leave_descriptors_in_flight_to_others(tmp_path: Path) -> None:
    """And they go on as if nothing had been: nobody is dropped."""
    go = tmp_path / "go"
    with programs(4) as ranks:
        for rank in ranks:
            rank.run(FEW_IN_FLIGHT)
            if rank.run("is_exempt"):
                pytest.skip("root may not give up its exemption from the limit here")
            rank.run(NOTHING)
        *stopped, other = ranks
        other.run(f"first = [pool.submit(jobs.wait_for, {str(go)!r}) for _ in range(2)]")
        for rank in stopped:
            rank.run(
                "sizes = range(100_000, 100_200)\n"
                "later = [pool.submit(jobs.large, size) for size in sizes]"
            )
            os.kill(rank.pid, signal.SIGSTOP)
        go.touch()
        results = f"[len(pool.submit(jobs.large, n).result({PATIENCE_S})) for n in {{}}]"
        assert other.run(results.format("range(300_000, 300_250)")) == [*range(300_000, 300_250)]
        members = [(rank.pid, 0) for rank in ranks]
        assert wait_until(lambda: members == [(each.pid, each.jobs) for each in view().clients])
        for rank in stopped:
            os.kill(rank.pid, signal.SIGCONT)
            assert rank.run(f"[f.result({PATIENCE_S}) for f in later] == [*map(jobs.large, sizes)]")
        # In the order in which they came, so none has come twice.
        assert members == [(each.pid, each.jobs) for each in view().clients]
        assert [rank.end() for rank in ranks] == [""] * 4


def test_two_hundred_clients_have_one_supervisor() -> None:
    with programs(1) as (program,):
        program.run(NOTHING)
        (supervisor,) = supervisors()
        with guests(200) as crowd:
            assert {guest.joins() for guest in crowd} == {supervisor}
            assert len(view().clients) == 201
            assert program.run(NOTHING) == 0
        assert wait_until(lambda: len(view().clients) == 1)
        assert program.end() == ""


def test_two_hundred_pools_start_at_once() -> None:
    """In five programs, by forty threads each."""
    with programs(5) as ranks:
        for rank in ranks:
            rank.start(
                "import concurrent.futures as c\n"
                "def use(number):\n"
                "    with CompilePool(max_workers=2, shared=True) as own:\n"
                f"        return own.submit(abs, -number).result({PATIENCE_S})\n"
                "with c.ThreadPoolExecutor(40) as threads:\n"
                "    assert list(threads.map(use, range(40))) == list(range(40))\n"
            )
        for rank in ranks:
            assert rank.answer() is None
            assert rank.end() == ""


# File systems and namespaces


def in_namespace(script: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script as root of a user namespace. Skips where that is not allowed."""
    command = ["unshare", "--map-root-user", *flags]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*command, "true"], check=False).returncode
    ):
        pytest.skip("this machine allows no user namespaces")
    return subprocess.run(
        [*command, "sh", "-ec", script], capture_output=True, text=True, check=False, timeout=60
    )


USE = """
import sys
from compilepool import CompilePool
from tests.shared_jobs import where
if __name__ == "__main__":
    with CompilePool(2, shared=True) as pool:
        print(pool.submit(where).result(20)[1], flush=True)
        sys.stdin.read() if len(sys.argv) > 1 else None
"""


def write_program(path: Path) -> str:
    path.write_text(USE)
    root = str(Path(__file__).parents[2])
    os.environ["PYTHONPATH"] = os.pathsep.join(
        filter(None, [root, os.environ.get("PYTHONPATH", "")])
    )
    return f"{sys.executable} {path}"


@pytest.fixture(autouse=True)
def same_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", ""))


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_a_directory_that_takes_no_file_makes_the_pool_private(
    runtime: Path, tmp_path: Path, fault: str
) -> None:
    program = write_program(tmp_path / "program.py")
    size = {"full": "size=4k,nr_inodes=1", "read-only": "ro"}[fault]
    done = in_namespace(f"mount -t tmpfs -o {size} none {runtime}; {program}", "--mount")
    if "mount:" in done.stderr:
        pytest.skip(f"this machine lets nobody mount: {done.stderr}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()
    assert done.stderr.count("the pool is not shared") == 1
    assert ("No space left" if fault == "full" else "Read-only") in done.stderr


@pytest.mark.parametrize("flags", [["--pid", "--fork", "--mount-proc"], ["--mount"]])
def test_programs_in_other_namespaces_have_a_pool_of_their_own(
    tmp_path: Path, flags: list[str]
) -> None:
    program = write_program(tmp_path / "program.py")
    here = subprocess.Popen(
        [*program.split(), "waits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert here.stdout is not None
    assert here.stdin is not None
    try:
        parent = here.stdout.readline()
        assert parent.strip().isdigit()
        (supervisor,) = supervisors()
        done = in_namespace(program, *flags)
        if "mount" in done.stderr:
            pytest.skip(f"this machine lets nobody mount: {done.stderr}")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().isdigit()
        assert done.stdout != parent
        assert done.stderr == ""
        assert supervisors() == [supervisor]
    finally:
        here.stdin.close()
        here.wait(PATIENCE_S)
        here.stdout.close()
