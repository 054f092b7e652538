"""The preload module of a pool for PyTorch: the fork server loads once what each kernel needs.

torch's own sidecar does the same (torch/_inductor/compile_worker/__main__.py), with one exception:
it opens a GPU to read the properties of the devices before it forks (`caching_device_properties`).
No process of a `CompilePool` does, because the source of a kernel has the properties that it needs.
"""

from __future__ import annotations

import threading

from compilepool.integrations.torch.worker.redirection import redirect_output
from compilepool.linux.spawn import is_pool_process


def _load() -> None:
    from compilepool.integrations.torch.worker import compile_job, hooks

    # In a thread, since it hashes Triton's library of 500 MB, mostly without the GIL.
    triton_key = threading.Thread(target=hooks.find_triton_key())
    triton_key.start()
    with compile_job.cuda_said_to_be(False):  # no worker relies on this answer
        import torch._inductor.codecache
        import torch._inductor.runtime.benchmarking
        import torch._inductor.runtime.compile_tasks
        import torch._inductor.runtime.triton_heuristics

    torch._inductor.codecache.torch_key()
    hooks.be_a_worker()
    triton_key.join()  # a process with several threads must not fork


if is_pool_process():  # elsewhere, importing this module has no effect
    redirect_output()  # first, because torch prints at its import
    _load()
