"""Every test leaves nothing behind: no process, no descriptor, no temporary file."""

from __future__ import annotations

import gc
import importlib.util
import os
import resource
import signal
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.proc import command_line, pids_with_environment, wait_until

# Their tests are for `make test-torch` and `make test-ray`.
collect_ignore = [
    folder
    for package, folder in (("torch", "pytorch"), ("ray", "ray"))
    if importlib.util.find_spec(package) is None
]

# A shell that starts the tests in the background has them ignore Ctrl-C, and `exec` keeps that: all
# programs that tests start would ignore it, too, where users' programs do not.
signal.signal(signal.SIGINT, signal.default_int_handler)

MARK = "COMPILEPOOL_TEST"
KERNEL_OBJECTS = ("socket:", "anon_inode:", "/memfd:", "pipe:")

settings.register_profile(
    "compilepool",
    # Machines are noisy: how long an example takes says nothing.
    deadline=None,
    # The fixture below watches the test as a whole, all its examples together.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
settings.load_profile("compilepool")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each CPU: most tests wait for processes most of the time."""
    return 2 * len(os.sched_getaffinity(0))


def pytest_collection_finish() -> None:
    """What is there before the first test is no test's garbage, and looking at it takes long."""
    gc.collect()
    gc.freeze()


def kernel_objects() -> list[str]:
    """What this process has open besides files."""
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue  # the listing's own
        if target.startswith(KERNEL_OBJECTS):
            targets.append(f"{fd} -> {target}")
    return sorted(targets)


@pytest.fixture(autouse=True, scope="session")
def without_core_files() -> Iterator[None]:
    """Tests crash on purpose, and nobody wants their core files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    yield
    resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of crash folders, which is not there yet."""
    folder = tmp_path / "state" / "crashes"
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Fails a test that leaves something. All that it starts inherits the mark, and this TMPDIR."""
    number = uuid.uuid4().hex
    mark = f"{MARK}={number}"
    temporary = tmp_path_factory.mktemp(f"TMPDIR-{number[:12]}", numbered=False)
    crashes = tmp_path_factory.mktemp(f"crashes-{number[:12]}", numbered=False)
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))  # it remembers a TMPDIR from before
    monkeypatch.setenv("COMPILEPOOL_CRASH_DIR", str(crashes / "root"))
    monkeypatch.setenv("PYTHON_COLORS", "0")  # tests read tracebacks, which Python 3.13 colours
    before = kernel_objects()
    yield
    gc.collect()
    wait_until(lambda: not pids_with_environment(mark))
    left = {pid: command_line(pid) for pid in pids_with_environment(mark)}
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes left behind: {left}"
    assert wait_until(lambda: set(kernel_objects()) <= set(before)), (
        f"descriptors left behind: {set(kernel_objects()) - set(before)}"
    )
    assert not list(temporary.iterdir()), "temporary files left behind"
