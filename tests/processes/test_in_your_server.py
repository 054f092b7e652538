"""The servers of docs/in_your_program/servers.md: gunicorn, uvicorn and Celery."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proc import PATIENCE_S, descendants, free_port, wait_until

if importlib.util.find_spec("gunicorn") is None:
    pytest.skip("the extra `programs` is not installed", allow_module_level=True)

FOLDER = Path(__file__).parents[2] / "examples/in_your_program"


def fetch(port: int, size: int) -> str:
    """Ask a server for a kernel, as soon as it answers at all."""
    answers = []

    def ask() -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            url = f"http://127.0.0.1:{port}/?{size}"
            with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                answers.append(answer.read().decode())
        return bool(answers)

    assert wait_until(ask)
    return str(answers[0])


@contextlib.contextmanager
def served(*command: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server, and end it by SIGTERM. What it leaves behind, the suite finds."""
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-m", *command])
    try:
        yield server
        if server.poll() is None:
            server.terminate()
            assert server.wait(PATIENCE_S) in (0, -signal.SIGTERM)
    finally:
        if server.poll() is None:
            kill(server)


def kill(server: subprocess.Popen[bytes]) -> None:
    """Kill a server and its workers."""
    for pid in [*descendants(server.pid), server.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    server.wait(PATIENCE_S)


@pytest.mark.parametrize("kind", ["sync", "gthread", "gevent"])
def test_each_worker_of_gunicorn_has_a_pool_and_its_successors_too(kind: str) -> None:
    port = free_port()
    with served(
        *("gunicorn", "--bind", f"127.0.0.1:{port}", "--chdir", str(FOLDER), "--preload"),
        *("--worker-class", kind, "--max-requests", "2", "--log-level", "error", "wsgi_app:app"),
    ):
        assert [fetch(port, size) for size in range(5)] == [f"matmul_{n}" for n in range(5)]


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_pool_starts_and_ends_with_uvicorn(workers: str) -> None:
    port = free_port()
    with served(
        *("uvicorn", "--port", str(port), "--app-dir", str(FOLDER), "--workers", workers),
        *("--log-level", "error", "asgi_app:app"),
    ):
        assert [fetch(port, size) for size in range(3)] == [f"matmul_{n}" for n in range(3)]


def test_each_worker_of_celery_has_a_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_FOLDER", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # what is killed leaves its files
    monkeypatch.setenv("PYTHONPATH", f"{FOLDER}:{os.environ.get('PYTHONPATH', '')}")
    ask = (
        "from celery_tasks import compile_all\n"
        "for sizes in [1, 2], [3]:\n"
        f"    print(compile_all.delay(sizes).get(timeout={PATIENCE_S}))\n"
    )
    with served(
        *("celery", "--app", "celery_tasks", "--quiet", "worker", "--concurrency", "1"),
        *("--loglevel", "ERROR", "--max-tasks-per-child", "1"),
    ) as server:
        client = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ask],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE_S * 3,
        )
        assert client.stdout == "['matmul_1', 'matmul_2']\n['matmul_3']\n", client.stderr
        # Not by SIGTERM: with --max-tasks-per-child, celery may wait for ever for a lock that a
        # worker had which has ended just now (billiard/pool.py, `_help_stuff_finish`).
        kill(server)
