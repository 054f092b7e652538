"""The report of a pool: its numbers are those of the trace, and a browser shows them."""

from __future__ import annotations

import ctypes
import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compilepool import CompileFuture, CompilePool, report_phase
from compilepool.cli.main import app
from compilepool.observe.trace_report.page import write_report
from tests.proc import PATIENCE_S, wait_until
from tests.programs.gates import Gate, wait_at
from tests.sharing import programs
from tests.traces import read, slices

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


def compile_kernel(number: int) -> int:
    report_phase("parse")
    time.sleep(0.002)
    report_phase("emit")
    time.sleep(0.001 * (number % 7))
    if number == 3:
        raise ValueError("</script> kernel 3 is bad")
    return number


def figures_on(page: Path) -> dict[str, Any]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text)
    assert found
    figures = json.loads(found[1])
    assert isinstance(figures, dict)
    return figures


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report that a pool has written of some jobs; one crashes, and one raises."""
    path = tmp_path_factory.mktemp("report") / "compile.html"
    with CompilePool(2, report=path, keep_crashes=False) as pool:
        futures: list[CompileFuture[Any]] = [
            pool.options(name=f"kernel {number}").submit(compile_kernel, number)
            for number in range(40)
        ]
        futures.append(pool.options(name="crash").submit(ctypes.string_at, 0))
        for future in futures:
            future.exception(PATIENCE_S)
        pool.options(name="late").submit(abs, 1).result(PATIENCE_S)
    return path


def test_the_numbers_are_those_of_the_trace(page: Path) -> None:
    figures = figures_on(page)
    events = read(page.with_name("compile.html.json"))
    jobs = slices(events)
    began = min(job["args"]["queued"] for job in jobs)
    ended = max(job["ts"] + job["dur"] for job in jobs)
    assert figures["jobs"] == len(jobs) == 42
    assert figures["wall_us"] == ended - began
    assert figures["run_us"] == sum(job["dur"] for job in jobs)
    assert figures["outcomes"] == {"done": 40, "failed": 2}
    assert figures["workers"] == 2
    assert sum(figures["capacity"].values()) == 2 * (ended - began)
    assert figures["peak_bytes"] == max(job["args"]["peak_memory"] for job in jobs)
    lengths: Counter[str] = Counter()
    for phase in slices(events, "phase"):
        lengths[phase["name"]] += phase["dur"]
    assert figures["phases_us"] == lengths
    slowest = [figures["names"][figures["runs"][at][1]] for at in figures["slowest"]]
    by_length = sorted(jobs, key=lambda job: -job["dur"])
    assert [lengths[name] for name in slowest] == [lengths[job["name"]] for job in by_length[:20]]
    assert {(run[3] + began, run[4] + began) for run in figures["runs"]} == {
        (job["ts"], job["ts"] + job["dur"]) for job in jobs
    }
    path = figures["path"]
    assert sum(figures["path_us"].values()) == path[-1][2] - path[0][1]
    assert path[-1][2] == figures["wall_us"]


def test_failures_come_with_their_stacks(page: Path) -> None:
    failures = {failure["name"]: failure for failure in figures_on(page)["failures"]["first"]}
    assert failures.keys() == {"kernel 3", "crash"}
    assert "in compile_kernel" in failures["kernel 3"]["text"]
    assert "ValueError: </script> kernel 3 is bad" in failures["kernel 3"]["text"]
    assert failures["crash"]["error"].startswith("WorkerCrashed: the worker that ran job 'crash'")
    assert "string_at" in failures["crash"]["text"]
    assert failures["crash"]["text"].count("\n") > 2


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: apt install chromium")
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_a_browser_draws_it_without_an_error(page: Path, tmp_path: Path, colours: str) -> None:
    loud = page.read_text().replace(
        '<script type="application/json"',
        "<script>addEventListener('error', (event) => document.body.dataset.error = event.message)"
        '</script><script type="application/json"',
    )
    copy = tmp_path / "loud.html"
    copy.write_text(loud)
    # Chromium makes a socket there, whose path must be short, unix(7).
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=390,844",
            f"--user-data-dir={folder}",
            *(["--blink-settings=preferredColorScheme=0"] if colours == "dark" else []),
            "--dump-dom",
            copy.as_uri(),
        ]
        env = {**os.environ, "TMPDIR": folder}
        run = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60, env=env
        )
    assert "data-error" not in run.stdout
    text = re.sub(r"<[^>]+>", " ", run.stdout.partition("</main>")[0])
    assert "42" in text
    assert "2 failed" in text
    assert "2 workers could have worked for" in text
    assert "1 WorkerCrashed" in text
    assert "1 ValueError" in text
    assert "the worker that ran job 'crash' crashed with SIGSEGV" in text
    assert re.search(r"<canvas [^>]*height: \d+px", run.stdout)


def test_the_command_makes_the_same_report_of_the_trace(page: Path, tmp_path: Path) -> None:
    trace, output = page.with_name("compile.html.json"), tmp_path / "report.html"
    result = CliRunner().invoke(app, ["report", str(trace), "-o", str(output)])
    assert result.exit_code == 0, result.output
    assert "jobs      42: 40 done, 2 failed" in result.output
    assert str(output) in result.output.replace("\n", "")
    assert output.read_text() == page.read_text()


def test_the_command_says_what_is_wrong_with_a_trace(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text("[]")
    for trace, what in ((bad, "is no trace of a pool"), (tmp_path / "gone.json", "No such file")):
        result = CliRunner().invoke(app, ["report", str(trace), "-o", str(tmp_path / "a.html")])
        assert result.exit_code == 2
        assert what in result.output
        assert not (tmp_path / "a.html").exists()


def test_programs_that_share_a_pool_have_one_report(tmp_path: Path, runtime: Path) -> None:
    trace = f"{str(tmp_path)!r} + '/rank' + os.environ['RANK'] + '.json'"
    go = tmp_path / "go"
    with programs(2, f"max_workers=1, shared=True, trace={trace}") as ranks:
        for rank in ranks:
            ask = f"pool.options(flight_key='k').submit(jobs.wait_for, {str(go)!r})"
            rank.run(f"futures['it'] = {ask}")
        go.touch()
        for rank in ranks:
            rank.run("futures['it'].result()")
            rank.run("pool.shutdown()")
            assert rank.end() == ""
    traces = sorted(tmp_path.glob("rank*.json"))
    figures = write_report(traces, tmp_path / "report.html")
    assert [client["pool"] for client in figures["clients"]] == [0, 0]
    assert [client["program"][-8:] for client in figures["clients"]] == ["(rank 0)", "(rank 1)"]
    assert (figures["jobs"], len(figures["runs"])) == (2, 1)
    assert figures["joined"] + figures["reused"] == 1
    assert figures["workers"] == 1


def test_a_job_that_never_ran_is_in_the_report(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "report.html"
    with CompilePool(1, report=path, trace=tmp_path / "own.json") as pool:
        running = pool.submit(wait_at, gate.path)
        assert wait_until(running.running)
        assert pool.submit(abs, 1).cancel()
        gate.open()
        running.result(PATIENCE_S)
    assert figures_on(path)["outcomes"] == {"done": 1, "cancelled": 1}
    assert sorted(each.name for each in tmp_path.glob("*.*")) == ["own.json", "report.html"]


def test_a_report_that_cannot_be_written_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "report.html"
    with (
        caplog.at_level(logging.WARNING, "compilepool"),
        CompilePool(1, report=path, trace=tmp_path / "own.json") as pool,
    ):
        assert pool.submit(abs, -1).result(PATIENCE_S) == 1
        folder.rmdir()
    (warning,) = [each.getMessage() for each in caplog.records if "report" in each.getMessage()]
    assert str(path) in warning
    assert f"compilepool report {tmp_path / 'own.json'}" in warning


def test_a_pool_that_waits_for_memory_says_so_in_the_report(tmp_path: Path, gate: Gate) -> None:
    path = tmp_path / "report.html"
    with CompilePool(2, report=path) as pool:
        big = pool.options(expected_memory="1 TiB")
        first = big.submit(wait_at, gate.path)
        second = big.submit(abs, 1)
        assert wait_until(first.running)
        trace = tmp_path / "report.html.json"
        assert wait_until(lambda: "short of memory" in trace.read_text())
        gate.open()
        assert second.result(PATIENCE_S) == 1
    figures = figures_on(path)
    assert figures["capacity"]["memory"] > 0
