"""The main loop of the fork server: it preloads modules, starts workers, and reaps them."""

from __future__ import annotations

import faulthandler
import functools
import gc
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence

from compilepool.forkserver.fork_safety import quiet_blas, why_unsafe
from compilepool.light_typing import TypeAlias
from compilepool.linux import pidfds, proc, process
from compilepool.linux.spawn import FIRST_FD, process_command, spawn
from compilepool.wire.channel import Channel, close_all, handle_each, refuse
from compilepool.wire.messages import Kind, Message, ProtocolError, json_message, text_message
from compilepool.wire.payloads import of_message
from compilepool.wire.pool_config import PoolConfig
from compilepool.wire.worker_start import WorkerFds, WorkerOrders
from compilepool.worker.bootstrap import (
    apply_config,
    bootstrap,
    exit_in_order,
    flush_output,
    keep_exit_functions_from_forks,
    preload,
    prepare,
)
from compilepool.worker.loaded_files import tell_loaded_files
from compilepool.worker.main import work

_WORKER = "compilepool.worker.spawned"

Continuation: TypeAlias = Callable[[], None]
"""What a forked worker runs once the fork server's own calls have returned."""


class ForkServer:
    """Starts workers on request, and reports each worker's death.

    It reports a death only when all processes that the worker started are dead, too. Every worker
    is a subreaper. So a child of this process that is not a worker, and was not there after the
    preload, was left by a dead worker.

    Args:
        channel: the link to the supervisor.
        watched: the pidfds of the processes whose death ends this one.
        crash_fd: the descriptor of the file that a crash of this process is written to.
        supervisor_pid: the PID of the supervisor.
        config: the configuration of the pool.
    """

    def __init__(
        self,
        channel: Channel,
        watched: tuple[int, ...],
        crash_fd: int,
        supervisor_pid: int,
        config: PoolConfig,
    ) -> None:
        self._channel = channel
        self._watched = watched
        self._crash_fd = crash_fd
        self._supervisor_pid = supervisor_pid
        self._config = config
        self._workers: dict[int, tuple[int, int]] = {}
        """The number and the PID of each worker, by its pidfd."""
        self._kept = proc.children()
        self._continuation: Continuation | None = None
        self._poll = select.poll()
        for fd in (channel.fileno(), *watched):
            self._poll.register(fd, select.POLLIN)

    def serve(self, early: Sequence[Message]) -> Continuation | None:
        """Serve until the supervisor closes the link, or until it or the client dies.

        Afterwards kill all descendants.

        Args:
            early: the messages that came in one packet with the configuration.

        Returns:
            None in the fork server; in a forked worker, the function that runs the worker.
        """
        try:
            handle_each(early, self._handle)
            while self._continuation is None and self._serve_once():
                pass
            if self._continuation is not None:
                return self._continuation
        except ConnectionError:
            pass  # the supervisor is dead
        pidfds.sweep()
        return None

    def _serve_once(self) -> bool:
        ready = [fd for fd, _ in self._poll.poll()]
        if any(fd in ready for fd in self._watched):
            return False
        for fd in ready:
            if fd in self._workers:
                self._reap_worker(fd)
        if self._channel.fileno() in ready:
            messages = self._channel.receive(wait=False)
            if messages is None:
                return False
            handle_each(messages, self._handle)
        return True

    def _handle(self, message: Message) -> None:
        if message.kind is not Kind.START_WORKER:
            refuse(message, "to a fork server")
        try:
            fds = WorkerFds.of_flat(message.fds, captures=self._config.capture)
            orders = WorkerOrders.decode(message.body)
        except (ValueError, ProtocolError) as error:
            refuse(message, str(error))
        if self._continuation is not None:
            close_all(message.fds)  # a forked worker that is leaving the loop
            return
        start = self._spawn if self._config.start_method == "spawn" else self._fork
        try:
            pid = start(fds, orders)
            # If this fails, the child is not known as a worker, and the next sweep kills it.
            pidfd = os.pidfd_open(pid) if pid else -1
        except OSError as error:
            body = {"error": f"the worker could not be started: {error}"}
            self._channel.send(json_message(Kind.WORKER_EXITED, body, id=message.id))
        else:
            if pid:
                self._workers[pidfd] = message.id, pid
                self._poll.register(pidfd, select.POLLIN)
                started = json_message(Kind.WORKER_STARTED, {"pid": pid}, id=message.id)
                self._channel.send(started._replace(fds=(pidfd,)))
        if self._continuation is None:
            close_all(message.fds)

    def _fork(self, fds: WorkerFds, orders: WorkerOrders) -> int:
        parent_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._channel.close()
            close_all([*self._watched, *self._workers])
            self._continuation = functools.partial(self._work, parent_pid, fds, orders)
        return pid

    def _work(self, parent_pid: int, fds: WorkerFds, orders: WorkerOrders) -> None:
        """Run the worker, in a forked child."""
        try:
            bootstrap(parent_pid, self._supervisor_pid, fds.crash, self._config, orders)
            os.close(self._crash_fd)  # only now does faulthandler no longer use it
            work(Channel.adopt(fds.socket), fds, orders)
        except BaseException:  # noqa: BLE001 - the interpreter's own way out is the fork server's
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _spawn(self, fds: WorkerFds, orders: WorkerOrders) -> int:
        config = self._config.payload(inline_limit=-1)
        try:
            all_fds = [config.fd, *fds.flat()]
            command = process_command([*self._config.python_flags, "-P"], _WORKER)
            arguments = [str(os.getpid()), str(self._supervisor_pid), str(len(all_fds))]
            arguments.append(orders.encode().decode())
            return spawn([*command, *arguments], os.environ, all_fds)
        finally:
            config.close()

    def _reap_worker(self, pidfd: int) -> None:
        number, pid = self._workers.pop(pidfd)
        self._poll.unregister(pidfd)
        cpu_before_s = process.children_cpu_s()
        exitcode, peak_bytes = pidfds.reap_with_peak(pidfd, pid)
        os.close(pidfd)
        live = [worker_pid for _, worker_pid in self._workers.values()]
        pidfds.sweep(keep=[*self._kept, *live])
        cpu_s = process.children_cpu_s() - cpu_before_s
        body = {"exitcode": exitcode, "peak_bytes": peak_bytes, "cpu_s": cpu_s}
        self._channel.send(json_message(Kind.WORKER_EXITED, body, id=number))


