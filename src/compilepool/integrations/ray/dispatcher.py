"""Brings jobs to nodes and their ends to futures: the thread of a pool over several nodes.

One thread has all state: the router, the links, what is under way. Other threads post functions to
it, and so does Ray when an answer is there. So nothing here waits.
"""

from __future__ import annotations

import functools
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from compilepool.client.future import mark_running
from compilepool.client.session.calls import UnfinishedCalls
from compilepool.errors import CompilePoolError, NodeLost
from compilepool.integrations.ray.cluster import Cluster, RayNode
from compilepool.integrations.ray.endings import Endings
from compilepool.integrations.ray.fetches import Fetches
from compilepool.integrations.ray.link import NodeLink
from compilepool.integrations.ray.messages import Cancel, EndedJob, Packed, PackedJob, Report
from compilepool.integrations.ray.roster import Roster
from compilepool.integrations.ray.router import Router
from compilepool.integrations.ray.starting import Starting
from compilepool.observe.quiet_logger import QuietLogger
from compilepool.text import describe, headline

T = TypeVar("T")

STORE_BOUND = 64 << 20
"""Bytes of jobs that are on their way to nodes at once, and of large results on their way back. So
Ray's store has twice as much of this pool's at most, unless a single job or result is larger."""

_TICK_S = 0.5
_MOST_EVENTS = 2000
_SILENT_S = 30.0
"""A node that has not reported for so long is lost. It reports every 5 s."""
_CLOSE_S = 20.0

_log = QuietLogger(__name__)


