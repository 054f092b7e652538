"""The options of a pool and of a job.

They are checked when they are given, so that a wrong one never reaches another process.
"""

from __future__ import annotations

import enum
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from compilepool.light_typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias
from compilepool.text import EXPECTED_SIZE, bytes_of, size_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from compilepool.wire.serializers import Serializer

_FLAGS = (
    "capture",
    "native_tracebacks",
    "keep_crashes",
    "pin_workers",
    "resubmit",
    "single_flight",
)

START_METHODS = ("fork", "spawn")

MIN_MEMORY_LIMIT = 4 << 20
"""The memory of a worker without preload, in bytes. A lower limit is a mistake."""

_LONGEST_S = 1e9  # about thirty years: a longer time is a mistake or means None
_MAX_KEY = 1024  # characters

Env: TypeAlias = Mapping[str, str | None]
Size: TypeAlias = int | str


class AsThePool(enum.Enum):
    """The type of `AS_THE_POOL`, the value of a job's option that is taken over from the pool."""

    token = 0


AS_THE_POOL: Final = AsThePool.token


class PoolOptions(NamedTuple):
    """The options of a pool. `CompilePool` documents each of them."""

    max_workers: int | None
    preload: Sequence[str]
    initializer: Callable[..., object] | None
    initargs: Sequence[Any]
    start_method: str
    serializer: Serializer | None
    capture: bool = True
    log_dir: str | os.PathLike[str] | None = None
    native_tracebacks: bool = True
    keep_crashes: bool = True
    timeout: float | None = None
    memory_limit: Size | None = None
    nice: int = 0
    cpus: Sequence[int] | None = None
    pin_workers: bool = False
    env: Env = MappingProxyType({})
    min_workers: int = 0
    idle_timeout: float | None = None
    max_jobs_per_worker: int | None = None
    max_worker_memory: Size | None = None
    progress: bool | Progress = False
    trace: str | os.PathLike[str] | None = None
    report: str | os.PathLike[str] | None = None
    resubmit: bool = True
    seed: int | None = None
    shared: bool | None = None
    linger: float | None = None
    single_flight: bool = False

    def check(self) -> None:
        """Check all options.

        Raises:
            TypeError: an option has a wrong type. The message lists all problems.
            ValueError: an option has a wrong value. The message lists all problems.
        """
        _raise_all([*self._problems()])

    def _problems(self) -> Iterable[Exception]:
        yield from self._type_problems()
        yield from self._value_problems()
        yield from self._staffing_problems()
        yield from _time_problems("timeout", self.timeout)
        yield from _size_problems("memory_limit", self.memory_limit, MIN_MEMORY_LIMIT)
        yield from _env_problems(self.env)
        yield from self._cpu_problems()
        yield from self._sharing_problems()
        if not (self.seed is None or _is_int(self.seed)):
            yield TypeError(f"seed must be an int or None, not {self.seed!r}")
        elif self.seed is not None and not 0 <= self.seed < 1 << 64:
            yield ValueError(f"seed must be from 0 to 2**64-1, not {self.seed}")

    def _type_problems(self) -> Iterable[Exception]:
        if not (self.max_workers is None or _is_int(self.max_workers)):
            yield TypeError(f"max_workers must be an int or None, not {self.max_workers!r}")
        if not _is_sequence_of_names(self.preload):
            yield TypeError(f"preload must be a list of module names, not {self.preload!r}")
        if not (self.initializer is None or callable(self.initializer)):
            yield TypeError(f"initializer must be callable, not {self.initializer!r}")
        if isinstance(self.initargs, str | bytes) or not isinstance(self.initargs, Sequence):
            yield TypeError(f"initargs must be a tuple, not {self.initargs!r}")
        for flag in (
            "capture",
            "native_tracebacks",
            "keep_crashes",
            "pin_workers",
            "resubmit",
            "single_flight",
        ):
            if not isinstance(getattr(self, flag), bool):
                yield TypeError(f"{flag} must be True or False, not {getattr(self, flag)!r}")
        for path in ("log_dir", "trace", "report"):
            if not isinstance(getattr(self, path), str | os.PathLike | None):
                yield TypeError(f"{path} must be a path or None, not {getattr(self, path)!r}")
        try:
            check_progress(self.progress)
        except TypeError as error:
            yield error
        for method in ("dumps", "loads"):
            is_there = callable(getattr(self.serializer, method, None))
            if self.serializer is not None and not is_there:
                yield TypeError(
                    f"serializer must have a method {method!r}, but {self.serializer!r} has none"
                )

    def _value_problems(self) -> Iterable[Exception]:
        if _is_int(self.max_workers) and self.max_workers is not None and self.max_workers <= 0:
            yield ValueError(f"max_workers must be greater than 0, not {self.max_workers}")
        if _is_sequence_of_names(self.preload):
            for name in self.preload:
                if not _is_module(name):
                    yield ValueError(f"preload names {name!r}, but there is no such module")
        if self.start_method not in START_METHODS:
            yield ValueError(f"start_method must be 'fork' or 'spawn', not {self.start_method!r}")
        if self.log_dir is not None and self.capture is False:
            yield ValueError(
                "log_dir gets the output of jobs only if it is captured, but capture is False"
            )

    def _staffing_problems(self) -> Iterable[Exception]:
        if not _is_int(self.min_workers):
            yield TypeError(f"min_workers must be an int, not {self.min_workers!r}")
        elif self.min_workers < 0:
            yield ValueError(f"min_workers must be 0 or more, not {self.min_workers}")
        elif _is_int(self.max_workers) and self.min_workers > (self.max_workers or math.inf):
            yield ValueError(
                f"min_workers must not be more than max_workers, {self.max_workers}, but it is"
                f" {self.min_workers}"
            )
        most = self.max_jobs_per_worker
        if not (most is None or _is_int(most)):
            yield TypeError(f"max_jobs_per_worker must be an int or None, not {most!r}")
        elif most is not None and most <= 0:
            yield ValueError(f"max_jobs_per_worker must be greater than 0, not {most}")
        yield from _time_problems("idle_timeout", self.idle_timeout)
        yield from _size_problems("max_worker_memory", self.max_worker_memory, MIN_MEMORY_LIMIT)

    def _sharing_problems(self) -> Iterable[Exception]:
        if not isinstance(self.shared, bool | None):
            yield TypeError(f"shared must be True, False or None, not {self.shared!r}")
        if self.shared and self.capture is False:
            yield ValueError(
                "a shared pool must capture the output of jobs: it has no terminal or file of any"
                " client, but capture is False"
            )
        if self.single_flight is True and self.seed is not None:
            yield ValueError(
                "single_flight is for interchangeable jobs, but with a seed each job has random"
                " numbers of its own; leave one of the two out"
            )
        if self.linger is not None:
            if not isinstance(self.linger, int | float) or isinstance(self.linger, bool):
                yield TypeError(f"linger must be a number of seconds or None, not {self.linger!r}")
            elif not 0 <= self.linger <= _LONGEST_S:
                yield ValueError(f"linger must be 0 or more seconds, not {self.linger!r}")

    def _cpu_problems(self) -> Iterable[Exception]:
        if not _is_int(self.nice):
            yield TypeError(f"nice must be an int, not {self.nice!r}")
        elif not 0 <= self.nice <= 19:
            yield ValueError(
                f"nice must be 0 to 19, added to the niceness of this process, not {self.nice}"
            )
        if self.cpus is None:
            return
        are_numbers = isinstance(self.cpus, Sequence) and all(_is_int(cpu) for cpu in self.cpus)
        if not are_numbers:
            yield TypeError(f"cpus must be numbers of CPUs, such as [0, 1], not {self.cpus!r}")
        else:
            # Where this function is missing, the pool itself raises UnsupportedPlatform.
            usable = getattr(os, "sched_getaffinity", lambda _pid: set(self.cpus or ()))(0)
            if not self.cpus or not set(self.cpus) <= usable:
                yield ValueError(
                    f"cpus must be some of those that this process may use, {sorted(usable)}, not"
                    f" {self.cpus!r}"
                )


