"""Ranks of one node on real GPUs: the first training step, cold, of a BERT and a Llama of 4 layers.

    python benchmarks/node_gpu.py [--models bert llama] [--ranks 2 8] [--runs 1]

This needs CUDA GPUs, torch and transformers. torchrun starts the ranks; each trains a copy of the
model (DistributedDataParallel) with `torch.compile`. The modes take turns: torch's pools, ours, and
one shared pool. Caches are empty before each run, and all ranks share them, as they do by default.

- step: from the start of torchrun until the last rank has done its first step.
- jobs: kernels that all ranks together have given to pools; compiled: those that ran, rather than
  get the result of another rank's.
- children, PSS: processes beside ranks and launcher, and their memory, at their most.
- losses: of two steps; they must be equal on all ranks and, but for rounding, in all modes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from node import MARK, MODES, pss_of
from tests.proc import command_line, pids_with_environment

RANK = str(Path(__file__).with_name("node_gpu_rank.py"))
LOOK_S = 3.0
TOLERANCE = 1e-3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", default=["bert", "llama"])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--runs", type=int, default=1)
    options = parser.parse_args()
    print("| model | ranks | | step s | jobs | compiled | children | PSS GB |")
    print("|---|---|---|---|---|---|---|---|")
    for model in options.models:
        for ranks in options.ranks:
            found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
            for _ in range(options.runs):
                for mode in MODES:
                    found[mode].append(run(mode, model, ranks))
                    print("   ", mode, found[mode][-1], file=sys.stderr, flush=True)
            for mode, name in MODES.items():
                row = {key: median(each[key] for each in found[mode]) for key in found[mode][0]}
                print(
                    f"| {model} | {ranks} | {name} | {row['step_s']:.1f} | {row['jobs']:.0f}"
                    f" | {row['compiled']:.0f} | {row['children']:.0f} | {row['pss_gb']:.1f} |",
                    flush=True,
                )
            losses = [each["loss"] for mode in MODES for each in found[mode]]
            if max(losses) - min(losses) > TOLERANCE * max(losses):
                raise SystemExit(f"the losses differ: {losses}")


def run(mode: str, model: str, ranks: int) -> dict[str, Any]:
    value = uuid.uuid4().hex
    mark = f"{MARK}={value}"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        cache = Path(folder, "cache")
        env = {
            **os.environ,
            MARK: value,
            "TORCHINDUCTOR_CACHE_DIR": str(cache),
            "TRITON_CACHE_DIR": str(cache / "triton"),
            "OMP_NUM_THREADS": "1",
        }
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
        start = time.time()
        with Path(folder, "output").open("wb") as output:
            program = subprocess.Popen(
                [sys.executable, *command, RANK, mode, model, folder],
                env=env,
                stdout=output,
                stderr=output,
            )
            most: dict[str, float] = {"children": 0, "pss_gb": 0.0}
            watch = threading.Thread(target=look, args=[program, mark, folder, most])
            watch.start()
            program.wait()
            watch.join()
        results = [json.loads(path.read_text()) for path in Path(folder).glob("result*")]
        if program.returncode != 0 or len(results) != ranks:
            raise SystemExit(f"{mode} has failed:\n{Path(folder, 'output').read_text()[-4000:]}")
        losses = {tuple(each["losses"]) for each in results}
        if len(losses) != 1:
            raise SystemExit(f"the ranks' losses differ: {losses}")
        jobs = sum(each["jobs"] for each in results)
        print_phases(mode, start, results)
        return {
            "step_s": max(each["ended"] for each in results) - start,
            "jobs": jobs,
            "compiled": sum(each.get("runs", each["jobs"]) for each in results),
            **most,
            "loss": losses.pop()[1],
        }


def print_phases(mode: str, start: float, results: list[dict[str, Any]]) -> None:
    """Where the ranks' time went: medians over the ranks, the longest phases first."""
    phases = {
        "before the step": [each["began"] - start for each in results],
        "step": [each["ended"] - each["began"] for each in results],
    }
    for result in results:
        for phase, seconds in result["phases"].items():
            phases.setdefault(phase, []).append(seconds)
    longest = sorted(phases.items(), key=lambda item: -median(item[1]))[:30]
    text = ", ".join(f"{phase} {median(seconds):.1f}" for phase, seconds in longest)
    print(f"    {mode}: {text}", file=sys.stderr, flush=True)


def look(program: subprocess.Popen[bytes], mark: str, folder: str, most: dict[str, float]) -> None:
    """Until the program ends, look again and again at the processes beside it and its ranks."""
    while program.poll() is None:
        own = {program.pid, *(int(path.read_text() or 0) for path in Path(folder).glob("pid*"))}
        pids = set(pids_with_environment(mark)) - own
        pids = {pid for pid in pids if RANK not in command_line(pid)}
        most["children"] = max(most["children"], len(pids))
        most["pss_gb"] = max(most["pss_gb"], sum(map(pss_of, pids)) / 1e9)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(LOOK_S)


if __name__ == "__main__":
    main()