class Dispatcher:
    """See the module.

    Args:
        cluster: the connection to Ray.
        calls: the unfinished calls.
        endings: ends them.
        roster: makes links, and knows which nodes there are.
        runs_again: how often a job whose node is lost runs elsewhere.
        on_end: called when the pool has ended.

    Attributes:
        links: the links to nodes that are up or starting, by Ray's id of the node.
        lost: how many nodes were lost that had taken jobs.
        max_waiting: the most jobs that have waited for a node at once.
        is_closing: whether the pool takes no more jobs.
        is_over: whether the pool has ended.
    """

    def __init__(
        self,
        cluster: Cluster,
        calls: UnfinishedCalls,
        endings: Endings,
        roster: Roster,
        runs_again: int,
        on_end: Callable[[], object],
    ) -> None:
        self._cluster = cluster
        self._calls = calls
        self._endings = endings
        self._roster = roster
        self._on_end = on_end
        self._router = Router(runs_again=runs_again, bound=STORE_BOUND)
        self._fetches = Fetches(STORE_BOUND)
        self._events: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._wants_warmth = False
        self._closing: set[str] | None = None
        self._close_by = 0.0
        self.links: dict[str, NodeLink] = {}
        self._starting = Starting(roster, self.links, self.listen, self._lose, self._is_up)
        self.lost = 0
        self.max_waiting = 0
        self.is_closing = False
        self.is_over = False

    # Any thread

    def start(self) -> None:
        """Start the thread, if it has not started."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="compilepool ray", daemon=True)
            self._thread.start()
            self._cluster.watch(lambda nodes: self.post(lambda: self._see_nodes(nodes)))

    def end_unstarted(self) -> None:
        """The pool ends without having had a job."""
        if not self.is_closing:
            self.is_closing = True
            self._cluster.close()
            self._on_end()

    @property
    def has_started(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def is_here(self) -> bool:
        """Whether the thread itself asks: it runs a callback, and must not wait for itself."""
        return threading.current_thread() is self._thread

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the pool has ended."""
        if self._thread is not None and not self.is_here():
            self._thread.join(timeout_s)

    def post(self, event: Callable[[], object]) -> None:
        """Have a function called in the thread."""
        self._events.put(event)

    def ask(self, question: Callable[[], T]) -> Future[T]:
        """Have a function called in the thread. Returns the future of what it returns."""
        answer: Future[T] = Future()

        def run() -> None:
            try:
                answer.set_result(question())
            except Exception as error:  # noqa: BLE001 - the asker gets it
                answer.set_exception(error)

        self.post(run)
        return answer

    def listen(self, ref: Any, handler: Callable[[Future[Any]], object]) -> None:
        """Have a function called in the thread when an object of Ray is there."""
        ref.future().add_done_callback(lambda answer: self.post(functools.partial(handler, answer)))

    # The thread. These are posted.

    def submitted(self, id: int) -> None:
        """A job is in the table."""
        call = self._calls.get(id)
        if call is not None:
            terms = call.terms
            self._router.submit(
                id,
                size=len(call.payload.body),
                memory=terms.expected_memory or 0,
                priority=terms.priority,
                key=terms.key or terms.flight,
                flight=terms.flight,
            )

    def cancelled(self, id: int) -> None:
        """A job was taken out of the table."""
        link = self.links.get(self._router.ended(id))
        if link is not None:
            link.add(Cancel(id))

    def control(self, what: str, *arguments: Any) -> None:
        """Have all nodes do what concerns their pools as a whole."""
        self._wants_warmth |= what == "warm_up"
        for link in self._up():
            self._control(link, what, *arguments)

    def link_of(self, id: int) -> NodeLink | None:
        """The link to the node that has a job."""
        return self.links.get(self._router.node_of(id))

    def is_settled(self) -> bool:
        """Whether there are nodes, and none is starting.

        Raises:
            NoNode: none can be expected.
        """
        if not self.links and (error := self._roster.hopeless(time.monotonic())) is not None:
            raise error("warm_up")
        return bool(self.links) and all(link.is_up for link in self.links.values())

    def close(self) -> None:
        """End when the last job has ended."""
        self.is_closing = True

    def terminate(self) -> None:
        """End at once. The caller ends the futures."""
        self.is_closing = self.is_over = True

    def _run(self) -> None:
        try:
            self._loop()
        except Exception as reason:  # noqa: BLE001 - whatever it is, nobody may wait for ever
            _log.exception("a pool over several nodes ends, because of an error")
            text = f"its pool has ended: {describe(reason)}"
            self.is_closing = True
            self._end_all(lambda job: CompilePoolError(f"job {job!r} is lost, because {text}"))
        finally:
            self.is_over = True
            for link in self.links.values():
                link.kill()
            self.links.clear()
            self._cluster.close()
            self._on_end()

    def _loop(self) -> None:
        ticked_at = time.monotonic()
        while not self.is_over:
            for event in self._next_events():
                try:
                    event()
                except Exception:  # noqa: BLE001 - the other jobs must go on
                    _log.exception("an event of a pool over several nodes failed")
                del event  # a result must not live on here
            self._go_on()
            if (now := time.monotonic()) >= ticked_at + _TICK_S:
                ticked_at = now
                self._tick(now)
            if self.is_closing and not self._calls:
                self._close_links(now)

    def _next_events(self) -> list[Callable[[], object]]:
        events: list[Callable[[], object]] = []
        try:
            events.append(self._events.get(timeout=_TICK_S))
            while len(events) < _MOST_EVENTS:
                events.append(self._events.get_nowait())
        except queue.Empty:
            pass
        return events

    def _go_on(self) -> None:
        """Give out what can be given out, and fetch what can be fetched."""
        for id, job in self._router.next_gifts():
            call = self._calls.get(job)
            if call is None:
                self._router.ended(job)  # cancelled; the news of that is under way
            else:
                packed = Packed(int(call.payload.form), call.payload.body)
                self.links[id].add(PackedJob(job, call.name, packed, call.terms))
        self.max_waiting = max(self.max_waiting, self._router.waiting)
        for link in list(self.links.values()):
            self._starting.attempt(link, link.send, self._arrived)
        for id, ended in self._fetches.next():
            link_or_none = self.links.get(id)
            if link_or_none is None:
                self._fetches.done(ended)
            else:
                fetched = functools.partial(self._fetched, link_or_none, ended)
                self._starting.attempt(link_or_none, link_or_none.ask, fetched, "fetch", ended.id)

    def _arrived(self, ids: list[int], answer: Future[Any]) -> None:
        for id in ids:
            self._router.arrived(id)

    # Nodes

    def _see_nodes(self, nodes: Sequence[RayNode] | None) -> None:
        if nodes is None:
            self._end_all(
                lambda job: CompilePoolError(
                    f"job {job!r} is lost, because this process's connection to Ray was shut down;"
                    " shut the pool down before"
                )
            )
            self.terminate()
            return
        there = {node.id for node in nodes}
        self._roster.see(nodes)
        for id in [id for id in self.links if id not in there]:
            self._lose(self.links[id], "Ray says that the node is dead")
        self._start_nodes(time.monotonic())

    def _start_nodes(self, now: float) -> None:
        if self._calls or not self.is_closing:
            self._starting.start_due(now)

    def _is_up(self, link: NodeLink, memory: int) -> None:
        self._router.join(link.node.id, link.workers, memory)
        self._ask_report(link)
        if self._wants_warmth:
            self._control(link, "warm_up")

    def _lose(self, link: NodeLink, why: str) -> None:
        """A node, or its actor, is gone. Its jobs go elsewhere."""
        if self.links.get(link.node.id) is not link:
            return
        del self.links[link.node.id]
        was_up = link.is_up
        link.kill()
        if self._closing is not None:
            return
        self._roster.is_lost(link.node, why, time.monotonic(), was_up=was_up)
        if not was_up:
            return
        self.lost += 1
        again, ended = self._router.leave(link.node.id)
        _log.warning("node %s is lost (%s); %d jobs run elsewhere", link.node.name, why, len(again))
        for id in again:
            if (call := self._calls.get(id)) is not None:
                call.is_running = False
        for id in ended:
            if (call := self._calls.pop(id)) is not None:
                call.end_with_error(_node_lost(call.name, link.node.name, why))

    # Jobs

    def _ask_report(self, link: NodeLink) -> None:
        self._starting.attempt(link, link.ask, functools.partial(self._reported, link), "report")

    def _reported(self, link: NodeLink, answer: Future[Report]) -> None:
        if not self._starting.has_answered(link, answer):
            return
        started, ended, memory = answer.result()
        link.heard_at = time.monotonic()
        self._ask_report(link)  # first: it is under way while the results are unpickled
        self._router.told_memory(link.node.id, memory)
        for id in started:
            if (call := self._calls.get(id)) is not None:
                call.is_running = True
                mark_running(call.future)
        for each in ended:
            if each.size:
                self._fetches.add(link.node.id, each)
            else:
                self._end(link, each)

    def _fetched(self, link: NodeLink, ended: EndedJob, answer: Future[Packed | None]) -> None:
        self._fetches.done(ended)
        if self._starting.has_answered(link, answer) and (result := answer.result()) is not None:
            self._end(link, ended._replace(result=result, size=0))

    def _end(self, link: NodeLink, ended: EndedJob) -> None:
        node = self._router.node_of(ended.id)
        if node != link.node.id:
            return  # it is cancelled
        self._router.ended(ended.id, self._endings.seconds_of(ended))
        call = self._calls.pop(ended.id)
        if call is not None:
            self._endings.end(call, ended, link)

    def _end_all(self, error_of: Callable[[str], BaseException]) -> None:
        for id, _ in self._calls.items():
            if (call := self._calls.pop(id)) is not None:
                self._router.ended(id)
                call.end_with_error(error_of(call.name))

    # The pool as a whole

    def _up(self) -> list[NodeLink]:
        return [link for link in self.links.values() if link.is_up]

    def _control(self, link: NodeLink, what: str, *arguments: Any) -> None:
        answered = functools.partial(self._controlled, link, what)
        self._starting.attempt(link, link.ask, answered, "control", what, *arguments)

    def _controlled(self, link: NodeLink, what: str, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is not None:  # if the actor is gone, its report says so, too
            _log.warning("%s on node %s: %s", what, link.node.name, headline(error))

    def _tick(self, now: float) -> None:
        for link in list(self.links.values()):
            if link.is_up and now - link.heard_at > _SILENT_S and self._closing is None:
                self._lose(link, f"it has not answered for {_SILENT_S:g} s")
            elif not link.is_up:
                self._roster.is_late(link, now)
        self._start_nodes(now)
        if self._calls and not self.links and (error := self._roster.hopeless(now)) is not None:
            self._end_all(error)

    def _close_links(self, now: float) -> None:
        """Have all nodes end their pools, and wait for that."""
        if self._closing is None:
            self._closing = set()
            self._close_by = now + _CLOSE_S
            for link in self._up():
                self._closing.add(link.node.id)
                closed = functools.partial(self._closed, link.node.id)
                self._starting.attempt(link, link.ask, closed, "close")
        if not self._closing & self.links.keys() or now > self._close_by:
            self.is_over = True

    def _closed(self, id: str, _answer: Future[Any]) -> None:
        assert self._closing is not None
        self._closing.discard(id)


def _node_lost(job: str, node: str, why: str) -> NodeLost:
    return NodeLost(
        f"job {job!r} is lost with node {node} ({why}), as often as it may be;"
        " find out what ends the nodes, and submit the job again",
        job=job,
        node=node,
    )
