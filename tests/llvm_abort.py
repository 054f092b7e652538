"""A real abort inside LLVM, through Triton: an intrinsic that the target does not have."""

from __future__ import annotations

import tempfile

_MODULE = """
module {
  llvm.func @kernel() {
    %0 = llvm.call_intrinsic "llvm.amdgcn.workgroup.id.x"() : () -> i32
    %1 = llvm.mlir.zero : !llvm.ptr
    llvm.store %0, %1 : i32, !llvm.ptr
    llvm.return
  }
}
"""


def select_for_the_wrong_target() -> None:
    """Have LLVM select instructions for an AMD intrinsic on an NVIDIA target: it aborts."""
    from triton._C.libtriton import ir, llvm, nvidia

    context = ir.context()
    ir.load_dialects(context)
    nvidia.load_dialects(context)
    with tempfile.NamedTemporaryFile("w", suffix=".mlir") as file:
        file.write(_MODULE)
        file.flush()
        module = ir.parse_mlir_module(file.name, context)
    module.context = context
    llvm.init_targets()
    text = str(llvm.to_module(module, llvm.context()))
    llvm.translate_to_asm(text, "nvptx64-nvidia-cuda", "sm_90", "+ptx80", [], False, False)
