"""A server with its model in an engine process, as vLLM has it. Kernels are compiled in parallel.

Run: python examples/in_your_program/serving.py 8000, and then: curl http://127.0.0.1:8000/?64
"""

import http.server
import multiprocessing
import signal
import sys
import threading
from multiprocessing.connection import Connection


def run_engine(requests: Connection) -> None:
    """The engine. The server itself neither imports torch nor has a pool."""
    from compilepool.integrations.torch import install

    install(max_workers=2, timeout=300, memory_limit="4GiB")  # starts while torch is imported
    import torch
    from torch._inductor import config
    from torch._inductor.async_compile import AsyncCompile

    config.cpp_cache_precompile_headers = False  # so few kernels would not earn that back
    device = "cuda" if torch.cuda.is_available() else "cpu"

    @torch.compile(dynamic=False)
    def model(x: torch.Tensor) -> torch.Tensor:
        return (x.relu() @ x).softmax(-1)

    AsyncCompile.wait_pool_ready()
    while True:
        try:
            size = requests.recv()
        except EOFError:  # the server is gone
            return
        requests.send(float(model(torch.ones(size, size, device=device)).sum()))


class Engine:
    """The engine process of this server. If it dies, the next request starts another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._start()

    def _start(self) -> None:
        self._requests, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        # Daemonic: multiprocessing ends it with the server.
        self._process = context.Process(target=run_engine, args=[theirs], daemon=True)
        self._process.start()
        theirs.close()  # else the server would not notice the death of the engine

    def ask(self, size: int) -> float:
        """Run the model. EOFError or OSError: the engine has died."""
        with self._lock:
            if not self._process.is_alive():
                self._start()
            self._requests.send(size)
            answer: float = self._requests.recv()
            return answer


class Handler(http.server.BaseHTTPRequestHandler):
    engine: Engine

    def do_GET(self) -> None:
        try:
            status, text = 200, f"{self.engine.ask(int(self.path.partition('?')[2])):.3f}"
        except (EOFError, OSError):
            status, text = 503, "the engine has died; ask again"
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log no requests."""


if __name__ == "__main__":
    # SIGTERM ends this program by an exception, so that multiprocessing ends the engine.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    Handler.engine = Engine()
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
