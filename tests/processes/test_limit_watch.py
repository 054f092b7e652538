"""The watch over jobs with limits, without a pool."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from compilepool.supervisor.links.loop import Loop
from compilepool.supervisor.links.worker import WorkerLink
from compilepool.supervisor.watch.evidence import Verdict
from compilepool.supervisor.watch.limits import LimitWatch
from compilepool.wire.failure import Cause
from compilepool.wire.status_page import StatusPage
from compilepool.wire.submission import JobTerms

JOB = 7
TERMS = JobTerms(timeout_s=0.001)


@pytest.fixture
def link() -> Iterator[WorkerLink]:
    """Of a worker that does not exist yet."""
    with contextlib.closing(WorkerLink(1, None, lambda _: None)) as link:
        yield link


class Watched:
    """A watch, and what it has found."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.found: list[tuple[int, Verdict]] = []
        self.watch = LimitWatch(self.loop, lambda _, job, why: self.found.append((job, why)))

    def run(self, seconds: float) -> None:
        """Let so much time pass."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.loop.run_once(left)


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    yield watched
    watched.loop._epoll.close()


def begin(link: WorkerLink, job: int) -> None:
    page = StatusPage(link.fds.status)
    page.begin(job)
    page.ended.release()
    page._page.close()


def test_a_worker_that_is_heard_of_before_it_is_known_to_exist_is_watched_all_the_same(
    link: WorkerLink, watched: Watched
) -> None:
    begin(link, JOB)
    watched.watch.watch(link, JOB, TERMS)
    watched.run(0.1)
    assert watched.found == []
    process = subprocess.Popen(["sleep", "100"])
    try:
        link.started(process.pid, os.pidfd_open(process.pid))
        watched.run(0.1)
        ((job, verdict),) = watched.found
        assert (job, verdict.cause, verdict.limit) == (JOB, Cause.TIMEOUT, TERMS.timeout_s)
        watched.run(0.1)
        assert len(watched.found) == 1
    finally:
        process.kill()
        process.wait()


def test_the_time_of_a_job_that_has_not_begun_does_not_run(
    link: WorkerLink, watched: Watched
) -> None:
    process = subprocess.Popen(["sleep", "100"])
    try:
        link.started(process.pid, os.pidfd_open(process.pid))
        begin(link, JOB - 1)
        watched.watch.watch(link, JOB, TERMS)
        watched.run(0.1)
        assert watched.found == []
        begin(link, JOB)
        watched.run(0.1)
        assert [job for job, _ in watched.found] == [JOB]
    finally:
        process.kill()
        process.wait()


def test_a_job_that_has_ended_is_watched_no_more(link: WorkerLink, watched: Watched) -> None:
    begin(link, JOB)
    watched.watch.watch(link, JOB, TERMS)
    watched.watch.forget(link.number)
    watched.run(0.1)
    assert watched.found == []
    assert not watched.watch._watched
