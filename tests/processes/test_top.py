"""`compilepool top` sees every pool of its user, and does to it what it is told."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from compilepool.client.connection import visits
from compilepool.wire.meeting_place import MeetingPlace
from compilepool.wire.messages import Kind, Message, encode
from tests.pools_seen import Seen
from tests.proc import wait_until
from tests.processes.guests import guests, joining_packet, pidfd_of
from tests.processes.replays import compilepool
from tests.sharing import Program, programs, supervisors

PRIVATE = "max_workers=1"
TOGETHER = "max_workers=1, shared=True, single_flight=True"


@pytest.fixture
def seen(runtime: Path) -> Seen:
    return Seen(runtime)


def submit(program: Program, name: str, job: str) -> None:
    program.run(f"futures.update({{{name!r}: pool.options(name={name!r}).submit({job})}})")


def test_a_private_pool_is_seen_with_its_jobs_and_leaves_no_file(
    seen: Seen, runtime: Path, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    with programs(1, PRIVATE) as (program,):
        submit(program, "softmax", f"jobs.wait_for, {str(go)!r}")
        submit(program, "matmul", "jobs.where")
        (pool,) = seen.wait_for(lambda looks: any(look.queued for look in looks))
        look = pool.look
        assert look is not None
        assert (pool.is_private, look.pid) == (True, supervisors()[0])
        assert [(each.pid, each.jobs) for each in look.clients] == [(program.pid, 2)]
        (worker,) = look.workers
        assert (worker.state, worker.job, worker.clients) == ("busy", "softmax", (program.pid,))
        assert pool.now >= worker.since > 0
        assert [(each.job, each.clients) for each in look.queue] == [("matmul", (program.pid,))]
        assert pool.used[worker.pid].resident > 1_000_000
        assert seen.look()[0].used[worker.pid].cpu is not None
        go.touch()
        (pool,) = seen.wait_for(lambda looks: looks[0].returned == 2)
        assert pool.look is not None
        assert (pool.look.workers[0].run, pool.look.queued) == (0, 0)
        program.end()
    # `runtime` sees that no file is left
    assert [*runtime.iterdir()] == [runtime / "compilepool"]


def test_failures_are_seen_once_each_and_kept(seen: Seen) -> None:
    with programs(1, PRIVATE) as (program,):
        submit(program, "bad", "jobs.crash")
        (pool,) = seen.wait_for(lambda looks: any(look.failed for look in looks))
        (failed,) = pool.failures
        assert (failed.number, failed.job, failed.clients) == (1, "bad", (program.pid,))
        submit(program, "worse", "os.abort")
        (pool,) = seen.wait_for(lambda looks: looks[0].failed == 2)
        assert [each.job for each in pool.failures] == ["bad", "worse"]
        assert pool.look is not None
        assert [each.job for each in pool.look.failures] == ["worse"]
        (pool,) = seen.look()
        assert pool.look is not None
        assert pool.look.failures == ()
        assert [each.job for each in pool.failures] == ["bad", "worse"]
        program.end()


def test_a_cancelled_run_ends_for_all_who_wait_for_it(seen: Seen, tmp_path: Path) -> None:
    with programs(2, TOGETHER) as ranks:
        for rank in ranks:
            submit(rank, "softmax", f"jobs.wait_for, {str(tmp_path / 'go')!r}")
        both = sorted(rank.pid for rank in ranks)
        (pool,) = seen.wait_for(
            lambda looks: (
                [sorted(each.clients) for look in looks for each in look.workers] == [both]
            )
        )
        assert pool.look is not None
        assert pool.look.joined == 1
        assert seen.cancel(pool, pool.look.workers[0].run) == ""
        for rank in ranks:
            rank.run("__import__('concurrent.futures').futures.wait(futures.values(), 20)")
            assert rank.run("[each.cancelled() for each in futures.values()]") == [True]
            assert rank.run("pool.submit(abs, -1).result()") == 1
            rank.end()


def test_the_stacks_of_a_job_are_seen(seen: Seen, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(1, PRIVATE) as (program,):
        submit(program, "softmax", f"jobs.wait_for, {str(go)!r}")
        submit(program, "matmul", "jobs.where")
        (pool,) = seen.wait_for(lambda looks: any(look.queued for look in looks))
        assert pool.look is not None
        running, waiting = pool.look.workers[0].run, pool.look.queue[0].run
        snapshot = seen.dump(pool, running)
        assert not isinstance(snapshot, str)
        assert (snapshot.state, "in wait_for" in snapshot.text) == ("running", True)
        states = [seen.dump(pool, run) for run in (waiting, 12345)]
        assert [each if isinstance(each, str) else each.state for each in states] == [
            "queued",
            "ended",
        ]
        go.touch()
        program.end()
    assert seen.dump(pool, running) == "the pool has ended"
    assert seen.cancel(pool, running) == "it has ended"


def test_a_pool_sleeps_when_it_is_told_to_and_wakes_up_for_a_job(seen: Seen) -> None:
    with programs(1, PRIVATE) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (pool,) = seen.wait_for_pools()
        assert seen.quiesce(pool) == ""
        (pool,) = seen.wait_for(lambda looks: looks[0].is_quiesced)
        assert pool.look is not None
        assert pool.look.workers == ()
        assert program.run("pool.submit(abs, -1).result()") == 1
        program.end()


def test_nobody_joins_a_private_pool_or_stops_it(seen: Seen) -> None:
    with programs(1, PRIVATE) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (pool,) = seen.wait_for_pools()
        packets = [
            joining_packet(identity="0" * 64),
            encode(Message(Kind.STOP)),
            encode(Message(Kind.SHUTDOWN)),
            encode(Message(Kind.LOOK)) * 2,
            b"\xff" * 40,
        ]
        with guests(len(packets), pool.name) as strangers, pidfd_of(os.getpid()) as pidfd:
            for stranger, packet in zip(strangers, packets, strict=True):
                stranger.say(packet, *[pidfd] * (packet is packets[0]))
                assert stranger.is_thrown_out()
        assert program.run("pool.submit(abs, -1).result()") == 1
        assert compilepool("ps").stdout.startswith("no shared pools")
        assert compilepool("stop", "--all").stdout.startswith("no shared pools")
        assert program.run("pool.submit(abs, -1).result()") == 1
        program.end()


def test_visitors_who_read_nothing_hold_nobody_up(seen: Seen, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(1, "max_workers=2") as (program,):
        submit(program, "softmax", f"jobs.wait_for, {str(go)!r}")
        (pool,) = seen.wait_for(
            lambda looks: any(each.run for look in looks for each in look.workers)
        )
        assert pool.look is not None
        run = next(each.run for each in pool.look.workers if each.run)
        with guests(12, pool.name) as strangers:
            for number, stranger in enumerate(strangers[:-1]):
                kind = (Kind.LOOK, Kind.DUMP, Kind.QUIESCE)[number % 3]
                stranger.say(encode(Message(kind, run)))
            assert program.run("pool.submit(abs, -1).result()") == 1
            assert seen.look()[0].trouble == ""
        go.touch()
        assert program.run("futures['softmax'].result()") == str(go)
        program.end()


def test_what_a_killed_supervisor_has_left_goes_with_the_next_pool(
    seen: Seen, runtime: Path
) -> None:
    with programs(2, PRIVATE) as (program, other):
        program.run("pool.submit(jobs.where).result()")
        (pool,) = seen.wait_for_pools()
        (supervisor,) = supervisors()
        os.kill(supervisor, signal.SIGKILL)
        program.kill()
        assert wait_until(lambda: not supervisors())
        assert (runtime / "compilepool" / f"{pool.name}.sock").exists()
        assert seen.look() == []
        other.run("pool.submit(jobs.where).result()")
        (pool,) = seen.wait_for_pools()
        assert {file.stem for file in (runtime / "compilepool").iterdir()} == {pool.name}
        other.end()


def test_a_supervisor_that_is_stopped_is_asked_once(
    seen: Seen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "_ANSWER_S", 0.05)
    with programs(1, PRIVATE) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (pool,) = seen.wait_for_pools()
        (supervisor,) = supervisors()
        os.kill(supervisor, signal.SIGSTOP)
        asked: list[str] = []
        connect = MeetingPlace.connect

        def count(place: MeetingPlace, name: str) -> object:
            asked.append(name)
            return connect(place, name)

        monkeypatch.setattr(MeetingPlace, "connect", count)
        troubles = [seen.look()[0].trouble for _ in range(3)]
        assert troubles == ["it does not answer"] * 3
        assert asked.count(pool.name) == 1
        os.kill(supervisor, signal.SIGCONT)
        assert program.run("pool.submit(abs, -1).result()") == 1
        program.end()


def test_one_look_is_printed_as_text_and_as_json(seen: Seen, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(2, TOGETHER) as ranks, programs(1, PRIVATE) as (alone,):
        alone.run("pool.submit(jobs.crash).exception()")
        for program in (*ranks, alone):
            submit(program, "soft\nmax[bold]", f"jobs.wait_for, {str(go)!r}")
        seen.wait_for(lambda looks: len(looks) == 2 and sum(len(x.clients) for x in looks) == 3)
        ended = compilepool("top", "--json")
        assert (ended.returncode, ended.stderr) == (0, "")
        found = {
            pool["supervisor"]: pool
            for pool in json.loads(ended.stdout)["pools"]
            if pool.get("supervisor") in supervisors()
        }
        assert len(found) == 2
        (private,) = [pool for pool in found.values() if pool["private"]]
        assert [client["pid"] for client in private["clients"]] == [alone.pid]
        assert private["failures"][0]["cause"] == "crash"
        assert "crashed with SIGSEGV" in private["failures"][0]["what"]
        assert private["workers"][0]["seconds"] > 0
        assert private["workers"][0]["cpu"] >= 0
        ended = compilepool("top", "--once", "--client", str(alone.pid))
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("1 pool, 1 client, 1 worker (1 busy)")
        assert "soft max[bold]" in ended.stdout
        assert "crashed with SIGSEGV" in ended.stdout
        assert not any(str(rank.pid) in ended.stdout for rank in ranks)
        ended = compilepool("top", "--once", "--client", "no such client")
        assert ended.stdout == "no pools whose clients match 'no such client' run on this machine\n"
        go.touch()
        for program in (*ranks, alone):
            program.end()


def test_the_live_view_wants_a_terminal() -> None:
    ended = compilepool("top")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "--once" in ended.stderr
