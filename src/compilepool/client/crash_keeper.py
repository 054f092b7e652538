"""Makes a crash folder of a job, and the error that names it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from compilepool.client import failures
from compilepool.client.jobs import Job
from compilepool.errors import CompilePoolError
from compilepool.wire.failure import Failure, describe
from compilepool.wire.payloads import Payload

if TYPE_CHECKING:
    from compilepool.client.launcher import Snapshot


class CrashKeeper:
    """Keeps the crashed jobs of one pool.

    Args:
        snapshot: what the pool's processes are made like.
        startup: what its workers start with; None if nothing.
    """

    def __init__(self, snapshot: Snapshot, startup: Payload | None) -> None:
        self._snapshot = snapshot
        self._startup = startup

    def keep(self, job: Job, failure: Failure) -> CompilePoolError:
        """Make the crash folder of a job, whose payload must be open. Takes as long as the disk.

        Returns:
            The job's error, which names the folder, or says why there is none.
        """
        from compilepool.client.crash_folder import CrashedJob, keep

        log = job.future.record.log
        error = failures.error_of(failure, job.name, log)
        facts = {**dataclasses.asdict(failure), **error.__dict__, "message": str(error)}
        report = {key: value for key, value in facts.items() if key not in ("text", "folder")}
        crashed = CrashedJob(
            job.name,
            job.payload,
            self._startup,
            self._snapshot.config,
            self._snapshot.env,
            report,
            failures.report_text(error),
        )
        try:
            folder = str(keep(crashed))
        except Exception as reason:  # noqa: BLE001 - whatever it is, the job must end
            unkept = f"its crash folder could not be written: {describe(reason)}"
            return failures.error_of(failure, job.name, log, unkept=unkept)
        return failures.error_of(failure, job.name, log, folder=folder)
