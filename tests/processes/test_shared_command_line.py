"""`compilepool ps` and `compilepool stop`, and `compilepool run --shared`."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from compilepool.cli.main import app
from compilepool.client.connection import visits
from compilepool.client.connection.visits import Visit
from compilepool.wire.meeting_place import MeetingPlace
from compilepool.wire.messages import Kind, Message, encode
from tests.proc import PATIENCE_S, all_dead, is_alive, wait_until
from tests.processes.replays import compilepool, listed
from tests.sharing import programs, supervisors

LINGERING = "max_workers=2, shared=True, linger=600"


pytestmark = pytest.mark.usefixtures("runtime")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let visits in this process wait for answers for a moment only."""
    monkeypatch.setattr(visits, "_ANSWER_S", 0.05)


def look() -> list[Visit]:
    """Look at all pools from this process."""
    with MeetingPlace() as place:
        return visits.look(place)


def command_here(*arguments: str) -> Result:
    """Run a command in this process, for `hurried`."""
    return CliRunner().invoke(app, arguments)


@contextlib.contextmanager
def lingering(options: str = LINGERING) -> Iterator[int]:
    """A pool whose last program has gone: its supervisor. The test ends the pool."""
    with programs(1, options) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (supervisor,) = supervisors()
        program.end()
    assert wait_until(lambda: [visit.view and visit.view.clients for visit in look()] == [()])
    yield supervisor


@contextlib.contextmanager
def listeners(runtime: Path, *names: str) -> Iterator[list[socket.socket]]:
    """Sockets of this process in place of supervisors'."""
    with contextlib.ExitStack() as stack:
        with MeetingPlace() as place:
            fds = [place.listen(name).detach() for name in names]
        socks = [stack.enter_context(socket.socket(fileno=fd)) for fd in fds]
        yield socks
    for name in names:
        (runtime / "compilepool" / f"{name}.sock").unlink()


# compilepool ps


def test_without_shared_pools_the_list_says_so_and_makes_no_directory(runtime: Path) -> None:
    ended = compilepool("ps")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"no shared pools in {runtime}/compilepool\n"
    assert listed() == []
    assert not [*runtime.iterdir()]


def test_pools_are_listed_with_clients_processes_and_memory(runtime: Path, tmp_path: Path) -> None:
    go = tmp_path / "go"
    with programs(2) as ranks:
        for number, rank in enumerate(ranks):
            rank.run("sys.argv.__setitem__(0, '/there/train[bold]' + 99 * 'x')")
            for job in range(2 + number):
                rank.run(f"futures.update({{{job}: pool.submit(jobs.wait_for, {str(go)!r})}})")
        assert wait_until(lambda: bool((view := look()[0].view) and view.queued == 3))
        (row,) = listed()
        (supervisor,) = supervisors()
        assert row["supervisor"] == supervisor
        (file,) = (runtime / "compilepool").glob("*.sock")
        assert row["identity"] == file.stem
        assert len(row["identity"]) == 20
        assert [(each["pid"], each["jobs"]) for each in row["clients"]] == [
            (rank.pid, 2 + number) for number, rank in enumerate(ranks)
        ]
        assert [each["name"][-9:] for each in row["clients"]] == [" (rank 0)", " (rank 1)"]
        parents = {int(Path(f"/proc/{pid}/stat").read_text().split()[3]) for pid in row["workers"]}
        assert len(row["workers"]) == 2
        assert parents == {row["fork_server"]}
        assert row["linger_seconds"] == 0
        assert 0 <= row["age_seconds"] < PATIENCE_S
        memory = row["memory"]
        assert min(memory["supervisor"], memory["fork_server"], memory["workers"]) > 100_000
        assert memory["total"] == sum(memory.values()) - memory["total"]
        ended = compilepool("ps")
        assert (ended.returncode, ended.stderr) == (0, "")
        first, second, third, *clients = ended.stdout.splitlines()
        assert first.startswith(f"{row['identity']}  ")
        assert first.endswith(" MiB (PSS)")
        assert second == "    2 clients, 2 workers, 3 runs queued, lingers 0 s"
        assert third == "    0 jobs joined a run, 0 jobs got a kept result"
        assert [line.split()[0] for line in clients] == [str(rank.pid) for rank in ranks]
        assert "train[bold]xxx" in clients[0]
        assert clients[0].endswith("…  2 unfinished jobs")
        assert max(map(len, ended.stdout.splitlines())) <= 80
        go.touch()
        for rank in ranks:
            rank.end()


def test_a_pool_that_lingers_is_listed_without_clients() -> None:
    with lingering() as supervisor:
        (row,) = listed()
        assert (row["supervisor"], row["clients"], row["linger_seconds"]) == (supervisor, [], 600)
        assert "lingers 10 min\n" in compilepool("ps").stdout
        assert compilepool("stop", "--all").returncode == 0


