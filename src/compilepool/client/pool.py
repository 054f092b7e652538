"""`CompilePool`, the executor: everything that a user does with a pool."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Mapping, Sequence

from compilepool.client.configured_pool import ConfiguredPool
from compilepool.client.future import CompileFuture
from compilepool.client.options import AS_THE_POOL, AsThePool, JobOptions, PoolOptions
from compilepool.client.whole_pool import WholePool
from compilepool.errors import UnsupportedPlatform
from compilepool.light_typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    TypeVar,
    lazy_annotations,
)
from compilepool.linux.requirements import KernelTooOld, check_platform

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.client.job_dump import JobDump
    from compilepool.client.session.session import Session
    from compilepool.observe.stats import PoolStats
    from compilepool.wire.serializers import Serializer

T = TypeVar("T")


@lazy_annotations
class CompilePool(WholePool):
    """A pool of worker processes for compilations, as a `concurrent.futures.Executor`.

    A pool can be constructed anywhere, for example at the top of a module. The processes start with
    the first job or with `warm_up`. They take over this process's `sys.path`, working directory and
    environment as they are at that time. In a worker, a pool takes no jobs. A worker that crashes
    fails the job that it runs and no other. No process of the pool, and none that a job starts,
    outlives this process, however it ends.

    As a context manager, the pool waits for all jobs at the end of the block, also after an
    ordinary exception. KeyboardInterrupt, CancelledError and the like end all jobs at once.

    Args:
        max_workers: the number of jobs that may run at once; None: the number of CPUs that this
            process may use, by its affinity and its cgroup's quota.
        preload: names of modules that one process imports before workers are forked from it, so
            that no job pays for the import. They must neither start threads nor open a GPU. If one
            does, the pool logs a warning and works as with "spawn".
        initializer: a function that each worker calls before its first job. If it raises, every job
            that does not run yet and every later job fails with its exception.
        initargs: the arguments of `initializer`.
        start_method: "fork": workers are forked, in milliseconds, from a process that has imported
            `preload`. "spawn": each worker is a new interpreter and imports `preload` itself.
        serializer: pickles calls and results in place of pickle and cloudpickle; see
            `compilepool.wire.serializers.Serializer`. The serializer itself is pickled to the
            workers.
        capture: whether to keep the last 64 KiB that each job and its children write to their
            output and error output, in the future's `record.log` and on every error. False: this
            output goes where this process's output goes.
        log_dir: a folder in which each job that writes anything gets a file with all its output.
        native_tracebacks: whether to hold a crashed worker until its native stacks are read, for up
            to 2 s; other jobs are not held. False: it dies at once, is reported with Python's
            stacks only, and leaves a core file if the limits allow one.
        keep_crashes: whether to keep each job that crashes in a folder that only this user can
            read, for `compilepool crashes` and `compilepool replay`, environment variables
            included.
        timeout: the time that a job may run, in seconds from its start in a worker; None: no limit.
        memory_limit: the memory that a job may take, in bytes or as text such as "4GiB": what it
            adds to its worker, and all memory of the processes that it starts. None: no limit.
        nice: the increment of the workers' niceness over this process's, 0 to 19; see nice(2).
        cpus: the numbers of the CPUs that workers may use; None: those that this process may use.
        pin_workers: whether each worker stays on one of these CPUs.
        env: environment variables of the workers that differ from this process's; None as a value
            unsets a variable. `OMP_NUM_THREADS` and the like default to a fair share of the CPUs,
            unless they are set here or in this process.
        min_workers: the number of workers that start with the first job and stay when idle.
        idle_timeout: the time without a job, in seconds, after which a worker beyond `min_workers`
            ends; when no worker is left, the pool quiesces. None: never.
        max_jobs_per_worker: the number of jobs after which a worker is replaced, by a successor
            that has started by then. None: no limit.
        max_worker_memory: the memory that a worker shares with no other, in bytes or as text,
            beyond which it is replaced between jobs, also by a started successor. None: no limit.
        progress: whether to show on error output, if it is a terminal, how many jobs are done and
            which run; or a `rich.progress.Progress` to show them in.
        trace: the path of a trace file in Chrome's format, to open in https://ui.perfetto.dev. It
            has a track for each worker with jobs and phases. The file is valid JSON after each job,
            even if the program is killed, except in the middle of a write.
        report: the path of an HTML page that is written when the pool has ended: where the time
            went, what the program waited for, which jobs were slow, which failed and why. It is
            made from the trace. Without `trace`, that has the same path with ".json" added.
        resubmit: whether unfinished jobs run again, once, when the supervisor dies. False: they
            fail with `SupervisorDied`; for jobs that must not run twice.
        shared: whether all programs of this user on this node whose pools are alike use the same
            processes, `max_workers` in total. See docs/node_pool.md for what "alike" means. The
            processes outlive this program if others use them. None: as the environment variable
            COMPILEPOOL_SHARED says, "1" or "0"; without it, no.
        linger: how long the processes of a shared pool wait for the next program when the last one
            has ended, in seconds. None: as the variable COMPILEPOOL_LINGER says; without it, 0.
        single_flight: whether jobs with the same function and arguments are interchangeable, so
            that one run serves all that ask for it, in all programs that share the pool. The last
            results are kept for those who ask later.
        seed: makes random numbers reproducible, 0 to 2**64-1: each job starts the generators of
            `random`, `numpy.random` and torch (CPU) from a seed of its own, which depends on this
            and on how many jobs were submitted before. None: each worker starts them from the
            system.

    Raises:
        TypeError, ValueError: an argument is wrong. The message lists all problems.
        SerializationError: `serializer`, `initializer` or `initargs` cannot be pickled.
        OSError: the trace cannot be written.
        UnsupportedPlatform: this is not Linux, or the kernel lacks something that the pool needs.
    """

    _session: Session

    def __init__(
        self,
        max_workers: int | None = None,
        *,
        preload: Sequence[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: Sequence[Any] = (),
        start_method: Literal["fork", "spawn"] = "fork",
        serializer: Serializer | None = None,
        capture: bool = True,
        log_dir: str | os.PathLike[str] | None = None,
        native_tracebacks: bool = True,
        keep_crashes: bool = True,
        timeout: float | None = None,
        memory_limit: int | str | None = None,
        nice: int = 0,
        cpus: Sequence[int] | None = None,
        pin_workers: bool = False,
        env: Mapping[str, str | None] | None = None,
        min_workers: int = 0,
        idle_timeout: float | None = None,
        max_jobs_per_worker: int | None = None,
        max_worker_memory: int | str | None = None,
        progress: bool | Progress = False,
        trace: str | os.PathLike[str] | None = None,
        report: str | os.PathLike[str] | None = None,
        resubmit: bool = True,
        seed: int | None = None,
        shared: bool | None = None,
        linger: float | None = None,
        single_flight: bool = False,
    ) -> None:
        options = PoolOptions(
            max_workers=max_workers,
            preload=preload,
            initializer=initializer,
            initargs=initargs,
            start_method=start_method,
            serializer=serializer,
            capture=capture,
            log_dir=log_dir,
            native_tracebacks=native_tracebacks,
            keep_crashes=keep_crashes,
            timeout=timeout,
            memory_limit=memory_limit,
            nice=nice,
            cpus=cpus,
            pin_workers=pin_workers,
            env={} if env is None else env,
            min_workers=min_workers,
            idle_timeout=idle_timeout,
            max_jobs_per_worker=max_jobs_per_worker,
            max_worker_memory=max_worker_memory,
            progress=progress,
            trace=trace,
            report=report,
            resubmit=resubmit,
            seed=seed,
            shared=shared,
            linger=linger,
            single_flight=single_flight,
        )
        options.check()
        try:
            check_platform()
        except KernelTooOld as error:
            raise UnsupportedPlatform(str(error)) from None
        # Not at the top: on other platforms, this module can be imported, and says what is missing.
        from compilepool.client.session.session import Session
        from compilepool.client.terms import terms_of

        self._options = options
        self._default_terms = terms_of(options, JobOptions())
        self._session = Session(options)
        # A pool without references ends after its last job: somebody may hold the job's future.
        end = weakref.finalize(self, self._session.let_go)
        end.atexit = False

    def options(
        self,
        *,
        name: str | None = None,
        timeout: float | AsThePool | None = AS_THE_POOL,
        memory_limit: int | str | AsThePool | None = AS_THE_POOL,
        expected_memory: int | str | None = None,
        retries: int = 0,
        priority: int = 0,
        key: str | None = None,
        env: Mapping[str, str | None] | None = None,
        flight_key: str | None = None,
    ) -> ConfiguredPool:
        """Return a view of this pool that submits jobs with these options.

        Args:
            name: the name of the job in reports; None: the name of its function.
            timeout: the time that the job may run, in seconds; None: no limit. Default: the pool's.
            memory_limit: the memory that the job may take, in bytes or as text; None: no limit.
                Default: the pool's.
            expected_memory: the memory that the job will probably take, in bytes or as text. The
                job starts when that much is available. None: what the last jobs of the same key
                took, or of the same name if it has no key.
            retries: how often the job runs again after its worker was killed from outside, for
                lack of memory, or by what an earlier job left; not after a crash of its own.
            priority: jobs with a higher priority start first.
            key: jobs with the same key count as the same job. After they have crashed their worker
                three times in a row, they fail at once, until `forget` is called.
            env: environment variables that differ for this job; None as a value unsets a variable.
                The worker restores its environment after the job.
            flight_key: jobs with the same flight key and options share one run, whatever their
                arguments are, as with `single_flight`. None: as the pool's `single_flight` says.

        Raises:
            TypeError, ValueError: an option is wrong. The message lists all problems.
        """
        from compilepool.client.terms import terms_of

        env = {} if env is None else env
        options = JobOptions(
            name, timeout, memory_limit, expected_memory, retries, priority, key, env, flight_key
        )
        options.check()
        terms = terms_of(self._options, options)
        return ConfiguredPool(self, self._session, name, terms, flight_key)

    def forget(self, key: str) -> None:
        """Let the jobs of a key run again after they crashed their workers too often.

        Args:
            key: the key. A key without crashes is ignored.
        """
        self._session.forget(key)

    def warm_up(self) -> None:
        """Start all workers now instead of when jobs need them. Returns at once.

        A job runs as soon as one worker is there. The workers stay until `idle_timeout` or
        `quiesce`; one that is killed meanwhile is replaced at once.

        Raises:
            PoolClosed: the pool was shut down.
        """
        self._session.warm_up()

    def wakeup(self) -> None:
        """Start all workers: `warm_up` under PyTorch's name for it."""
        self.warm_up()

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Warm the pool up, and wait until all workers have started.

        Args:
            timeout: the longest time to wait, in seconds; None: until they have started or cannot
                start.

        Returns:
            False after `timeout`, or if another thread quiesces the pool meanwhile; otherwise True.

        Raises:
            PoolClosed: the pool was shut down.
            RuntimeError: the caller is a callback of a future, which must not wait for the pool.
            PreloadFailed, WorkerCrashed, SupervisorDied: the workers cannot start.
            Exception: the initializer raised it, so the workers cannot start.
        """
        return self._session.wait_ready(timeout)

    @property
    def max_workers(self) -> int:
        """The number of jobs that may run at once."""
        return self._session.max_workers

    @property
    def ready(self) -> bool:
        """Whether all workers that were asked for have started, and there is at least one."""
        return self._session.processes.warmth.is_warm

    def quiesce(self, *, keep_warm: bool = False) -> None:
        """Let all running and queued jobs end, then end every process but one, which sleeps.

        Returns at once. The next job, `warm_up` or `wakeup` starts the processes again.

        Args:
            keep_warm: whether to keep the fork server, too, with what it has preloaded.
        """
        self._session.processes.quiesce(keep_warm=keep_warm)

    def reload(self) -> None:
        """Import the `preload` modules again, because their files have changed.

        Running jobs go on. All others, queued ones included, run with the new modules. A preload
        that failed is tried again. Environment, `sys.path` and working directory stay the same.
        """
        self._session.processes.reload()

    def stats(self) -> PoolStats:
        """Return counts, durations, workers and memory. Takes about a millisecond per process."""
        return self._session.statistics.stats()

    def dump(self, future: CompileFuture[Any], *, timeout: float = 5.0) -> JobDump:
        """Look at a running job, for example one that seems to hang. The job goes on.

        This works even while C code holds the GIL or all threads wait for each other. The worker
        handles a signal, and each thread is held for less than a millisecond. As with any signal, a
        sleep or poll in C code may return early (EINTR, signal(7)); Python's own functions do not.

        Args:
            future: the future of the job, made by this pool.
            timeout: the longest time to wait for the answer, in seconds. Looking takes at most 2 s.

        Raises:
            ValueError: the future is none of this pool's.
            TimeoutError: no answer came in time.
        """
        return self._session.dumps.dump(future, timeout)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Accept no more jobs, and end all processes when the accepted jobs have ended.

        Args:
            wait: whether to return only when all processes are gone.
            cancel_futures: whether to cancel the jobs that no worker has yet.
        """
        self._session.shutdown(wait=wait, cancel_futures=cancel_futures)

    def terminate_workers(self) -> None:
        """Accept no more jobs, cancel those that wait, and send SIGTERM to all workers.

        Returns at once, as in Python 3.14. SIGTERM ends a worker without at-exit functions, with
        all that its job has started; the job fails with `WorkerCrashed`, and `retries` do not
        apply. If a job or the initializer has set a handler for SIGTERM, that handler decides: a
        job that goes on has its result, and the pool ends after it.
        """
        self._session.shutdown(wait=False, cancel_futures=True)
        self._session.link.terminate_workers()

    def kill_workers(self) -> None:
        """Accept no more jobs, cancel those that wait, and end all processes at once by SIGKILL.

        Running jobs fail with an error that is a `PoolClosed` and a `BrokenProcessPool`. A job that
        has begun only some milliseconds ago may count as waiting. This waits for the end of the
        processes: up to two seconds if one of them is stuck in the kernel.
        """
        self._session.kill_workers()
