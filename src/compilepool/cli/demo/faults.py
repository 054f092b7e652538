"""The bad jobs: each fails in its own way, and must not disturb any other job."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import tempfile
from collections.abc import Callable
from typing import NoReturn


def segfault() -> NoReturn:
    """Crash as a faulty compiler pass does: read address 0."""
    ctypes.string_at(0)
    raise AssertionError("address 0 could be read")


_MODULE_OF_ANOTHER_TARGET = """
module {
  llvm.func @kernel() {
    %0 = llvm.call_intrinsic "llvm.amdgcn.workgroup.id.x"() : () -> i32
    %1 = llvm.mlir.zero : !llvm.ptr
    llvm.store %0, %1 : i32, !llvm.ptr
    llvm.return
  }
}
"""


def abort_in_llvm() -> NoReturn:
    """Make Triton's LLVM abort: an intrinsic of AMD GPUs cannot be selected for an NVIDIA GPU."""
    from triton._C.libtriton import ir, llvm, nvidia

    context = ir.context()
    ir.load_dialects(context)
    nvidia.load_dialects(context)
    with tempfile.NamedTemporaryFile("w", suffix=".mlir") as file:
        file.write(_MODULE_OF_ANOTHER_TARGET)
        file.flush()
        module = ir.parse_mlir_module(file.name, context)
    module.context = context
    llvm.init_targets()
    text = str(llvm.to_module(module, llvm.context()))
    llvm.translate_to_asm(text, "nvptx64-nvidia-cuda", "sm_90", "+ptx80", [], False, False)
    raise AssertionError("LLVM has an AMD intrinsic for NVIDIA")


def raise_error() -> NoReturn:
    """Fail as a compiler that rejects its input.

    Raises:
        ValueError: always.
    """
    raise ValueError("bad job")


def exit_abruptly() -> NoReturn:
    """End the whole process, as a library that calls `exit` on an error."""
    os._exit(3)


@dataclasses.dataclass(frozen=True)
class Fault:
    """A bad job.

    Attributes:
        name: the name of the job.
        run: the function that the job calls.
        outcome: the expected outcome, in the words of `compilepool.cli.demo.jobs.outcome_of`.
    """

    name: str
    run: Callable[[], NoReturn]
    outcome: str


FAULTS = (
    Fault("bad_job_segfaults", segfault, "crashed: SIGSEGV"),
    Fault("bad_job_aborts_in_llvm", abort_in_llvm, "crashed: SIGABRT"),
    Fault("bad_job_raises", raise_error, "raised ValueError: bad job"),
    Fault("bad_job_exits", exit_abruptly, "exited with code 3"),
)