def test_what_a_dead_supervisor_has_left_is_no_pool(runtime: Path) -> None:
    with lingering() as supervisor:
        os.kill(supervisor, signal.SIGKILL)
        assert wait_until(lambda: not supervisors())
    assert [*runtime.glob("compilepool/*.sock")]
    assert compilepool("ps").stdout == f"no shared pools in {runtime}/compilepool\n"
    assert compilepool("stop", "--all").returncode == 0
    for file in runtime.glob("compilepool/*"):
        file.unlink()


@pytest.mark.usefixtures("hurried")
def test_supervisors_that_do_not_answer_are_listed_and_end_when_they_go_on() -> None:
    with lingering() as supervisor:
        os.kill(supervisor, signal.SIGSTOP)
        (visit,) = look()
        assert (visit.view, visit.trouble) == (None, "it does not answer")
        with MeetingPlace() as place:
            (stopped,) = visits.stop(place, [visit.name])
        assert stopped == visit
        assert is_alive(supervisor)
        os.kill(supervisor, signal.SIGCONT)
        assert wait_until(lambda: not supervisors())


@pytest.mark.usefixtures("hurried")
def test_one_that_does_not_answer_hides_no_other(runtime: Path) -> None:
    silent = ["0" * 20, "0" * 19 + "1"]  # they come before whatever identity the program has
    with listeners(runtime, *silent), programs(1) as (program,):
        program.run("pool.submit(jobs.where).result()")
        (supervisor,) = supervisors()

        def rows() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = json.loads(command_here("ps", "--json").stdout)
            return found

        assert wait_until(lambda: [row["supervisor"] for row in rows()[2:]] == [supervisor])
        assert rows()[:2] == [{"identity": name, "error": "it does not answer"} for name in silent]
        assert f"{'0' * 20}  it does not answer\n" in command_here("ps").stdout
        program.end()


def serve(listener: socket.socket, packet: bytes, fds: list[int]) -> None:
    """Answer the next visitor."""
    sock, _ = listener.accept()
    with sock:
        sock.recv(100)
        if packet:
            socket.send_fds(sock, [packet], fds)


@pytest.mark.parametrize(
    ("packet", "count"),
    [
        (b"\xff", 0),
        (b"x" * 100, 2),
        (encode(Message(Kind.LOOKED, body=b"{}")), 0),
        (encode(Message(Kind.LOOKED, body=b"{}", fds=(1,))), 1),
        (encode(Message(Kind.RESULT, fds=(1,))), 1),
        (2 * encode(Message(Kind.LOOKED, fds=(1,))), 2),
    ],
)
def test_garbage_for_an_answer_is_told_and_leaves_no_descriptor(
    packet: bytes, count: int, runtime: Path
) -> None:
    with listeners(runtime, "f" * 20) as (listener,), open(os.devnull) as file:
        fds = [file.fileno()] * count
        thread = threading.Thread(target=serve, args=(listener, packet, fds), daemon=True)
        thread.start()
        (visit,) = look()
        thread.join(PATIENCE_S)
        assert visit.trouble.startswith("it does not answer as it should: ")


def test_a_supervisor_that_ends_before_it_answers_is_no_pool(runtime: Path) -> None:
    with listeners(runtime, "f" * 20) as (listener,):
        thread = threading.Thread(target=serve, args=(listener, b"", []), daemon=True)
        thread.start()
        assert look() == []
        thread.join(PATIENCE_S)


def test_a_file_that_is_no_socket_is_told(runtime: Path) -> None:
    file = runtime / "compilepool" / "abc.sock"
    file.parent.mkdir(0o700)
    file.touch()
    assert listed() == [{"identity": "abc", "error": f"{file} is no socket of this user"}]
    file.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has sockets of several users")
def test_nothing_is_read_from_another_user(runtime: Path) -> None:
    folder = runtime / "compilepool"
    folder.mkdir(0o700)
    listen = f"""
import os, socket, sys
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
os.chdir({str(folder)!r})
sock.bind("abc.sock")
os.setuid(65534)
sock.listen()
print(flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", listen], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as stranger:
        assert stranger.stdout is not None
        assert stranger.stdout.readline()
        (visit,) = look()
        assert (visit.view, visit.trouble) == (None, "user 65534 listens at its socket")
        stranger.kill()
    (folder / "abc.sock").unlink()


def has_pid_namespaces() -> bool:
    """Whether a process may be started in a PID namespace of its own here, unshare(1)."""
    with contextlib.suppress(OSError):
        return not subprocess.run(
            ["unshare", "-pf", "--mount-proc", "true"], stderr=subprocess.DEVNULL, check=False
        ).returncode
    return False


@pytest.mark.skipif(not has_pid_namespaces(), reason="needs a PID namespace")
def test_pids_of_another_container_are_not_taken_for_those_of_this_one() -> None:
    code = """
