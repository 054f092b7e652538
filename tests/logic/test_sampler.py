"""Who looks at a pool while it has jobs, and once more when it has none."""

from __future__ import annotations

import threading
import time

from compilepool import JobRecord
from compilepool.observe.observer import Sample
from compilepool.observe.sampler import Sampler
from compilepool.observe.stats import Memory
from tests.proc import PATIENCE_S


class Consumer:
    """Is told of jobs, of which the last one ends while it is told."""

    def __init__(self) -> None:
        self.sampler: Sampler | None = None
        self.unfinished = 1
        self.seen: list[int] = []
        self.has_seen_none = threading.Event()

    def look(self) -> Sample:
        return Sample(time.monotonic(), self.unfinished, 0, [], Memory)

    def sample(self, sample: Sample) -> None:
        self.seen.append(sample.unfinished)
        if not sample.unfinished:
            self.has_seen_none.set()
        elif self.sampler is not None:
            self.unfinished = 0
            self.sampler.ended(1, "job", JobRecord(), None, cancelled=False)

    def close(self) -> None:
        pass

    def abandon(self) -> None:
        pass


def test_the_last_look_finds_no_job_also_when_the_last_one_ends_during_a_look() -> None:
    consumer = Consumer()
    sampler = consumer.sampler = Sampler(consumer.look, [consumer], 0.01)
    sampler.submitted(1, "job")
    assert consumer.has_seen_none.wait(PATIENCE_S)
    sampler.close()
    assert consumer.seen == [1, 0]
