"""Puts a `CompilePool` in the place of the pool that Inductor would start.

The steps, from `install` to a kernel that compiles:

1. `install` makes an `Installation` (installation.py), which owns the pool of this process. It
   starts a `CompilePool` whose processes are made for Inductor (pool_for_torch.py).
2. `install` makes a `Takeover` (inductor.py), which patches Inductor's class `AsyncCompile`; if
   Inductor is not imported yet, it does so after the import (`any_process/when_imported.py`).
3. Inductor asks the patched class for its pool. The `Installation` answers with a `SubprocPool`
   (../compile_worker/subproc_pool.py) around the `CompilePool`.
4. Inductor submits kernels to the `SubprocPool`. From torch 2.15 on, it may compile Triton kernels
   in threads instead; worker_mode.py says so, or keeps it from doing that.
"""
