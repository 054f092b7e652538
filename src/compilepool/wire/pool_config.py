"""A pool's settings: the client sends them to the other processes when the pool starts."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import all_are, check
from compilepool.wire.payloads import INLINE_LIMIT, Payload, pack_json, unpack_json


class PoolConfig(NamedTuple):
    """The settings of a pool.

    Attributes:
        max_workers: the most workers that may live at once.
        start_method: "fork" or "spawn".
        preload: the modules to import before the first job.
        python_flags: the client's interpreter flags, for the processes that run user code.
        sys_path: the client's `sys.path`.
        argv: the client's `sys.argv`.
        main_file: the file of the client's `__main__`; empty if it has none.
        cwd: the client's working directory; empty if it no longer exists.
        capture: whether the pool captures the output of jobs.
        log_dir: the folder for a file with the output of each job; empty if none.
        native_tracebacks: whether a worker that crashes holds still until its stacks are read.
        libdw: the libdw that reads native stacks: a path, or a name for the dynamic linker.
        nice: the number that is added to a worker's niceness.
        cpus: the CPUs that workers may use; empty means the client's CPUs.
        pin_workers: whether each worker may use only one of `cpus`.
        min_workers: the number of workers that stay when there are no jobs.
        idle_timeout_s: the seconds without a job after which a worker ends; None means never.
        max_jobs_per_worker: the number of jobs after which a worker is replaced; None means never.
        max_worker_memory: the bytes of private memory above which a worker is replaced; None means
            never.
        log_level: the lowest `Level` of log messages that the client wants.
        seed: what random number generators start from before jobs, 0 to 2**64-1; None means from
            the system.
        client_pid: the client's PID; 0 if nobody is to be told.
        client_name: the name of the client's process in `multiprocessing`.
        authkey: the client's key of `multiprocessing`, in hexadecimal digits, which is kept in no
            file; empty if the client has not imported `multiprocessing`.
        mp_start_method: the start method that the client has set in `multiprocessing`; empty if
            none.
        is_shared: whether the pool may outlive the program that starts it.
    """

    max_workers: int
    start_method: str
    preload: list[str]
    python_flags: list[str]
    sys_path: list[str]
    argv: list[str]
    cwd: str
    capture: bool
    log_dir: str
    native_tracebacks: bool
    libdw: str
    nice: int = 0
    cpus: tuple[int, ...] = ()
    pin_workers: bool = False
    min_workers: int = 0
    idle_timeout_s: float | None = None
    max_jobs_per_worker: int | None = None
    max_worker_memory: int | None = None
    log_level: int = 0
    main_file: str = ""
    seed: int | None = None
    client_pid: int = 0
    client_name: str = "MainProcess"
    authkey: str = ""
    mp_start_method: str = ""
    is_shared: bool = False

    def payload(self, *, inline_limit: int = INLINE_LIMIT) -> Payload:
        """This configuration as a payload of any length; see `payloads.pack`."""
        return pack_json(self._asdict(), inline_limit=inline_limit)

    @classmethod
    def of_payload(cls, payload: Payload) -> PoolConfig:
        """The configuration in a payload, which is closed.

        Raises:
            ProtocolError: the payload holds no valid configuration.
        """
        return unpack_json(payload, cls._of_fields, "a pool configuration")

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> PoolConfig:
        config = cls(**{**fields, "cpus": tuple(fields["cpus"])})
        lists = (config.preload, config.python_flags, config.sys_path, config.argv)
        limits = (config.max_jobs_per_worker, config.max_worker_memory)
        check(
            isinstance(config.max_workers, int)
            and config.max_workers > 0
            and config.start_method in ("fork", "spawn")
            and all_are(list, *lists)
            and all(all_are(str, *texts) for texts in lists)
            and all_are(str, config.cwd, config.log_dir, config.libdw, config.main_file)
            and all_are(str, config.client_name, config.authkey, config.mp_start_method)
            and all_are(bool, config.capture, config.native_tracebacks, config.pin_workers)
            and isinstance(config.is_shared, bool)
            and all_are(int, config.nice, config.min_workers, config.log_level, *config.cpus)
            and isinstance(config.idle_timeout_s, int | float | None)
            and all_are(int | None, config.seed, *limits)
            and isinstance(config.client_pid, int)
        )
        return config
