"""Nothing outlives the program: whoever is killed, all that was below it dies with it."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from tests.proc import is_alive, pool_process, pool_processes
from tests.programs.running import Doomed, Program, family_of

START_METHODS = ["fork", "spawn"]

ENDS_OF_THE_CLIENT = {
    "client": ("client",),
    "client, then supervisor": ("client", "supervisor"),
    "supervisor, then client": ("supervisor", "client"),
    "client, then fork server": ("client", "fork server"),
    "fork server, then client": ("fork server", "client"),
    "client, then all workers": ("client", "worker"),
}


class Client:
    """The program `client.py`, its jobs running, and one worker idle."""

    def __init__(self, program: Program, jobs: int) -> None:
        self.program = program
        self.bystander = int(program.read_line().removeprefix("bystander "))
        self.workers: dict[int, int] = self.ready(jobs)
        """The pid of the worker of each job."""
        self.work()

    def ready(self, jobs: int) -> dict[int, int]:
        """Wait until so many jobs run."""
        workers = {}
        for _ in range(jobs):
            word, index, pid = self.program.read_line().split()
            assert word == "ready"
            workers[int(index)] = int(pid)
        assert len(workers) == jobs
        return workers

    def work(self) -> None:
        """See that the pool takes a job, and gives its result."""
        assert self.program.ask("work").startswith("worked ")

    def pids(self, kinds: Iterable[str]) -> list[int]:
        """The pids of its processes of these kinds."""
        pids = []
        for kind in kinds:
            pids += [self.program.pid] if kind == "client" else self._of_pool(kind)
        return pids

    def descendants(self) -> list[int]:
        """All that must die with it: what is below it, but for the bystander."""
        return [pid for pid in family_of(self.program.pid) if pid != self.bystander]

    def _of_pool(self, kind: str) -> list[int]:
        return pool_processes(kind, of=self.program.pid)


@contextmanager
def running(start_method: str, job: str = "family", jobs: int = 2) -> Iterator[Client]:
    with Program("client.py", start_method, job, str(jobs)) as program:
        client = Client(program, jobs)
        with Doomed([client.bystander]) as bystander:
            try:
                yield client
            finally:
                survives = bystander.alive()
                bystander.kill()
        assert survives, "a process that is none of the pool's was killed"


def test_the_client_has_the_processes_that_the_tests_below_want_dead() -> None:
    with running("fork") as client:
        # Client, supervisor, fork server, three workers; and of each of the two jobs: three shells
        # with two children each.
        assert len(client.descendants()) == 6 + 2 * 9
        assert len(client.pids(["worker"])) == 3


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("victims", ENDS_OF_THE_CLIENT)
def test_everything_dies_with_the_client(start_method: str, victims: str) -> None:
    with (
        running(start_method) as client,
        Doomed(client.descendants()) as all_of_it,
        Doomed(client.pids(ENDS_OF_THE_CLIENT[victims])) as killed,
    ):
        killed.kill()
        assert all_of_it.wait(), f"left behind: {family_of(all_of_it.alive()[0])}"
        assert not all_of_it.alive()
        client.program.rest()  # returns when nobody has the output open


@pytest.mark.parametrize("step", ["client", "worker", "fork server"])
def test_the_supervisor_may_be_killed_at_any_step_of_its_end(step: str) -> None:
    with (
        running("fork") as client,
        Doomed(client.descendants()) as all_of_it,
        Doomed(client.pids([step])) as first,
        Doomed(client.pids(["supervisor"])) as supervisor,
    ):
        client.program.kill()
        assert first.wait()
        supervisor.kill()
        assert all_of_it.wait(), f"left behind: {family_of(all_of_it.alive()[0])}"
        assert not all_of_it.alive()


@pytest.mark.parametrize("start_method", START_METHODS)
@pytest.mark.parametrize("victim", ["supervisor", "fork server"])
def test_everything_below_a_killed_process_dies_and_its_jobs_are_run_again(
    start_method: str, victim: str
) -> None:
    with running(start_method) as client:
        pid = pool_process(victim, of=client.program.pid)
        with Doomed(family_of(pid)) as below, Doomed([pid]) as killed:
            assert len(below) > 3 + 2 * 9
            killed.kill()
            assert below.wait()
            assert not below.alive()
            again = client.ready(2)
            assert not set(again.values()) & set(client.workers.values())
            client.work()


@pytest.mark.parametrize("start_method", START_METHODS)
def test_everything_below_a_killed_worker_dies_and_nothing_else(start_method: str) -> None:
    with (
        running(start_method) as client,
        Doomed([client.workers[0]]) as killed,
        Doomed(family_of(client.workers[0])) as below,
        Doomed(family_of(client.workers[1])) as others,
    ):
        assert len(below) == len(others) == 1 + 9
        killed.kill()
        assert below.wait()
        assert not below.alive()
        assert client.program.ask("outcome 0") == "outcome WorkerCrashed"
        client.work()
        assert len(others.alive()) == len(others)


@pytest.mark.parametrize("start_method", START_METHODS)
def test_everything_below_all_workers_dies_when_they_are_killed(start_method: str) -> None:
    with running(start_method) as client:
        workers = client.pids(["worker"])
        families = [pid for worker in workers for pid in family_of(worker)]
        with Doomed(workers) as killed, Doomed(families) as below:
            assert len(below) == 3 + 2 * 9
            killed.kill()
            assert below.wait()
            assert not below.alive()
        assert client.program.ask("outcome 0") == "outcome WorkerCrashed"
        assert client.program.ask("outcome 1") == "outcome WorkerCrashed"
        client.work()


@pytest.mark.parametrize("fork", ["fork", "raw_fork"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_children_that_the_client_forked_do_not_keep_the_pool_alive(
    start_method: str, fork: str
) -> None:
    with running(start_method) as client:
        children = [int(client.program.ask(fork).removeprefix("forked ")) for _ in range(2)]
        doomed = set(client.descendants()) - set(children)
        with Doomed(children) as forked, Doomed(doomed) as pool:
            client.program.kill()
            assert pool.wait()
            assert not pool.alive()
            assert len(forked.alive()) == 2
            forked.kill()


@pytest.mark.parametrize("fork", ["fork", "raw_fork"])
def test_children_that_the_client_forked_do_not_hold_up_a_shutdown(fork: str) -> None:
    with running("fork") as client:
        child = int(client.program.ask(fork).removeprefix("forked "))
        doomed = set(client.descendants()) - {client.program.pid, child}
        with Doomed([child]) as forked, Doomed(doomed) as pool:
            assert client.program.ask("cancel") == "cancelled True"
            assert client.program.ask("shutdown") == "shut down"
            assert not pool.alive(), "shutdown returned before all of the pool was gone"
            assert forked.alive()
            forked.kill()
            client.program.write("exit\n")
            assert client.program.wait() == 0


@pytest.mark.parametrize("job", ["family", "deaf", "holds_gil"])
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, "exit"])
def test_no_job_outlives_the_client_whatever_ends_it(job: str, end: signal.Signals | str) -> None:
    with running("fork", job) as client, Doomed(client.descendants()) as all_of_it:
        if isinstance(end, signal.Signals):
            client.program.kill(end)
        else:
            client.program.write(f"{end}\n")
        assert all_of_it.wait()
        assert not all_of_it.alive()


@pytest.mark.parametrize("victim", ["client", "supervisor", "fork server", "worker"])
def test_a_job_cannot_escape_by_becoming_another_process_all_the_time(victim: str) -> None:
    with running("fork", "restless", jobs=1) as client:
        with (
            Doomed(client.pids([victim])) as killed,
            Doomed(client.pids(["worker"])) as workers,
        ):
            killed.kill()
            assert killed.wait()
            if victim != "client":
                client.program.kill()
            assert workers.wait()
        # Its pid is not known. But it has the output open, until it is dead.
        client.program.stderr()


@pytest.mark.parametrize("job", ["family", "deaf", "holds_gil"])
@pytest.mark.parametrize("start_method", START_METHODS)
def test_cancelling_ends_a_job_that_hears_nothing_and_all_that_it_started(
    start_method: str, job: str
) -> None:
    with running(start_method, job) as client:
        families = [pid for worker in client.workers.values() for pid in family_of(worker)]
        with Doomed(families) as below:
            assert client.program.ask("cancel") == "cancelled True"
            assert below.wait()
            assert not below.alive()
            client.work()
            assert is_alive(pool_process("fork server", of=client.program.pid))