def check_progress(progress: object) -> None:
    """Check an option `progress`.

    Raises:
        TypeError: it is neither a bool nor a `rich.progress.Progress`.
    """
    if isinstance(progress, bool):
        return
    from rich.progress import Progress

    if not isinstance(progress, Progress):
        raise TypeError(
            f"progress must be True, False or a rich.progress.Progress, not {progress!r}"
        )


class JobOptions(NamedTuple):
    """The options of a job. `CompilePool.options` documents each of them."""

    name: str | None = None
    timeout: float | AsThePool | None = AS_THE_POOL
    memory_limit: Size | AsThePool | None = AS_THE_POOL
    expected_memory: Size | None = None
    retries: int = 0
    priority: int = 0
    key: str | None = None
    env: Env = MappingProxyType({})
    flight_key: str | None = None

    def check(self) -> None:
        """Check all options.

        Raises:
            TypeError: an option has a wrong type. The message lists all problems.
            ValueError: an option has a wrong value. The message lists all problems.
        """
        _raise_all([*self._problems()])

    def _problems(self) -> Iterable[Exception]:
        if not isinstance(self.name, str | None):
            yield TypeError(f"name must be a str or None, not {self.name!r}")
        yield from _key_problems("key", self.key)
        yield from _key_problems("flight_key", self.flight_key)
        if not _is_int(self.retries):
            yield TypeError(f"retries must be an int, not {self.retries!r}")
        elif self.retries < 0:
            yield ValueError(f"retries must be 0 or more, not {self.retries}")
        if not _is_int(self.priority):
            yield TypeError(f"priority must be an int, not {self.priority!r}")
        if self.timeout is not AS_THE_POOL:
            yield from _time_problems("timeout", self.timeout)
        if self.memory_limit is not AS_THE_POOL:
            yield from _size_problems("memory_limit", self.memory_limit, MIN_MEMORY_LIMIT)
        yield from _size_problems("expected_memory", self.expected_memory)
        yield from _env_problems(self.env)