def main() -> Continuation | None:
    """Run the fork server of this process, then exit. A forked worker returns instead.

    The arguments are the supervisor's PID and the soft limit of open files. The descriptors are the
    supervisor's socket, the pidfds of supervisor and client, and the crash file.

    Returns:
        In a forked worker, the function that runs the worker.
    """
    continuation = _run()
    if continuation is None:
        # Python's finalization of everything that was preloaded would take longer than the rest of
        # the exit.
        exit_in_order()
    return continuation


def _run() -> Continuation | None:
    supervisor_pid, fd_limit = (int(argument) for argument in sys.argv[1:])
    watched = (FIRST_FD + 1, FIRST_FD + 2)
    crash_fd = FIRST_FD + 3
    for fd in (*watched, crash_fd):
        os.set_inheritable(fd, False)
    channel = Channel.adopt(FIRST_FD)
    process.set_process_title("compilepool fork server", "cp-forkserver")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable(crash_fd, all_threads=True)
    # While this process imports, it cannot watch the supervisor. Afterwards it must survive the
    # supervisor's death, in order to sweep.
    process.die_with_parent(supervisor_pid)
    process.become_subreaper()
    process.set_fd_limit(fd_limit)
    try:
        messages = channel.receive()
        if not messages:
            return None
        message, *early = messages
        config = PoolConfig.of_payload(of_message(message))
        apply_config(config)
        if config.start_method == "fork" and not _prepare(channel, config):
            return None
        process.outlive_parent()
        if config.is_shared:
            tell_loaded_files(channel)
        channel.send(Message(Kind.READY))
        return ForkServer(channel, watched, crash_fd, supervisor_pid, config).serve(early)
    except ConnectionError:
        return None  # the supervisor is dead
    except ProtocolError as error:
        print(f"compilepool fork server: dropped its supervisor: {error}", file=sys.stderr)
        pidfds.sweep()
        return None
    finally:
        channel.close()


def _prepare(channel: Channel, config: PoolConfig) -> bool:
    """Preload the modules, and make this process ready to be forked.

    Returns:
        False if workers cannot be forked from it. The supervisor has then been told why.
    """
    culprit = ""
    is_unsafe_anyway = bool(why_unsafe())
    # The imports leave little garbage, and forked workers share it. Collecting it costs more time
    # than it is worth: up to a seventh of an import of torch.
    gc.disable()
    with quiet_blas():
        for module in config.preload:
            if not preload(module, channel):
                return False
            if not culprit and why_unsafe():
                culprit = module
    # A preloaded module must not reap this process's children.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if reason := why_unsafe():
        channel.send(
            text_message(Kind.UNSAFE_TO_FORK, _warning(reason, "" if is_unsafe_anyway else culprit))
        )
        return False
    prepare()
    keep_exit_functions_from_forks()
    flush_output()  # otherwise each worker would print again what the preload has printed
    process.trim_heap()
    gc.enable()
    # From now on, a worker's collections do not touch, and so do not copy, shared memory.
    gc.freeze()
    return True


def _warning(reason: str, culprit: str) -> str:
    """Why workers are not forked.

    Args:
        reason: what makes that unsafe.
        culprit: the module that has brought it about; "" if it was so before the first import.
    """
    if culprit:
        since, advice = f" since it imported {culprit!r}", "leave that module out of preload, or"
    else:
        since, advice = "", "a debugger, a profiler or a `.pth` file does that in every process;"
    return (
        f"the fork server {reason}{since}: forking it is unsafe, so each worker is started by exec"
        f" and does the preload by itself, which is slower; {advice} pass start_method='spawn' to"
        " accept that"
    )
