"""Brings nodes up, one step after the other: actor, comparison, pool, clock."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from compilepool.integrations.ray.link import Listen, NodeLink
from compilepool.integrations.ray.roster import Roster
from compilepool.text import describe, headline


class Starting:
    """See the module. Only the dispatcher's thread calls it.

    Args:
        roster: knows which nodes there are.
        links: the links by Ray's id of the node; new ones are entered.
        listen: see `Listen`.
        lose: called with the link and the reason if a node is lost, or fails.
        on_up: called with the link and the bytes of memory that jobs may take there.
    """

    def __init__(
        self,
        roster: Roster,
        links: dict[str, NodeLink],
        listen: Listen,
        lose: Callable[[NodeLink, str], object],
        on_up: Callable[[NodeLink, int], object],
    ) -> None:
        self._roster = roster
        self._links = links
        self._listen = listen
        self._lose = lose
        self._on_up = on_up

    def start_due(self, now: float) -> None:
        """Start those nodes whose time has come."""
        for node in self._roster.due(self._links.keys(), now):
            link = self._roster.link_to(node, self._listen, now)
            if link is not None:
                self._links[node.id] = link
                self.attempt(link, link.ask, functools.partial(self._told_facts, link), "facts")

    def attempt(self, link: NodeLink, action: Callable[..., object], *arguments: Any) -> None:
        """Do what sends something to a node. It fails at once if Ray is gone."""
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 - Ray raises anything
            self._lose(link, describe(error))

    def has_answered(self, link: NodeLink, answer: Future[Any]) -> bool:
        """Whether a node is still there, and this is no error. If it is, the node is lost."""
        if self._links.get(link.node.id) is not link:
            return False
        error = answer.exception()
        if error is not None:
            self._lose(link, headline(error))
        return error is None

    def _told_facts(self, link: NodeLink, answer: Future[Any]) -> None:
        if not self.has_answered(link, answer):
            return
        if self._roster.suits(link.node, answer.result()):
            opened = functools.partial(self._opened, link)
            self.attempt(link, link.ask, opened, "open", *self._roster.opening(link.node))
        else:
            link.kill()
            del self._links[link.node.id]

    def _opened(self, link: NodeLink, answer: Future[Any]) -> None:
        if self.has_answered(link, answer):
            link.workers, memory = answer.result()
            self._ask_clock(link, memory)

    def _ask_clock(self, link: NodeLink, memory: int) -> None:
        told = functools.partial(self._told_clock, link, memory, time.monotonic())
        self.attempt(link, link.ask, told, "clock")

    def _told_clock(self, link: NodeLink, memory: int, asked: float, answer: Future[Any]) -> None:
        if not self.has_answered(link, answer):
            return
        link.heard_at = time.monotonic()
        if link.note_clock(asked, answer.result(), link.heard_at):
            self._ask_clock(link, memory)
            return
        link.is_up = True
        self._roster.is_up(link.node)
        self._on_up(link, memory)
