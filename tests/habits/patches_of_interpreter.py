"""What programs do to the interpreter: hooks, garbage, limits, tracing."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import locale
import multiprocessing
import sys
import threading
import tracemalloc
import warnings
from types import FrameType
from typing import Any, NoReturn

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit


def _fail(*_: object) -> NoReturn:
    raise RuntimeError("mine")


@kit_habit("early", says=(".*",))
def has_bad_hooks(kit: Kit) -> None:
    """What they say is theirs, so nothing is expected of error output."""
    sys.excepthook = _fail
    threading.excepthook = _fail
    sys.unraisablehook = _fail


@kit_habit("early", group="gc")
def collects_no_garbage(kit: Kit) -> None:
    gc.disable()
    gc.freeze()


@kit_habit("early", group="gc")
def collects_garbage_all_the_time(kit: Kit) -> None:
    gc.set_threshold(3, 2, 2)


@kit_habit("busy")
def collects_garbage_in_a_thread(kit: Kit) -> None:
    def collect() -> None:
        for _ in range(30):
            gc.collect()

    thread = threading.Thread(target=collect)
    thread.start()
    kit.at_last.append(thread.join)


@kit_habit("early", allows=("PoolClosed", "SerializationError"))  # within the import of cloudpickle
def submits_while_garbage_is_collected(kit: Kit) -> None:
    def submit(phase: str, _: dict[str, Any]) -> None:
        if phase == "stop" and kit.pools and len(kit.futures) < 40:
            kit.submit("adds", "collector")

    gc.callbacks.append(submit)


@kit_habit("early", allows=("RecursionError",))
def recurses_little(kit: Kit) -> None:
    sys.setrecursionlimit(150)


@kit_habit("early")
def recurses_much(kit: Kit) -> None:
    sys.setrecursionlimit(1_000_000)


@kit_habit("early")
def switches_threads_all_the_time(kit: Kit) -> None:
    sys.setswitchinterval(1e-6)


@kit_habit("early")
def never_switches_threads(kit: Kit) -> None:
    sys.setswitchinterval(1.0)


@kit_habit("early")
def makes_warnings_errors(kit: Kit) -> None:
    warnings.simplefilter("error")


@kit_habit("early")
def traces_memory(kit: Kit) -> None:
    tracemalloc.start(5)


@kit_habit("early")
def traces_calls(kit: Kit) -> None:
    def trace(_: FrameType, __: str, ___: Any) -> Any:
        return trace

    sys.settrace(trace)
    threading.settrace(trace)


@kit_habit("early")
def profiles_calls(kit: Kit) -> None:
    def profile(_: FrameType, __: str, ___: Any) -> None:
        pass

    sys.setprofile(profile)
    threading.setprofile(profile)


@kit_habit("early")
def audits(kit: Kit) -> None:
    sys.addaudithook(lambda *_: None)


@kit_habit("early")
def has_small_stacks(kit: Kit) -> None:
    threading.stack_size(64 * 1024)


@kit_habit("early")
def sets_its_locale(kit: Kit) -> None:
    locale.setlocale(locale.LC_ALL, "C")


@kit_habit("early")
def spawns_elsewhere(kit: Kit) -> None:
    multiprocessing.set_start_method("spawn", force=True)


@kit_habit("early", group="asyncio")
def has_an_event_loop(kit: Kit) -> None:
    """A loop of its own, set and never run."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)

    def close() -> None:
        with contextlib.suppress(OSError, ValueError):  # its descriptors are closed
            loop.close()

    kit.at_last.append(close)


class Importer:
    """A finder that has something against new modules."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name.startswith(("numpy", "rich", "torch")):
            raise ImportError(f"no {name} here")


@kit_habit("early")
def has_an_importer(kit: Kit) -> None:
    sys.meta_path.insert(0, Importer())
    sys.path_importer_cache.clear()


@kit_habit("early")
def writes_no_bytecode(kit: Kit) -> None:
    sys.dont_write_bytecode = True
