"""What a user of Jupyter does: runs a notebook, or interrupts a cell and kills the kernel.

Arguments: "run" and a notebook, or "interrupt".
"""

import json
import os
import signal
import sys
from typing import Any

import nbformat
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from tests.proc import PATIENCE_S, all_dead, descendants, wait_until

WAITS = """
import os, signal
from compilepool import CompilePool
pool = CompilePool(2)
future = pool.submit(signal.pause)
while not future.running(): pass
print("waits", flush=True)
future.result()
"""


def run(path: str) -> None:
    notebook = nbformat.read(path, 4)
    NotebookClient(notebook, timeout=int(PATIENCE_S)).execute()
    print(json.dumps([cell.get("outputs") for cell in notebook.cells]))


def interrupt() -> None:
    manager, client = start_new_kernel(kernel_name="python3")

    def until(cell: str, kind: str) -> dict[str, Any]:
        """The next message of a cell that is of this kind."""
        while True:
            message = client.get_iopub_msg(timeout=PATIENCE_S)
            if message["parent_header"].get("msg_id") == cell and message["msg_type"] == kind:
                content: dict[str, Any] = message["content"]
                return content

    def printed(code: str) -> str:
        cell = client.execute(code)
        text: str = until(cell, "stream")["text"].strip()
        until(cell, "status")  # idle: earlier, what follows an error would be ignored
        return text

    try:
        waiting = client.execute(WAITS)
        until(waiting, "stream")
        manager.interrupt_kernel()
        print("the cell:", until(waiting, "error")["ename"])
        until(waiting, "status")
        print("the job runs, is cancelled:", printed("print(future.running(), future.cancel())"))
        print("the next job:", printed("print(pool.submit(lambda: 6 * 7).result())"))
        pid = int(printed("future = pool.submit(signal.pause); print(os.getpid())"))
        below = descendants(pid)
        os.kill(pid, signal.SIGKILL)
        print("left of", len(below) > 2, "none:", wait_until(lambda: all_dead(below)))
    finally:
        manager.shutdown_kernel(now=True)


if sys.argv[1] == "run":
    run(sys.argv[2])
else:
    interrupt()
