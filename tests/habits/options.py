"""How a program makes its pool."""

from __future__ import annotations

import os
import sys

from tests.habits.habit import kit_habit
from tests.habits.kit import Kit


def initialize(text: str) -> None:
    os.environ["INITIALIZED"] = text


@kit_habit("options")
def spawns(kit: Kit) -> None:
    kit.options["start_method"] = "spawn"


@kit_habit("options")
def preloads(kit: Kit) -> None:
    kit.options["preload"] = ["json", "decimal"]


@kit_habit("options", says=(".*leaves_a_thread.*",))
def preloads_threads(kit: Kit) -> None:
    """Its preload starts a thread, so workers cannot be forked."""
    (kit.directory / "leaves_a_thread.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    sys.path.append(str(kit.directory))
    kit.options["preload"] = ["leaves_a_thread"]


@kit_habit("options")
def initializes(kit: Kit) -> None:
    kit.options.update(initializer=initialize, initargs=("yes",))


@kit_habit("options", group="workers")
def has_one_worker(kit: Kit) -> None:
    kit.options["max_workers"] = 1


@kit_habit("options", group="workers")
def has_many_workers(kit: Kit) -> None:
    kit.options["max_workers"] = 5


@kit_habit("options")
def goes_idle_at_once(kit: Kit) -> None:
    kit.options["idle_timeout"] = 0.05


@kit_habit("options")
def recycles(kit: Kit) -> None:
    kit.options["max_jobs_per_worker"] = 1


@kit_habit("options")
def recycles_by_memory(kit: Kit) -> None:
    kit.options["max_worker_memory"] = "8MiB"


@kit_habit("options")
def limits(kit: Kit) -> None:
    kit.options.update(timeout=60, memory_limit="2GiB")


@kit_habit("options")
def traces(kit: Kit) -> None:
    kit.options["trace"] = kit.directory / "trace.json"


@kit_habit("options")
def logs(kit: Kit) -> None:
    kit.options["log_dir"] = kit.directory / "logs"


@kit_habit("options")
def keeps_no_crashes(kit: Kit) -> None:
    kit.options["keep_crashes"] = False


@kit_habit("options")
def needs_no_native_stacks(kit: Kit) -> None:
    kit.options["native_tracebacks"] = False


@kit_habit("options", group="workers")
def keeps_workers(kit: Kit) -> None:
    kit.options["min_workers"] = 2


@kit_habit("options")
def sets_variables(kit: Kit) -> None:
    kit.options["env"] = {"OTHER": "1", "LANG": None}


@kit_habit("options")
def is_nice(kit: Kit) -> None:
    kit.options.update(nice=3, pin_workers=True)


@kit_habit("made")
def warms_up(kit: Kit) -> None:
    for pool in kit.pools:
        pool.warm_up()


@kit_habit("made")
def waits_until_ready(kit: Kit) -> None:
    for pool in kit.pools:
        pool.wait_ready(30)


@kit_habit("busy")
def quiesces(kit: Kit) -> None:
    kit.cancel_endless()
    for pool in kit.pools:
        pool.quiesce()


@kit_habit("busy")
def reloads(kit: Kit) -> None:
    for pool in kit.pools:
        pool.reload()


@kit_habit("busy")
def looks_at_statistics(kit: Kit) -> None:
    for pool in kit.pools:
        pool.stats()


@kit_habit("busy")
def dumps(kit: Kit) -> None:
    """Looks at what runs, whatever that is at the time."""
    for future in list(kit.futures.values()):
        for pool in kit.pools:
            try:
                pool.dump(future, timeout=5)
            except (ValueError, TimeoutError):
                continue


@kit_habit("busy", allows=("CancelledError",))
def cancels_everything(kit: Kit) -> None:
    for future in list(kit.futures.values()):
        future.cancel()
