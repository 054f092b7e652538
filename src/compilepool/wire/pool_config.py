"""A pool's settings: the client sends them to the other processes when the pool starts."""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import ProtocolError
from compilepool.wire.payloads import INLINE_LIMIT, Payload, Unpacked, pack

_SIZE_LIMIT = 64 * 1024 * 1024  # bytes; more than the kernel allows for a command line, execve(2)


class PoolConfig(NamedTuple):
    """The settings of a pool.

    Attributes:
        max_workers: The most workers that may live at once.
        start_method: "fork" or "spawn".
        preload: The modules to import before the first job.
        python_flags: The client's interpreter flags, for the processes that run user code.
        sys_path: The client's `sys.path`.
        argv: The client's `sys.argv`.
        cwd: The client's working directory; empty if it no longer exists.
        capture: Whether the pool captures the output of jobs.
        log_dir: The folder for a file with the output of each job; empty if none.
        native_tracebacks: Whether a worker that crashes holds still until its stacks are read.
        libdw: The libdw that reads native stacks, as `linux.libdw.find_libdw` found it.
        nice: The number that is added to a worker's niceness.
        cpus: The CPUs that workers may use; empty means those of the client.
        pin_workers: Whether each worker may use only one of `cpus`.
        min_workers: The number of workers that stay when there are no jobs.
        idle_timeout_s: The seconds without a job after which a worker ends; None means never.
        max_jobs_per_worker: The number of jobs after which a worker is replaced; None means never.
        max_worker_memory: The bytes of private memory above which a worker is replaced; None means
            never.
        log_level: The lowest `Level` of log messages that the client wants.
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

    def payload(self, *, inline_limit: int = INLINE_LIMIT) -> Payload:
        """This configuration as a payload, of any length; see `payloads.pack`."""
        import json  # not at the top: the supervisor is on its way when the client gets here

        return pack([[json.dumps(self._asdict()).encode()]], inline_limit=inline_limit)

    @classmethod
    def of_payload(cls, payload: Payload) -> PoolConfig:
        """The configuration in a payload, which is closed.

        Raises:
            ProtocolError: there is none.
        """
        import json

        with Unpacked(payload) as unpacked:
            # It may be a memfd of any size, with nothing in it.
            data = b"" if unpacked.stream_size > _SIZE_LIMIT else bytes(unpacked.stream)
        try:
            fields: dict[str, Any] = json.loads(data)
            config = cls(**{**fields, "cpus": tuple(fields["cpus"])})
        except (ValueError, TypeError, KeyError, RecursionError):
            raise ProtocolError("not a pool configuration") from None
        if not config._is_valid():
            raise ProtocolError("a pool configuration with wrong values")
        return config

    def _is_valid(self) -> bool:
        names = (self.preload, self.python_flags, self.sys_path)
        texts = (self.cwd, self.log_dir, self.libdw)
        flags = (self.capture, self.native_tracebacks, self.pin_workers)
        return (
            isinstance(self.max_workers, int)
            and self.max_workers > 0
            and self.start_method in ("fork", "spawn")
            and all(isinstance(value, list) for value in (*names, self.argv))
            and all(isinstance(name, str) for value in names for name in value)
            and all(isinstance(text, str) for text in texts)
            and all(isinstance(flag, bool) for flag in flags)
            and isinstance(self.nice, int)
            and all(isinstance(cpu, int) for cpu in self.cpus)
            and isinstance(self.min_workers, int)
            and isinstance(self.idle_timeout_s, int | float | None)
            and isinstance(self.max_jobs_per_worker, int | None)
            and isinstance(self.max_worker_memory, int | None)
            and isinstance(self.log_level, int)
        )
