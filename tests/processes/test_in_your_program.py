"""The examples of docs/in_your_program/, each with the tool that it is for."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.debugging import Sessions, written_port
from tests.proc import PATIENCE_S, children, descendants

if importlib.util.find_spec("nbclient") is None:
    pytest.skip("the extra `programs` is not installed", allow_module_level=True)

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/in_your_program"
PROFILED = str(FOLDER / "profiled_jobs.py")
RESULTS = "results: [5995, 11994, 17997, 23997]"

both_start_methods = pytest.mark.parametrize("start_method", ["fork", "spawn"])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tools keep their files in folders of the test's own, and may warn."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def untidy_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool itself leaves temporary files, also without a pool."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def run(*command: str | Path) -> str:
    """Run Python with these arguments, and return its output, and its error output after it."""
    done = subprocess.run(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S * 3,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def tool(name: str) -> Path:
    """The path of a command that is installed beside this interpreter."""
    return Path(sys.executable).parent / name


def test_every_example_is_run_here_or_with_the_servers() -> None:
    tests = [Path(__file__), Path(__file__).with_name("test_in_your_server.py")]
    text = "".join(test.read_text() for test in tests)
    names = {path.stem for path in FOLDER.iterdir() if not path.name.startswith(("_", "."))}
    assert {name for name in names if name not in text} == set()


# Jupyter


NOTEBOOK = ("-W", "ignore", "-m", "tests.programs.notebook")


def test_the_notebook_runs() -> None:
    shown = run(*NOTEBOOK, "run", FOLDER / "notebook.ipynb")
    assert "['matmul_32', 'matmul_64']" in shown
    assert "compiling 32" in shown
    assert "crashed with SIGSEGV" in shown
    assert "['matmul_128', 'matmul_256']" in shown


def test_an_interrupted_cell_leaves_its_job_and_a_killed_kernel_leaves_nothing() -> None:
    shown = run(*NOTEBOOK, "interrupt")
    assert "the cell: KeyboardInterrupt" in shown
    assert "the job runs, is cancelled: True True" in shown
    assert "the next job: 42" in shown
    assert "left of True none: True" in shown


# Debuggers


def test_a_job_stops_at_a_breakpoint_and_is_debugged_at_the_terminal() -> None:
    program, terminal = pty.fork()
    if program == 0:
        os.execv(sys.executable, [sys.executable, str(FOLDER / "breakpoint_in_job.py")])
    shown = b""
    deadline = time.monotonic() + PATIENCE_S

    def wait_for(text: bytes) -> None:
        nonlocal shown
        while text not in shown:
            left = deadline - time.monotonic()
            assert select.select([terminal], [], [], max(0, left))[0], shown
            try:
                shown += os.read(terminal, 1000)
            except OSError:  # the end of a terminal that nobody has open any more
                pytest.fail(shown.decode())
        shown = shown.partition(text)[2]

    try:
        wait_for(b"(Pdb) ")
        os.write(terminal, b"p registers * 1000\n")
        wait_for(b"128000")
        wait_for(b"(Pdb) ")
        os.write(terminal, b"registers = 99\nc\n")
        wait_for(b"result: 99")
    finally:
        os.close(terminal)
        os.waitpid(program, 0)


def test_jobs_run_under_debugpy() -> None:
    command = ["-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:0"]
    assert RESULTS in run(*command, PROFILED, "fork")


def test_breakpoints_of_debugpy_stop_in_jobs(tmp_path: Path) -> None:
    lines = Path(PROFILED).read_text().splitlines()
    line = 1 + lines.index("    return allocate_registers(size * 2_000)")
    sessions = Sessions(Path(PROFILED), line, "size")
    endpoints = tmp_path / "endpoints.json"
    command = ["-Xfrozen_modules=off", "-m", "debugpy", "--listen", "127.0.0.1:0"]
    with subprocess.Popen(
        [sys.executable, *command, "--wait-for-client", PROFILED, "spawn"],
        env={**os.environ, "DEBUGPY_ADAPTER_ENDPOINTS": str(endpoints)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        try:
            port = written_port(endpoints)
            sessions.start(port, {"subProcess": True, "justMyCode": False})
            stops = [sessions.next_stop() for _ in range(4)]
            output, _ = program.communicate(timeout=PATIENCE_S)
        finally:
            program.kill()
        sessions.join()
    assert sorted(stops) == [("compile_kernel", str(size)) for size in (1, 2, 3, 4)]
    assert RESULTS in output


# Profilers and coverage


@both_start_methods
def test_each_job_is_profiled(start_method: str) -> None:
    output = run(PROFILED, start_method)
    assert RESULTS in output
    calls = [line.split() for line in output.splitlines() if "(compile_kernel)" in line]
    assert [row[0] for row in calls] == ["4"]


KERNELS = """
def compile_kernel(size):
    name = f"matmul_{size}"
    return name
