"""`Timer`, as torch/_inductor/compile_worker/timer.py has it."""

from compilepool.timer import Timer

__all__ = ["Timer"]
