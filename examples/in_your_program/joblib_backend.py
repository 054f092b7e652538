"""Run joblib's `Parallel` on a pool, which one crash does not break.

Run: python examples/in_your_program/joblib_backend.py
"""

import ctypes

from joblib import Parallel, delayed, parallel_config, register_parallel_backend
from joblib.parallel import ParallelBackendBase

from compilepool import CompileFuture, CompilePool, WorkerCrashed


class CompilePoolBackend(ParallelBackendBase):
    supports_retrieve_callback = True
    supports_return_generator = True

    def __init__(self, pool, **options):
        super().__init__(**options)
        self.pool = pool
        self.futures = set()

    def effective_n_jobs(self, n_jobs):
        return min(n_jobs, self.pool.max_workers) if n_jobs > 0 else self.pool.max_workers

    def configure(self, n_jobs=1, parallel=None, **_):
        self.parallel = parallel
        return self.effective_n_jobs(n_jobs)

    def submit(self, func, callback=None):
        future = self.pool.options(name="joblib batch").submit(func)
        self.futures.add(future)
        future.add_done_callback(self.futures.discard)
        future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, future: CompileFuture):
        return future.result()

    def abort_everything(self, ensure_ready=True):
        for future in list(self.futures):
            future.cancel()


def compile_kernel(size: int) -> str:
    return f"matmul_{size}" if size != 96 else ctypes.string_at(0)  # stands for a compiler's bug


with CompilePool(2) as pool:
    register_parallel_backend("compilepool", lambda **options: CompilePoolBackend(pool, **options))
    with parallel_config("compilepool", n_jobs=2):
        print(Parallel()(delayed(compile_kernel)(n) for n in (16, 32, 64)))
        print(list(Parallel(return_as="generator")(delayed(compile_kernel)(n) for n in (1, 2))))
        try:
            Parallel()(delayed(compile_kernel)(n) for n in (64, 96, 128))
        except WorkerCrashed as crash:
            print(str(crash).splitlines()[0])
        print(Parallel()(delayed(compile_kernel)(n) for n in (256, 512)))