"""


@both_start_methods
def test_coverage_measures_jobs_where_its_settings_ask_for_it(
    start_method: str, tmp_path: Path
) -> None:
    (tmp_path / "kernels.py").write_text(KERNELS)
    (tmp_path / "program.py").write_text(
        "from compilepool import CompilePool\n"
        "from kernels import compile_kernel\n"
        f"with CompilePool(2, start_method={start_method!r}) as pool:\n"
        "    print(pool.submit(compile_kernel, 32).result())\n"
    )
    (tmp_path / ".coveragerc").write_text("[run]\npatch = subprocess, fork\nparallel = true\n")
    assert "matmul_32" in run("-m", "coverage", "run", "program.py")
    run("-m", "coverage", "combine", "--quiet")
    run("-m", "coverage", "json", "--quiet", "--include=kernels.py", "-o", "report.json")
    files = json.loads((tmp_path / "report.json").read_text())["files"]
    assert files["kernels.py"]["missing_lines"] == []


@pytest.mark.usefixtures("untidy_tool")
@both_start_methods
def test_jobs_run_under_scalene(start_method: str) -> None:
    output = run(
        "-m", "scalene", "run", "--cpu-only", "--outfile", "profile.json", PROFILED, start_method
    )
    assert RESULTS in output


@both_start_methods
def test_jobs_run_under_viztracer(start_method: str) -> None:
    output = run("-m", "viztracer", "--quiet", "-o", "trace.json", PROFILED, start_method)
    assert RESULTS in output


def test_py_spy_sees_jobs(tmp_path: Path) -> None:
    stacks = tmp_path / "stacks.txt"
    (tmp_path / "program.py").write_text(
        "import time\n"
        "from compilepool import CompilePool\n"
        "def compile_kernel():\n"
        "    end = time.monotonic() + 4\n"  # py-spy looks for new processes once a second
        "    while time.monotonic() < end: pass\n"
        "with CompilePool(1) as pool:\n"
        "    pool.submit(compile_kernel).result()\n"
    )
    command = ["record", "--subprocesses", "--format", "raw", "--output", str(stacks), "--"]
    subprocess.run(
        [tool("py-spy"), *command, sys.executable, "program.py"],
        capture_output=True,
        check=True,
        timeout=PATIENCE_S * 3,
    )
    assert "compile_kernel" in stacks.read_text()


# asyncio, gevent and eventlet


def test_asyncio_awaits_and_cancels_jobs() -> None:
    output = run(FOLDER / "asyncio_program.py")
    assert "['matmul_32', 'matmul_64']" in output
    assert "timed out: the job was cancelled, too: True" in output


def test_ctrl_c_in_asyncio_ends_jobs_at_once() -> None:
    program = (
        "import asyncio, signal\n"
        "from compilepool import CompilePool\n"
        "async def main():\n"
        "    with CompilePool(2) as pool:\n"
        "        futures = [pool.submit(signal.pause) for _ in range(2)]\n"
        "        while not all(future.running() for future in futures):\n"
        "            await asyncio.sleep(0.01)\n"
        "        signal.raise_signal(signal.SIGINT)\n"
        "        await asyncio.wrap_future(futures[0])\n"
        "try:\n"
        "    asyncio.run(main())\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    assert run("-c", program) == "interrupted\n"


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_green_threads_wait_for_jobs_while_others_go_on(library: str) -> None:
    output = run("-W", "ignore", FOLDER / "green_threads.py", library)
    assert "['matmul_32', 'matmul_64', 'matmul_96', 'matmul_128']" in output
    assert "other green threads ran meanwhile: True" in output


# pytest, joblib and dask


@pytest.mark.usefixtures("untidy_tool")
@pytest.mark.parametrize("options", [[], ["-p", "xdist", "-n", "2"]], ids=["alone", "xdist"])
def test_a_pool_is_a_fixture_of_pytest(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # loading those of this suite is slow
    suite = tmp_path / "suite"
    shutil.copytree(FOLDER / "pytest_suite", suite, ignore=shutil.ignore_patterns("__pycache__"))
    assert {path.name for path in suite.iterdir()} == {"conftest.py", "test_kernels.py"}
    assert "4 passed" in run("-m", "pytest", "-p", "no:cacheprovider", *options, suite)


def test_joblib_runs_on_a_pool() -> None:
    lines = run(FOLDER / "joblib_backend.py").splitlines()
    assert lines[:2] == ["['matmul_16', 'matmul_32', 'matmul_64']", "['matmul_1', 'matmul_2']"]
    assert "'joblib batch' crashed with SIGSEGV" in lines[2]
    assert lines[3] == "['matmul_256', 'matmul_512']"


def test_dask_runs_on_a_pool() -> None:
    output = run(FOLDER / "dask_scheduler.py")
    assert "matmul_32 + matmul_64\nmatmul_128 + matmul_256\n" in output
    assert "crashed with SIGSEGV" in output


# Containers and systemd


def start_service(*prefix: str) -> subprocess.Popen[str]:
    """Start service.py, and wait until it serves."""
    service = subprocess.Popen(
        [*prefix, sys.executable, str(FOLDER / "service.py")], stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    assert service.stdout.readline() == "serving, matmul_1 first\n"
    return service


def output_at_end(service: subprocess.Popen[str]) -> str:
    with service:
        output, _ = service.communicate(timeout=PATIENCE_S)
    assert service.returncode == 0
    return output


def test_a_service_lets_its_jobs_finish() -> None:
    service = start_service()
    service.terminate()
    assert "SIGTERM: " in output_at_end(service)


def test_a_service_gets_the_results_also_if_every_process_of_it_is_terminated() -> None:
    """As systemd does without KillMode=mixed: the jobs that ran run again."""
    service = start_service()
    for pid in [service.pid, *descendants(service.pid)]:
        with contextlib.suppress(ProcessLookupError):  # the supervisor's end ends others
            os.kill(pid, signal.SIGTERM)
    assert "SIGTERM: " in output_at_end(service)


UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc")


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs util-linux's unshare, and the right to make PID namespaces",
)
def test_a_service_is_pid_1_of_a_container() -> None:
    service = start_service(*UNSHARE)
    (pid_1,) = children(service.pid)
    os.kill(pid_1, signal.SIGTERM)
    assert "SIGTERM: " in output_at_end(service)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_understands_the_unit() -> None:
    unit = FOLDER / "compilepool-example.service"
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "compilepool-example" not in done.stdout + done.stderr