import os, sys
from compilepool import CompilePool
pool = CompilePool(1, shared=True)
print(pool.submit(os.getpid).result(), flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        ["unshare", "-pf", "--mount-proc", sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as elsewhere:
        assert elsewhere.stdout is not None
        worker = int(elsewhere.stdout.readline())
        (row,) = listed()
        assert (row["workers"], row["memory"]) == ([worker], None)
        assert "of another container" in compilepool("ps").stdout
        stopped = compilepool("stop", row["identity"])
        assert stopped.stdout == (
            f"{row['identity']}  has ended; it had 1 client, 0 with unfinished jobs\n"
        )
        elsewhere.communicate(timeout=PATIENCE_S)


# compilepool stop


def test_stop_ends_the_pool_that_is_named_and_waits_for_its_end() -> None:
    with programs(1) as (one,), programs(1, "max_workers=3, shared=True") as (other,):
        one.run("pool.submit(jobs.where).result()")
        (of_one,) = supervisors()
        other.run("pool.submit(jobs.where).result()")
        row = next(each for each in listed() if each["supervisor"] == of_one)
        ended = compilepool("stop", row["identity"][:10])
        assert all_dead([of_one, row["fork_server"], *row["workers"]])
        told = f"{row['identity']}  has ended; it had 1 client, 0 with unfinished jobs\n"
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, told, "")
        assert len(supervisors()) == 1
        other.end()
        one.end()


def test_programs_whose_pool_is_stopped_run_their_jobs_in_another_one(tmp_path: Path) -> None:
    log, go = tmp_path / "log", tmp_path / "go"
    with programs(2) as (busy, idle):
        idle.run("pool.submit(jobs.where).result()")
        busy.start(f"pool.submit(jobs.append_and_wait, {str(log)!r}, {str(go)!r}).result()")
        assert wait_until(log.exists)
        (first,) = supervisors()
        ended = compilepool("stop", "--all")
        assert ended.stdout.endswith("  has ended; it had 2 clients, 1 with unfinished jobs\n")
        assert not is_alive(first)
        assert wait_until(lambda: len(log.read_text().splitlines()) == 2)
        go.touch()
        assert busy.answer() == int(log.read_text().splitlines()[1])
        assert idle.run("len(pool.submit(jobs.where).result())") == 2
        for program in (busy, idle):
            program.end()


def test_a_pool_without_a_wait_is_gone_when_stop_returns(runtime: Path) -> None:
    with lingering() as supervisor:
        (row,) = listed()
        ended = compilepool("stop", row["identity"], row["identity"][:3])
        told = f"{row['identity']}  has ended; it had 0 clients, 0 with unfinished jobs\n"
        assert (ended.returncode, ended.stdout) == (0, told)
        assert not is_alive(supervisor)
        assert not [*(runtime / "compilepool").iterdir()]


@pytest.mark.parametrize("arguments", [[], ["--all", "abc"]])
def test_stop_does_not_guess_what_to_stop(arguments: list[str]) -> None:
    ended = compilepool("stop", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "name the pools to stop, or use --all\n"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("identity", ["abc", "", "/", "fff", "ff\x1b"])
def test_an_unknown_identity_is_told_and_nothing_is_stopped(identity: str, runtime: Path) -> None:
    with listeners(runtime, "f1" * 10) as (listener,):
        ended = command_here("stop", "f", identity)
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert ended.stderr == (
            f"no shared pool in {runtime}/compilepool has the identity {identity!r};"
            " see `compilepool ps`\n"
        )
        told = []
        listener.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                sock, _ = listener.accept()
                with sock:
                    told.append(sock.recv(100))
        assert told == [encode(Message(Kind.LOOK))]


@pytest.mark.usefixtures("hurried")
def test_digits_that_several_identities_begin_with_are_not_enough(runtime: Path) -> None:
    with listeners(runtime, "f1" * 10, "f2" * 10):
        ended = command_here("stop", "f")
        assert (ended.exit_code, ended.stdout) == (2, "")
        assert ended.stderr == f"'f' may be any of {'f1' * 10}, {'f2' * 10}; give more digits\n"


@pytest.mark.usefixtures("hurried")
def test_stop_tells_of_a_pool_that_does_not_answer(runtime: Path) -> None:
    with listeners(runtime, "f1" * 10):
        ended = command_here("stop", "--all")
        assert (ended.exit_code, ended.stderr) == (1, "")
        assert ended.stdout == (
            f"{'f1' * 10}  has not ended: it does not answer; if it was stopped, it ends when it"
            " goes on\n"
        )


@pytest.mark.parametrize("command", [["ps"], ["stop", "--all"]])
def test_a_directory_that_is_open_to_others_is_told(command: list[str], runtime: Path) -> None:
    folder = runtime / "compilepool"
    folder.mkdir()
    folder.chmod(0o777)
    ended = compilepool(*command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"shared pools cannot be found: {folder} is open to other users")
    assert len(ended.stderr.splitlines()) == 1
    folder.rmdir()


# compilepool run


def test_the_next_run_of_a_program_finds_its_pool_warm(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("""
from compilepool import CompilePool
if __name__ == "__main__":
    with CompilePool(1) as pool:
        print(pool.submit(abs, -1).result(), pool.stats().shared.supervisor)
""")
    command = ["run", "--shared", "--linger", "600", "--", sys.executable, str(program)]
    first, second = (compilepool(*command) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert second.stdout == first.stdout
    assert [row["supervisor"] for row in listed()] == [int(first.stdout.split()[1])]
    assert compilepool("stop", "--all").returncode == 0
