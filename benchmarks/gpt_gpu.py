"""Compile a small GPT on a GPU, cold: with PyTorch's compile workers, with ours, and with none.

    python benchmarks/gpt_gpu.py [RUNS]

This needs a CUDA GPU, and torch for it. Each run is a process of its own with empty caches. It
makes a GPT whose blocks differ in width, so that hardly any two kernels are alike, and compiles and
runs one training step: forward, backward and the optimizer's. Times are in seconds from the start
of the process: median, least and most of RUNS (3; 1 for the last mode).

- ready: the pool can take kernels; ours, with all its workers.
- first: Inductor wants the first kernel.
- step: the first step is done and everything is compiled. The user waits for this.
- in workers: how many of the kernels were compiled by workers. The main process compiled the
  others, one after the other, as Inductor does while no worker is there.
- exit: the time from the end of the step until the process is gone.

Then, with our pool: the report of torch for a kernel whose compiler crashes; whether any process of
the pool has opened the GPU; and what is left when the program is killed, a second after its
workers have started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.proc import descendants, pids_with_environment

STARTED = "COMPILEPOOL_BENCHMARK_STARTED"
MARK = "COMPILEPOOL_BENCHMARK_MARK"
MODES = ("torch", "compilepool", "compile_threads=1")
WIDTHS = (256, 320, 384, 448)
CRASHING = "gelu"
LEFT_S = 2.0


def main(runs: int) -> None:
    show_machine()
    measured: dict[str, list[dict[str, Any]]] = {mode: [] for mode in MODES}
    for _ in range(runs):
        for mode in MODES[:2]:
            measured[mode].append(run_mode(mode))
    measured[MODES[2]].append(run_mode(MODES[2]))
    print("\n| | " + " | ".join(MODES) + " |\n|" + "---|" * (len(MODES) + 1))
    for row in ("ready", "first", "step", "in workers", "exit"):
        cells = [cell(row, measured[mode]) for mode in MODES]
        print(f"| {row} | " + " | ".join(cells) + " |")
    show_equal(measured)
    show_gpu_use()
    show_crash()
    show_left_over()


def cell(row: str, runs: list[dict[str, Any]]) -> str:
    if row == "in workers":
        return ", ".join(f"{run['in_workers']} of {run['kernels']}" for run in runs)
    values = [run[row] for run in runs if run[row] is not None]
    if not values:
        return ""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def show_machine() -> None:
    import platform

    probe = (
        "import torch, triton; print(torch.__version__, triton.__version__,"
        " torch.cuda.get_device_name())"
    )
    versions = subprocess.check_output([sys.executable, "-c", probe], text=True).strip()
    print(f"Python {platform.python_version()}, {os.cpu_count()} CPUs, {versions}")


def run_mode(mode: str) -> dict[str, Any]:
    with start(mode) as child:
        output, _ = child.communicate()
    ended = time.time()
    if child.returncode != 0:
        raise SystemExit(f"{mode} failed:\n{output}")
    *warnings, last = output.splitlines()
    print(*(line for line in warnings if "compilepool" in line), sep="\n", end="")
    result: dict[str, Any] = json.loads(last)
    result["exit"] = ended - result["ended_at"]
    print(mode, {name: result[name] for name in result if name != "outputs"}, flush=True)
    return result


@contextlib.contextmanager
def start(mode: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        caches = {
            "TORCHINDUCTOR_CACHE_DIR": cache,
            "TRITON_CACHE_DIR": os.path.join(cache, "triton"),
        }
        if mode == "compile_threads=1":
            caches["TORCHINDUCTOR_COMPILE_THREADS"] = "1"
        child = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__, "--run", mode],
            env={**os.environ, **caches, **env, STARTED: str(time.time())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield child
        finally:
            child.kill()
            child.wait()


def show_equal(measured: dict[str, list[dict[str, Any]]]) -> None:
    runs = [run for mode in MODES for run in measured[mode]]
    expected = runs[0]["outputs"]
    worst = max(
        abs(value - want) / max(1e-6, abs(want))
        for run in runs
        for value, want in zip(run["outputs"], expected, strict=True)
    )
    print(f"\nloss and norms of gradients and parameters: equal to {worst:.1e}")
    if worst > 1e-3:
        raise SystemExit("the outputs differ")


def show_gpu_use() -> None:
    """Look at the pool's open files in a separate run, because looking takes time."""
    with start("compilepool") as child:
        pids, openers, looks = set(), set(), 0
        while child.poll() is None:
            for pid in descendants(child.pid):
                if name := name_of(pid):
                    pids.add(pid)
                    looks += 1
                    openers |= {f"{name}: {file}" for file in gpu_files(pid)}
            time.sleep(0.1)
    print(f"GPU: {looks} looks at {len(pids)} processes of the pool, {len(openers)} GPU files open")
    if openers or not pids:
        raise SystemExit(f"the GPU was opened by {openers}")


def name_of(pid: int) -> str:
    """Return the name of a process of a pool; "" for any other process."""
    with contextlib.suppress(OSError):
        name = Path(f"/proc/{pid}/comm").read_text().strip()
        return name if name.startswith("cp-") else ""
    return ""


def gpu_files(pid: int) -> list[str]:
    found = []
    with contextlib.suppress(OSError):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if (target := os.readlink(link)).startswith("/dev/nvidia"):
                    found.append(target)
    return found


def show_crash() -> None:
    with start("crash") as child:
        output, _ = child.communicate()
    print(f"\na kernel whose compiler crashes (exit code {child.returncode}):\n{output}")
    if "SIGSEGV" not in output:
        raise SystemExit("no report of the crash")


