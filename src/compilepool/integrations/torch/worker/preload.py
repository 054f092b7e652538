"""The preload module of a pool for PyTorch: what a kernel needs, loaded once, in the fork server.

As the reference does (torch/_inductor/compile_worker/__main__.py), but for what opens a GPU there:
it looks at the devices before it forks (`caching_device_properties`). Kernels bring what they need
to know of the device in their source, so here nobody looks, in the workers neither.
"""

from __future__ import annotations

import threading

from compilepool.integrations.torch.worker.redirection import redirect_output
from compilepool.linux.spawn import is_pool_process


def _load() -> None:
    from compilepool.integrations.torch.worker import compile_job as gpu
    from compilepool.integrations.torch.worker import hooks

    # It hashes Triton's library, of 500 MB, mostly without the GIL.
    triton_key = threading.Thread(target=hooks.find_triton_key())
    triton_key.start()
    with gpu.cuda_said_to_be(False):  # nothing that a worker does goes by that
        import torch._inductor.codecache
        import torch._inductor.runtime.benchmarking
        import torch._inductor.runtime.compile_tasks
        import torch._inductor.runtime.triton_heuristics

    torch._inductor.codecache.torch_key()
    hooks.be_a_worker()
    triton_key.join()  # a process that has threads cannot be forked


if is_pool_process():  # else nobody wants what this does
    redirect_output()  # before torch, which has things to say when it is imported
    _load()
