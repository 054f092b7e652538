"""Measure how long after a kill the last process that must die is dead.

    python benchmarks/orphans.py [RUNS]

Each case runs RUNS times (20) with each start method. There is a client with four workers. Three of
them run jobs that have started shells, children of shells, another session and a daemon. SIGKILL
ends one process, two processes or all workers. Everything below them must die, as pidfds show from
outside. The time runs from before the first kill to the last death.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.proc import pool_processes
from tests.programs.running import Doomed, Program, family_of

JOBS = 3
BOUND_S = 10.0

CASES = {
    "client": ["client"],
    "client + supervisor": ["client", "supervisor"],
    "supervisor + client": ["supervisor", "client"],
    "client + fork server": ["client", "fork server"],
    "fork server + client": ["fork server", "client"],
    "supervisor": ["supervisor"],
    "fork server": ["fork server"],
    "one worker": ["worker"],
    "all workers": ["workers"],
}


def run(start_method: str, kinds: list[str]) -> tuple[int, float]:
    """Return how many processes had to die, and after how many seconds the last one was dead."""
    with Program("client.py", start_method, "family", str(JOBS)) as program:
        bystander = int(program.read_line().removeprefix("bystander "))
        workers = [int(program.read_line().split()[2]) for _ in range(JOBS)]
        program.ask("work")  # starts the fourth worker, which is idle afterwards
        pids = {
            "client": [program.pid],
            "worker": workers[:1],
            "workers": pool_processes("worker", of=program.pid),
            "supervisor": pool_processes("supervisor", of=program.pid),
            "fork server": pool_processes("fork server", of=program.pid),
        }
        killed = [pid for kind in kinds for pid in pids[kind]]
        below = {pid for victim in killed for pid in family_of(victim)} - {bystander}
        with Doomed(killed) as victims, Doomed(below) as doomed, Doomed([bystander]) as spared:
            began = time.perf_counter()
            victims.kill()
            all_died = doomed.wait(BOUND_S)
            took = time.perf_counter() - began
            left, was_spared = doomed.alive(), spared.alive()
            spared.kill()
        program.kill()
        program.stderr()  # waits until no process has its error output open
        if not all_died or left or not was_spared:
            sys.exit(f"{kinds}, {start_method}: left {left}, bystander lives: {bool(was_spared)}")
        return len(doomed), took


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print(f"{os.cpu_count()} CPUs, Linux {os.uname().release}, {runs} runs of each case")
    print(f"{'killed':<22}{'start method':<14}{'processes':>9}{'median ms':>11}{'max ms':>8}")
    for case, kinds in CASES.items():
        for start_method in ("fork", "spawn"):
            outcomes = [run(start_method, kinds) for _ in range(runs)]
            processes = max(count for count, _ in outcomes)
            times = [1000 * took for _, took in outcomes]
            row = f"{case:<22}{start_method:<14}{processes:>9}"
            print(f"{row}{statistics.median(times):>11.1f}{max(times):>8.1f}", flush=True)


main()