def _key_problems(name: str, key: object) -> Iterable[Exception]:
    if not isinstance(key, str | None):
        yield TypeError(f"{name} must be a str or None, not {key!r}")
    elif key == "":
        yield ValueError(f"{name} must not be empty; use None for a job without a {name}")
    elif key is not None and len(key) > _MAX_KEY:
        yield ValueError(
            f"{name} must have {_MAX_KEY} characters at most; use a hash of a longer one"
        )


def _time_problems(name: str, value: object) -> Iterable[Exception]:
    if value is None:
        return
    text = f"{name} must be a number of seconds greater than 0, or None, not {value!r}"
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield TypeError(text)
    elif not 0 < value < math.inf or value > _LONGEST_S:
        yield ValueError(text)


def _size_problems(name: str, value: object, least: int = 1) -> Iterable[Exception]:
    if value is None:
        return
    text = f"{name} must be {EXPECTED_SIZE}, or None, not {value!r}"
    try:
        size = bytes_of(value)
    except TypeError:
        yield TypeError(text)
    except ValueError:
        yield ValueError(text)
    else:
        if size < least:
            yield ValueError(
                f"{name} must be {size_text(least)} at least, which an idle worker takes, not"
                f" {value!r}"
            )


def _env_problems(env: object) -> Iterable[Exception]:
    if not isinstance(env, Mapping):
        yield TypeError(f"env must be a dict of environment variables, not {env!r}")
        return
    for name, value in env.items():
        if not isinstance(name, str) or not isinstance(value, str | None):
            yield TypeError(f"env must map a str to a str or None, not {name!r}: {value!r}")
        elif not name or "=" in name or "\0" in name or "\0" in (value or ""):
            yield ValueError(f"env has an entry that no environment can have: {name!r}: {value!r}")
        elif not (_can_be_encoded(name) and _can_be_encoded(value or "")):
            yield ValueError(f"env has an entry that cannot be encoded: {name!r}: {value!r}")


def _can_be_encoded(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return False
    return True


def _raise_all(problems: Sequence[Exception]) -> None:
    """Raise one error with all messages: a TypeError if any problem is one, listed first."""
    ordered = sorted(problems, key=lambda problem: not isinstance(problem, TypeError))
    if ordered:
        raise type(ordered[0])("; ".join(map(str, ordered)))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_sequence_of_names(value: object) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(name, str) for name in value)
    )


def _is_module(name: str) -> bool:
    """Whether the top-level package of `name` can be found. The search imports nothing."""
    import importlib.util

    top = name.partition(".")[0]
    if not all(part.isidentifier() for part in name.split(".")) or top == "__main__":
        return False
    try:
        return importlib.util.find_spec(top) is not None
    except (ImportError, ValueError):  # ValueError: the loaded module has no spec
        return False
