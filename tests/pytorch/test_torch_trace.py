"""torch's own tools show the pool's jobs: the real tlparse, torch.profiler and TORCH_LOGS."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.pytorch.inductor_program import FAKE_GPU, PATIENCE_S, program_env, run_program

TLPARSE = shutil.which("tlparse", path=Path(sys.executable).parent) or "tlparse"
needs_tlparse = pytest.mark.skipif(
    shutil.which(TLPARSE) is None, reason="the extra `torch-tools` is not installed"
)

# `torch.compile` itself, so that there are compile ids; only the kernels are for a GPU.
COMPILED = (
    FAKE_GPU
    + """
import ctypes
def crash():
    ctypes.string_at(0)

def compiled(function):
    import torch
    from tests.pytorch import fake_gpu
    torch._inductor.config.fx_graph_cache = False
    from torch._inductor.async_compile import AsyncCompile
    AsyncCompile.wait_pool_ready()
    def backend(graph, inputs):
        fake_gpu.compile_for(graph.forward, *(each.shape for each in inputs))
        return graph.forward
    return torch.compile(function, backend=backend)

def plug_in(index=0):
    from tests.pytorch import fake_gpu
    fake_gpu.plug_in(index)
    import torch
    torch.accelerator.is_available = lambda: False  # Dynamo would ask for its current stream
"""
)


def tlparse(trace: Path, out: Path, *options: str) -> str:
    """Have tlparse make its report, and return what it says of the trace."""
    command = [TLPARSE, str(trace), "-o", str(out), "--no-browser", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    return done.stderr


def events_of(out: Path) -> list[dict[str, Any]]:
    events = json.loads((out / "chromium_events.json").read_text())
    assert isinstance(events, list)
    return events


def jobs_of(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The slices of jobs; those of their phases have no arguments."""
    ours = [event for event in events if event.get("cat") == "compile_worker"]
    return [event for event in ours if event["ph"] == "X" and event["args"]]


def end_of(event: dict[str, Any]) -> int:
    return int(event["ts"] + event["dur"])


@needs_tlparse
def test_tlparse_shows_each_job_and_the_report_of_a_crash(tmp_path: Path) -> None:
    done = run_program(
        """
        initializer = {"initializer": in_backend, "initargs": ("cumsum", crash)}
        integration.install(max_workers=2, on_crash="in_process", **initializer)
        plug_in()
        import torch
        def other(x):
            return x.cos().sum(-1)
        compiled(many)(torch.randn(64, 300))
        compiled(other)(torch.randn(64, 300))
        print(integration.current_pool().stats().submitted)
        """,
        tmp_path,
        prelude=COMPILED,
        env={"TORCH_TRACE": str(tmp_path / "trace")},
    )
    (trace,) = (tmp_path / "trace").iterdir()  # the pool's processes write none
    out = tmp_path / "report"
    tlparse(trace, out, "--strict", "--strict-compile-id")
    events = events_of(out)

    jobs = jobs_of(events)
    assert len(jobs) == int(done.stdout) >= 3
    assert {job["args"]["compile_id"] for job in jobs} == {"0/0", "1/0"}
    assert all(job["args"]["queue_seconds"] >= 0 for job in jobs)
    assert all(job["tid"] == job["args"]["worker_pid"] > 0 for job in jobs)
    names = {
        event["tid"]: event["args"]["name"] for event in events if event["name"] == "thread_name"
    }
    assert names == {job["tid"]: "compile worker" for job in jobs}

    # Inside torch's own slice, in its clock, and none over another of its worker.
    times = [event["ts"] for event in events if event["name"] == "entire_frame_compile"]
    assert all(min(times) <= job["ts"] <= end_of(job) <= max(times) for job in jobs)
    for one in jobs:
        later = [job for job in jobs if job["tid"] == one["tid"] and job["ts"] > one["ts"]]
        assert all(job["ts"] >= end_of(one) for job in later)
    phases = [event for event in events if event.get("cat") == "compile_worker"]
    phases = [event for event in phases if event["ph"] == "X" and not event["args"]]
    assert {phase["name"] for phase in phases} == {"cache look-up", "compile", "ptxas"}
    assert all(
        any(
            job["tid"] == phase["tid"] and job["ts"] <= phase["ts"] <= end_of(phase) <= end_of(job)
            for job in jobs
        )
        for phase in phases
    )

    (crashed,) = [job for job in jobs if "error" in job["args"]]
    assert "cumsum" in crashed["name"]
    assert "SIGSEGV" in crashed["args"]["error"]
    (report,) = out.glob(f"*_0_0_0/compile_worker_failure_{crashed['name']}_*.txt")
    text = report.read_text()
    for part in ("crashed with SIGSEGV", "in crash", "Native stacks of all threads", "replay"):
        assert part in text, (part, text)
    assert report.name in (out / "index.html").read_text()


