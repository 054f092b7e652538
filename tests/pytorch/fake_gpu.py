"""A GPU that is not there: Inductor generates kernels for it and has them compiled; no more.

For machines without one. Nothing can be launched, so what is compiled is never called.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch._inductor.config
from torch._dynamo.device_interface import CudaInterface
from torch._guards import TracingContext, tracing
from torch._inductor.compile_fx import compile_fx
from torch._inductor.fx_passes import joint_graph
from torch._inductor.runtime import triton_helpers
from torch._inductor.runtime.triton_heuristics import CachingAutotuner
from torch._subclasses import FakeTensorMode, fake_tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver

_CAPABILITY = (9, 0)
_PROPERTIES = types.SimpleNamespace(
    name="a fake H100",
    major=_CAPABILITY[0],
    minor=_CAPABILITY[1],
    uuid="0",
    gcnArchName="",
    warp_size=32,
    multi_processor_count=132,
    max_threads_per_multi_processor=2048,
    max_threads_per_block=1024,
    regs_per_multiprocessor=65536,
    shared_memory_per_block=48 << 10,
    shared_memory_per_block_optin=227 << 10,
    shared_memory_per_multiprocessor=228 << 10,
    L2_cache_size=50 << 20,
    total_memory=80 << 30,
)


class _Driver:
    """As much of Triton's driver as Inductor asks while it generates code."""

    def __init__(self, index: int) -> None:
        self._index = index

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, _PROPERTIES.warp_size)

    def get_current_device(self) -> int:
        return self._index

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", self._index)

    def get_device_capability(self, _device: int = 0) -> tuple[int, int]:
        return _CAPABILITY


def plug_in(index: int = 0) -> None:
    """From now on, this process has GPUs, and uses that of an index; there is no way back."""
    driver.set_active(_Driver(index))
    torch.version.cuda = "12.8"
    _say(torch.cuda, is_available=True, device_count=index + 1, current_device=index)
    _say(torch.cuda, is_initialized=False)
    _say(torch.cuda, get_device_properties=_PROPERTIES, get_device_capability=_CAPABILITY)
    _say(torch.cuda, get_device_name=_PROPERTIES.name, is_bf16_supported=True, synchronize=None)
    _say(torch.cuda, _lazy_init=None, set_device=None, _exchange_device=index)
    _say(torch.cuda, _maybe_exchange_device=index, is_current_stream_capturing=False)
    _say(torch._C, _cuda_getCurrentRawStream=0)
    for module in (torch.cuda, torch.cuda.random):
        _say(module, get_rng_state=torch.zeros(16, dtype=torch.uint8), set_rng_state=None)
    _say(CudaInterface, is_available=True, device_count=index + 1, current_device=index)
    _say(CudaInterface, get_device_properties=_PROPERTIES, get_compute_capability=90)
    _say(CudaInterface, is_triton_capable=True, raise_if_triton_unavailable=None)
    _say(CudaInterface.Worker, get_device_properties=_PROPERTIES, current_device=index)
    for check in (_triton.has_triton, _triton.has_triton_package):
        check.cache_clear()
    # All of these want to run something on it.
    _say(fake_tensor, init_gpu_context=None)
    _say(CachingAutotuner, _make_launchers=None, _dynamic_scale_rblock=None)
    _say(triton_helpers, set_driver_to_gpu=None)
    _say(joint_graph, lazy_init=None)
    torch._inductor.config.pattern_matcher = False


def compile_for(function: Callable[..., Any], *shapes: Sequence[int]) -> None:
    """Have Inductor compile a function of tensors of these shapes, for the GPU."""
    device = torch.device("cuda", torch.cuda.current_device())
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, tracing(TracingContext(mode)):
        # Autograd would start a thread for the GPU, so it is the CPU that is traced.
        graph = make_fx(function)(*(torch.randn(*shape) for shape in shapes))
        for node in graph.graph.nodes:
            if "device" in node.kwargs:
                node.kwargs = {**node.kwargs, "device": device}
        graph.recompile()
        compile_fx(graph, [torch.randn(*shape, device=device) for shape in shapes])


def _say(owner: Any, **answers: object) -> None:
    """Have functions of a module, or methods of a class, give these answers, whatever is asked."""
    for name, answer in answers.items():
        function = _constant(answer)
        setattr(owner, name, staticmethod(function) if isinstance(owner, type) else function)


def _constant(answer: object) -> Callable[..., object]:
    return lambda *_args, **_kwargs: answer
