"""Ranks of one node that compile the same kernels, in a pool each or in one of ours.

    python benchmarks/node.py [--ranks 1 4 8] [--runs 3] [--workers 2]

The kernels are those that Inductor makes for blocks of a GPT (benchmarks/gpt_kernels.py). Each rank
is a process with torch. All of them ask for all kernels at the same time. The cache on disk is
empty at first, and all ranks share it, as they do by default. This needs torch and triton, but no
GPU. The modes take turns. The table has medians of RUNS.

- kernels compiled: jobs that took longer than 25 ms; what Triton finds in its cache takes a few.
- wall: from the ranks' start signal until the last one has all kernels.
- processes, PSS: those of all pools together when the last kernel is there; the ranks do not count.
- first result: of a second run, whose pool lingers since the first; from its making.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proc import pids_with_environment

from compilepool.linux.proc import smaps_rollup

MODES = {"torch": "torch's pools", "private": "our pools", "shared": "one shared pool"}
ROOT = Path(__file__).parent.parent
# Not as `__main__`, whose functions torch's pool cannot find.
RANK = (
    *(sys.executable, "-W", "ignore", "-c"),
    "import sys; from benchmarks import node_rank; getattr(node_rank, sys.argv[1])(*sys.argv[2:])",
)
MARK = "COMPILEPOOL_BENCHMARK_MARK"
COMPILED_S = 0.025  # a hit in Triton's cache on disk takes less
LINGER_S = 60
PATIENCE_S = 600


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kernels = str(Path(folder, "kernels.json"))
        subprocess.run([*RANK, "make_kernels", kernels], cwd=ROOT, check=True)
        count = len(json.loads(Path(kernels).read_text()))
        print(f"{count} kernels, {options.workers} workers, {os.cpu_count()} CPUs\n")
        print("| ranks | | kernels compiled | wall s | processes | PSS MB |")
        print("|---|---|---|---|---|---|")
        for ranks in options.ranks:
            found: dict[str, list[dict[str, float]]] = {mode: [] for mode in MODES}
            for _ in range(options.runs):
                for mode in MODES:
                    found[mode].append(run(mode, ranks, options.workers, kernels))
            for mode, name in MODES.items():
                row = {key: median(each[key] for each in found[mode]) for key in found[mode][0]}
                print(
                    f"| {ranks} | {name} | {row['compiled']:.0f} | {row['wall_s']:.2f}"
                    f" | {row['processes']:.0f} | {row['pss_mb']:.0f} |",
                    flush=True,
                )
        firsts = [second_run(options.workers, kernels) for _ in range(options.runs)]
        print(f"\nfirst result of a second run: {median(firsts) * 1000:.0f} ms")


def run(mode: str, ranks: int, workers: int, kernels: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with started(mode, ranks, workers, kernels, folder) as (children, mark):
            wait_for(folder, "ready", children)
            start = time.perf_counter()
            Path(folder, "go").touch()
            wait_for(folder, "done", children)
            wall_s = time.perf_counter() - start
            pids = set(pids_with_environment(mark)) - {child.pid for child in children}
            pss_mb = sum(pss_of(pid) for pid in pids) / 1e6
            Path(folder, "end").touch()
            for child in children:
                child.wait(PATIENCE_S)
        times = [float(line) for line in Path(folder, "compiled.log").read_text().split()]
        compiled = sum(each > COMPILED_S for each in times)
        return {
            "compiled": compiled,
            "wall_s": wall_s,
            "processes": len(pids),
            "pss_mb": pss_mb,
        }


def second_run(workers: int, kernels: str) -> float:
    """The seconds from making a pool to its first result, where the pool of a first run lingers."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder, "go").touch()
        Path(folder, "end").touch()
        linger = {"COMPILEPOOL_LINGER": str(LINGER_S), "XDG_RUNTIME_DIR": folder}
        linger[MARK] = "both"  # the environment tells pools apart
        for _ in range(2):
            with started("shared", 1, workers, kernels, folder, **linger) as (children, _):
                children[0].wait(PATIENCE_S)
        subprocess.run(
            [sys.executable, "-m", "compilepool.cli.main", "stop", "--all"],
            cwd=ROOT,
            env={**os.environ, **linger},
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return float(Path(folder, "first0").read_text())


@contextlib.contextmanager
def started(
    mode: str, ranks: int, workers: int, kernels: str, folder: str, **env: str
) -> Iterator[tuple[list[subprocess.Popen[bytes]], str]]:
    """The ranks, and the mark in the environment of all that they start."""
    value = uuid.uuid4().hex
    cache = str(Path(folder, "cache"))
    common = {
        MARK: value,
        "COMPILEPOOL_SHARED": str(int(mode == "shared")),
        "TORCHINDUCTOR_CACHE_DIR": cache,
        "TRITON_CACHE_DIR": str(Path(cache, "triton")),
        **env,
    }
    command = [*RANK, "rank", mode, str(workers), kernels, folder]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path, **common}
    children = [
        subprocess.Popen(command, cwd=ROOT, env={**env, "RANK": str(rank)}) for rank in range(ranks)
    ]
    try:
        yield children, f"{MARK}={value}"
    finally:
        for child in children:
            child.kill()
            child.wait()


def wait_for(folder: str, what: str, children: list[subprocess.Popen[bytes]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while len([*Path(folder).glob(f"{what}*")]) < len(children):
        if any(child.poll() not in (None, 0) for child in children):
            raise SystemExit("a rank has failed")
        if time.monotonic() > deadline:
            raise SystemExit(f"the ranks are not {what}")
        time.sleep(0.005)


def pss_of(pid: int) -> int:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return smaps_rollup(pid)["Pss"]
    return 0


if __name__ == "__main__":
    main()