def show_left_over() -> None:
    value = uuid.uuid4().hex
    mark = f"{MARK}={value}"
    with start("compilepool", **{MARK: value}) as child:
        # The program, the supervisor, the fork server and three workers.
        while len(pids_with_environment(mark)) < 6:
            if child.poll() is not None:
                raise SystemExit("it ended too soon")
            time.sleep(0.01)
        time.sleep(1)
        before = len(pids_with_environment(mark))
        child.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        while (left := pids_with_environment(mark)) and time.monotonic() < killed + LEFT_S:
            time.sleep(0.001)
        took = time.monotonic() - killed
    print(f"SIGKILL of the program: of {before} processes, {len(left)} are left after {took:.3f} s")
    if left:
        raise SystemExit("something is left")


# The functions below run in the process that compiles.


def run(mode: str) -> None:
    pool = None
    if mode in ("compilepool", "crash"):
        from compilepool.integrations.torch import current_pool, install

        install(**({"initializer": crash_in_backend} if mode == "crash" else {}))
        pool = current_pool()
    import torch

    device = torch.device("cuda")
    watch = Watch(pool)
    torch.manual_seed(0)
    model = make_gpt(torch).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 1000, (8, 129), device=device)
    compiled = torch.compile(model)
    step = torch.compile(optimizer.step)
    loss = compiled(tokens)
    loss.backward()
    norms = [parameter.grad.norm() for parameter in model.parameters()]
    step()
    norms += [parameter.norm() for parameter in model.parameters()]
    torch.cuda.synchronize()
    step_s = since_start()
    outputs = [float(value) for value in (loss, *norms)]
    print(
        json.dumps(
            {
                "ready": watch.ready,
                "step": step_s,
                "kernels": len(watch.kernels),
                "in_workers": watch.in_workers,
                "first": watch.first,
                "ended_at": time.time(),
                "outputs": outputs,
            }
        )
    )


def since_start() -> float:
    return time.time() - float(os.environ[STARTED])


def crash_in_backend() -> None:
    """Run in each worker: let the compiler of one kernel read address 0."""
    import ctypes

    from triton.backends.nvidia.compiler import CUDABackend

    make_cubin = CUDABackend.make_cubin

    def make_cubin_or_crash(self: Any, src: Any, metadata: Any, *args: Any) -> Any:
        if CRASHING in metadata["name"]:
            ctypes.string_at(0)
        return make_cubin(self, src, metadata, *args)

    CUDABackend.make_cubin = make_cubin_or_crash


class Watch:
    """Notes which kernels there are, how many go to workers, and when the pool is ready.

    Args:
        pool: our pool; None: Inductor uses its own.
    """

    def __init__(self, pool: Any) -> None:
        from torch._inductor.async_compile import AsyncCompile

        self.kernels: set[str] = set()
        self.in_workers = 0
        self.ready: float | None = None
        self.first: float | None = None
        self._watch_kernels(AsyncCompile, pool)
        if pool is not None:
            threading.Thread(target=self._wait_ready, args=(pool,), daemon=True).start()

    def _watch_kernels(self, inductor: Any, pool: Any) -> None:
        triton, use_process_pool = inductor.triton, inductor.use_process_pool.__func__

        def watched_triton(own: Any, name: str, source: str, *args: Any, **kwargs: Any) -> Any:
            if not self.kernels:
                self.first = since_start()
            self.kernels.add(source)
            return triton(own, name, source, *args, **kwargs)

        def watched_use(cls: Any) -> bool:
            is_new = cls._ready_future is None
            is_used = bool(use_process_pool(cls))
            if is_new and cls._ready_future is not None:
                if pool is None:
                    cls._ready_future.add_done_callback(self._note_ready)
                self._count_jobs(cls.process_pool())
            return is_used

        inductor.triton = watched_triton
        inductor.use_process_pool = classmethod(watched_use)

    def _wait_ready(self, pool: Any) -> None:
        pool.wait_ready()
        self._note_ready(None)

    def _note_ready(self, _future: object) -> None:
        if self.ready is None:
            self.ready = since_start()

    def _count_jobs(self, pool: Any) -> None:
        submit: Callable[..., Any] = pool.submit

        def counted(function: Any, *args: Any, **kwargs: Any) -> Any:
            self.in_workers += getattr(function, "__name__", "") == "_worker_compile_triton"
            return submit(function, *args, **kwargs)

        pool.submit = counted


def make_gpt(torch: Any) -> Any:
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self, width: int, next_width: int) -> None:
            super().__init__()
            self.heads = width // 64
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.wider = nn.Linear(width, next_width)

        def forward(self, x: Any) -> Any:
            batch, length, width = x.shape
            qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, 64)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            scores = (q @ k.transpose(-2, -1)) / 8
            mask = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
            attention = scores.masked_fill(mask, float("-inf")).softmax(-1) @ v
            x = x + self.out(attention.transpose(1, 2).reshape(batch, length, width))
            x = x + self.down(functional.gelu(self.up(self.norm2(x))))
            return self.wider(x)

    class Gpt(nn.Module):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(1000, WIDTHS[0])
            self.places = nn.Embedding(128, WIDTHS[0])
            self.blocks = nn.ModuleList(
                Block(width, following)
                for width, following in zip(WIDTHS, (*WIDTHS[1:], WIDTHS[-1]), strict=True)
            )
            self.norm, self.head = nn.LayerNorm(WIDTHS[-1]), nn.Linear(WIDTHS[-1], 1000)

        def forward(self, tokens: Any) -> Any:
            inputs, targets = tokens[:, :-1], tokens[:, 1:]
            x = self.tokens(inputs) + self.places.weight
            for block in self.blocks:
                x = block(x)
            logits = self.head(self.norm(x))
            return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    return Gpt()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
