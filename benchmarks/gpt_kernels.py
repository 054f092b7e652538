"""Generates Inductor's kernels for blocks of a GPT, on a machine without a GPU."""

from __future__ import annotations

from typing import Any

WIDTH = 256
WIDTHS_FORWARD = (320, 384)


def generate() -> list[tuple[str, str]]:
    """Let Inductor generate the kernels of training steps, and note them instead of compiling them.

    Returns:
        The name and the source of each kernel. After this call, torch is of no other use in this
        process.
    """
    import torch
    from tests.pytorch import fake_gpu
    from torch._inductor.async_compile import AsyncCompile
    from torch._inductor.codecache import CodeCacheFuture

    fake_gpu.plug_in()
    kernels: dict[str, str] = {}

    class Noted(CodeCacheFuture):  # type: ignore[misc] # torch is not typed
        def result(self, timeout: float | None = None) -> Any:
            return None

    def note(_self: Any, name: str, source: str, *_args: Any, **_options: Any) -> Any:
        kernels[source] = name
        return Noted()

    AsyncCompile.triton = note
    x = (4, 128, WIDTH)
    fake_gpu.compile_for(training_step(torch), x, x, *weights(WIDTH))
    for width in WIDTHS_FORWARD:
        fake_gpu.compile_for(block(torch), (4, 128, width), *weights(width))
    return [(name, source) for source, name in kernels.items()]


def weights(width: int) -> list[tuple[int, ...]]:
    return [(width,), (width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]


def block(torch: Any) -> Any:
    functional = torch.nn.functional

    def forward(x: Any, norm: Any, qkv: Any, out: Any, up: Any, down: Any) -> Any:
        batch, length, width = x.shape
        heads = width // 64
        h = functional.layer_norm(x, (width,), norm)
        q, k, v = (h @ qkv).view(batch, length, 3, heads, 64).permute(2, 0, 3, 1, 4)
        attention = ((q @ k.transpose(-2, -1)) / 8).softmax(-1) @ v
        x = x + attention.transpose(1, 2).reshape(batch, length, width) @ out
        x = x + functional.gelu(functional.layer_norm(x, (width,), norm) @ up) @ down
        return functional.log_softmax(x, -1)

    return forward


def training_step(torch: Any) -> Any:
    forward = block(torch)

    def step(gradient: Any, *tensors: Any) -> Any:
        inputs = [tensor.detach().requires_grad_() for tensor in tensors]
        gradients = torch.autograd.grad(forward(*inputs), inputs, gradient)
        return [tensor - 0.1 * g / g.norm() for tensor, g in zip(tensors, gradients, strict=True)]

    return step