RANK = """
rank = int(os.environ["RANK"])
integration.install(max_workers=2)
import torch
meeting = f"file://{Path.cwd() / 'ranks'}"
torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
plug_in(rank)
compiled(many)(torch.randn(64, 300))
torch.distributed.destroy_process_group()
"""


@needs_tlparse
def test_tlparse_tells_ranks_apart_that_share_a_pool(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    env = {
        **os.environ,
        **program_env(tmp_path),
        "TORCH_TRACE": str(tmp_path / "trace"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "COMPILEPOOL_SHARED": "1",
    }
    ranks = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", COMPILED + RANK],
            env={**env, "RANK": rank},
            cwd=tmp_path,
        )
        for rank in ("0", "1")
    ]
    try:
        assert [rank.wait(PATIENCE_S) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    out = tmp_path / "report"
    says = tlparse(tmp_path / "trace", out, "--all-ranks-html")
    # The one line of no rank is torch's own, of its version. Else there is nothing but "ok".
    assert re.findall(r"Stats \{ ok: \d+, (.*) \}", says) == ["other_rank: 1"] * 2, says
    events = [event for event in events_of(out) if event.get("cat") == "compile_worker"]
    jobs = [event for event in events if "compile_id" in event["args"]]
    names = [{job["name"] for job in jobs if job["pid"] == rank} for rank in (0, 1)]
    assert names[0] == names[1]
    assert len(jobs) == 2 * len(names[0])
    # Each kernel was compiled once: by this rank, or for both, or for the other one before.
    shared = [job for job in jobs if job["args"].get("shared")]
    assert len(shared) == len(names[0])


PROFILED = """
import json
import torch
from torch._inductor.async_compile import AsyncCompile
from torch.profiler import ProfilerActivity, profile
torch._inductor.config.fx_graph_cache = False
AsyncCompile.wait_pool_ready()
def f(x):
    return x @ x  # needs no C++ compiler
with profile(activities=[ProfilerActivity.CPU]) as profiled:
    torch.compile(f)(torch.ones(8, 8))
print(json.dumps(sorted({event.name for event in profiled.events()})))
"""
OURS = "from compilepool.integrations.torch import install; install(max_workers=2)"


def test_the_profiler_and_the_logs_show_what_they_show_with_torchs_own_pool(
    tmp_path: Path,
) -> None:
    names: list[list[str]] = []
    logs: list[list[str]] = []
    for prelude in (OURS, ""):
        folder = tmp_path / f"with_{len(names)}"
        folder.mkdir()
        env = {"TORCH_LOGS": "+inductor", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
        done = run_program(PROFILED, folder, prelude=prelude, env=env)
        names.append(json.loads(done.stdout))
        # What torch says of its pool, without times and line numbers.
        line = r"/(?:async_compile|compile_worker/\w+|installation)\.py:\d+\] (.*)"
        logs.append(sorted(set(re.findall(line, done.stderr))))
    assert names[0] == names[1]
    assert "async_compile.wait" in names[0]
    assert logs[0] == [text.replace("'subprocess'", "'compilepool'") for text in logs[1]]
    assert "Creating 'compilepool' pool with 2 workers" in logs[0]
