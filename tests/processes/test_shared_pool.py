"""Programs that share one pool: they meet, live, leave, and die."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
from pathlib import Path

import pytest

from compilepool import CompilePool
from tests.proc import is_alive, wait_until
from tests.sharing import Failed, Program, nothing_is_left, programs, supervisors

pytestmark = pytest.mark.usefixtures("runtime")


def test_programs_share_workers() -> None:
    with programs(3) as ranks:
        parents = {rank.run("pool.submit(jobs.where).result()[1]") for rank in ranks}
        assert len(parents) == 1
        assert len(supervisors()) == 1
        for rank in ranks:
            assert rank.end() == ""


def test_the_pool_ends_with_the_last_program_and_not_before() -> None:
    with programs(2) as (first, second):
        first.run("pool.submit(jobs.where).result()")
        (supervisor,) = supervisors()
        second.run("pool.submit(jobs.where).result()")
        first.end()
        assert second.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert is_alive(supervisor)
        second.run("pool.shutdown()")
        assert wait_until(lambda: not is_alive(supervisor))


def test_the_next_program_finds_a_lingering_pool_warm(runtime: Path) -> None:
    options = "max_workers=2, shared=True, linger=60"
    with programs(1, options) as (first,):
        first.run("pool.submit(jobs.where).result()")
        (supervisor,) = supervisors()
        first.end()
    with programs(1, options) as (second,):
        second.run("pool.submit(jobs.where).result()")
        assert supervisors() == [supervisor]
        second.end()
    assert is_alive(supervisor)
    os.kill(supervisor, signal.SIGKILL)
    wait_until(lambda: not supervisors())
    with programs(1) as (third,):  # it tidies up
        third.run("pool.submit(jobs.where).result()")


def test_programs_that_start_at_once_meet() -> None:
    with programs(50) as ranks:
        for rank in ranks:
            rank.start("pool.submit(jobs.where).result()[1]")
        assert len({rank.answer() for rank in ranks}) == 1


def test_programs_that_differ_do_not_meet(tmp_path: Path) -> None:
    with programs(2) as (one, other), programs(1, "max_workers=3, shared=True") as (third,):
        elsewhere = Program(cwd=tmp_path)
        differs = Program(COMPILE_FLAG="1")
        try:
            all_of_them = [one, other, third, elsewhere, differs]
            parents = [each.run("pool.submit(jobs.where).result()[1]") for each in all_of_them]
        finally:
            elsewhere.close()
            differs.close()
        assert parents[0] == parents[1]
        assert len(set(parents)) == 4


def test_each_job_has_what_names_its_own_program() -> None:
    with programs(2) as ranks:
        for number, rank in enumerate(ranks):
            assert rank.run("pool.submit(jobs.variable, 'RANK').result()") == str(number)
        ranks[0].run("os.environ.pop('RANK')")
        assert ranks[0].run("pool.submit(jobs.variable, 'RANK').result()") == "0"  # as it started


def test_five_thousand_jobs_of_one_program_delay_anothers_by_one(tmp_path: Path) -> None:
    begun, go = tmp_path / "begun", tmp_path / "go"
    with programs(2, "max_workers=1, shared=True") as (many, one):
        call = f"pool.submit(jobs.append_and_wait, {str(begun)!r}, {str(go)!r})"
        many.run(f"futures.update({{n: {call} for n in range(5000)}})")
        assert wait_until(begun.exists)
        one.run(f"futures.update(one=pool.submit(jobs.lines, {str(begun)!r}))")
        one.run("pool.stats()")  # the supervisor has got the job before it answers
        go.touch()
        assert one.run("futures['one'].result()") <= 2
        many.run("pool.shutdown(cancel_futures=True)")


def test_programs_with_other_folders_share_workers_and_each_has_its_own(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    options = "max_workers=1, shared=True, single_flight=True"
    with contextlib.ExitStack() as stack:
        ranks = []
        for folder in folders:
            folder.mkdir()
            ranks.append(Program(options, TMPDIR=str(folder), TRITON_CACHE_DIR=str(folder)))
            stack.callback(ranks[-1].close)
        without = Program(options)
        stack.callback(without.close)
        for rank, folder in zip(ranks, folders, strict=True):
            assert rank.run("pool.submit(jobs.temporary_folder).result()") == str(folder)
            assert rank.run("pool.submit(jobs.set_cache_folder).result()") == str(folder)
        assert without.run("pool.submit(jobs.set_cache_folder).result()") == "set by a job"
        assert without.run("pool.submit(jobs.variable, 'TRITON_CACHE_DIR').result()") is None
        parents = [each.run("pool.submit(jobs.where).result()[1]") for each in (*ranks, without)]
        assert len(set(parents)) == 1
        runs = tmp_path / "runs"
        for rank in (*ranks, without, *ranks):
            rank.run(f"pool.submit(jobs.append, {str(runs)!r}).result()")
        assert runs.read_text().count("x") == 3


def test_the_environment_decides_where_the_program_does_not() -> None:
    with programs(1, "max_workers=1") as (private,):
        shared = Program("max_workers=1", COMPILEPOOL_SHARED="1")
        other = Program("max_workers=1", COMPILEPOOL_SHARED="1", COMPILEPOOL_LINGER="0.01")
        try:
            parents = [
                each.run("pool.submit(jobs.where).result()[1]") for each in (private, shared, other)
            ]
            assert parents[0] != parents[1] == parents[2]
        finally:
            shared.close()
            other.close()


@pytest.mark.parametrize("value", ["yes", "2"])
def test_a_wrong_wish_is_told(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPILEPOOL_SHARED", value)
    program = Program("max_workers=1")
    try:
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert "COMPILEPOOL_SHARED" in program.end()
    finally:
        program.close()


def test_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ValueError, match="capture"):
        CompilePool(shared=True, capture=False)
    with pytest.raises(ValueError, match="linger"):
        CompilePool(shared=True, linger=-1)
    with pytest.raises(TypeError, match="shared"):
        CompilePool(shared=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="seed"):
        CompilePool(single_flight=True, seed=1)


# Deaths


def test_a_killed_program_disturbs_no_other(tmp_path: Path) -> None:
    with programs(2) as (killed, other):
        killed.run(f"pool.submit(jobs.append_and_wait, {str(tmp_path / 'log')!r}, '/nowhere')")
        assert wait_until((tmp_path / "log").exists)
        worker = int((tmp_path / "log").read_text())
        other.run("pool.submit(jobs.where).result()")
        killed.kill()
        assert wait_until(lambda: not is_alive(worker))  # nobody wants its result
        assert other.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert other.end() == ""


@pytest.mark.parametrize("victim", ["supervisor", "fork server", "worker"])
def test_what_dies_is_replaced_for_all(victim: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(3) as ranks:
        for number, rank in enumerate(ranks):
            log = tmp_path / f"log{number}"
            rank.run(f"futures[0] = pool.submit(jobs.append_and_wait, {str(log)!r}, {str(go)!r})")
        assert wait_until((tmp_path / "log0").exists)
        (supervisor,) = supervisors()
        worker = int((tmp_path / "log0").read_text())
        fork_server = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        pids = {"supervisor": supervisor, "fork server": fork_server, "worker": worker}
        os.kill(pids[victim], signal.SIGKILL)
        if victim == "worker":
            with pytest.raises(Failed, match="WorkerCrashed"):
                ranks[0].run("futures[0].result()")
        go.touch()
        for rank in ranks[victim == "worker" :]:
            assert rank.run("futures[0].result()") > 0
        assert len(supervisors()) == 1


def test_all_programs_are_killed_at_once(tmp_path: Path, runtime: Path) -> None:
    with programs(4) as ranks:
        for rank in ranks:
            rank.run("pool.submit(jobs.sleep, 0).result()")
        for rank in ranks:
            rank.run("pool.submit(jobs.sleep, 1000)")
        for rank in ranks:
            os.kill(rank.pid, signal.SIGKILL)
        assert nothing_is_left(runtime)


def test_a_stopped_program_holds_nobody_up() -> None:
    with programs(2) as (stopped, other):
        stopped.run("pool.submit(jobs.sleep, 0).result()")
        stopped.run("futures.update(enumerate(pool.submit(jobs.large, 10**6) for _ in range(300)))")
        os.kill(stopped.pid, signal.SIGSTOP)
        assert other.run("pool.submit(jobs.sleep, 0).result()") == 0
        assert other.run("pool.shutdown()") is None
        os.kill(stopped.pid, signal.SIGCONT)
        assert stopped.run("{len(future.result()) for future in futures.values()} == {10**6}")


def test_a_forked_child_leaves_the_pool_to_its_parent() -> None:
    with programs(1) as (program,):
        program.run("pool.submit(jobs.sleep, 0).result()")
        status = program.run("os.waitpid(os.fork() or os._exit(7), 0)[1]")
        assert os.waitstatus_to_exitcode(status) == 7
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0


# Leaving


@pytest.mark.parametrize("how", ["shutdown()", "kill_workers()", "terminate_workers()"])
def test_one_program_leaves_and_the_others_go_on(how: str, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(2) as (leaves, stays):
        wait = f"pool.submit(jobs.append_and_wait, {str(tmp_path / 'log')!r}, {str(go)!r})"
        stays.run(f"futures[0] = {wait}")
        assert wait_until((tmp_path / "log").exists)
        seconds = 0.01 if how == "shutdown()" else 60
        leaves.run(f"futures[0] = pool.submit(jobs.sleep, {seconds})")
        leaves.run(f"pool.{how}")
        if how == "shutdown()":
            assert leaves.run("futures[0].result()") == seconds
        else:
            ended = "futures[0].cancelled() or isinstance(futures[0].exception(20), Exception)"
            assert leaves.run(ended)
        go.touch()
        assert stays.run("futures[0].result()") > 0


# Where they meet


def assert_is_private(reason: str) -> None:
    program = Program("max_workers=1, shared=True")
    try:
        assert program.run("pool.submit(jobs.sleep, 0).result()") == 0
        error = program.end()
    finally:
        program.close()
    assert error.count("the pool is not shared") == 1
    assert reason in error


def test_a_directory_that_is_open_to_others_is_not_used(runtime: Path) -> None:
    (runtime / "compilepool").mkdir()
    (runtime / "compilepool").chmod(0o777)
    assert_is_private("mode 0777")
    (runtime / "compilepool").rmdir()


def test_a_link_is_not_used(runtime: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    (runtime / "compilepool").symlink_to(tmp_path / "elsewhere")
    assert_is_private("is no directory")
    (runtime / "compilepool").unlink()


def test_a_file_in_place_of_the_directory(runtime: Path) -> None:
    (runtime / "compilepool").touch()
    assert_is_private("is no directory")
    (runtime / "compilepool").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_a_directory_of_another_user_is_not_used(runtime: Path) -> None:
    (runtime / "compilepool").mkdir(mode=0o700)
    os.chown(runtime / "compilepool", 12345, 12345)
    assert_is_private("belongs to user 12345")
    (runtime / "compilepool").rmdir()


def test_files_of_a_shared_pool_are_for_its_user_only(runtime: Path) -> None:
    os.umask(0o022)
    with programs(1) as (program,):
        program.run("pool.submit(jobs.sleep, 0).result()")
        modes = {stat.S_IMODE(path.lstat().st_mode) for path in (runtime / "compilepool").iterdir()}
        assert modes == {0o600}
        assert stat.S_IMODE((runtime / "compilepool").stat().st_mode) == 0o700


def test_a_path_may_be_longer_than_the_address_of_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    with programs(2) as ranks:
        assert len({rank.run("pool.submit(jobs.where).result()[1]") for rank in ranks}) == 1
    assert nothing_is_left(folder)
