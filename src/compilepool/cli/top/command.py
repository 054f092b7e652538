"""`compilepool top`: chooses how to show the pools."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import time

from compilepool.cli.top import tables
from compilepool.cli.top.pools import Pools
from compilepool.cli.top.sight import PoolSight, as_json

_CPU_S = 0.5
"""CPU is measured between two looks this far apart."""

_UNLIMITED = 1000  # columns, where the output is no terminal


def show_pools(*, once: bool, is_json: bool, client: str, interval_s: float) -> None:
    """Show all pools: once, or until the user quits.

    Args:
        once: whether to print one look as text.
        is_json: whether to print one look as JSON.
        client: shows only what concerns clients with this text in their PID or name.
        interval_s: the time between two looks, in seconds.

    Raises:
        ValueError: a live view is not possible here.
    """
    if once or is_json:
        _print_one_look(is_json=is_json, client=client)
        return
    if importlib.util.find_spec("textual") is None:
        raise ValueError("the live view needs textual: pip install 'compilepool[top]'; or --once")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ValueError("the live view needs a terminal; use --once or --json")
    from compilepool.cli.top.app import TopApp

    TopApp(Pools(), interval_s=interval_s, client=client).run()


def _print_one_look(*, is_json: bool, client: str) -> None:
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack letters of a job's name
        sys.stdout.reconfigure(errors="replace")
    pools = Pools()
    if pools.look():
        time.sleep(_CPU_S)
    found = tables.only(pools.look(), client)
    if is_json:
        json.dump(as_json(found), sys.stdout, indent=1)
        print()
        return
    width = os.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED
    print("\n".join(as_text(found, client, width)))


def as_text(pools: list[PoolSight], client: str, width: int) -> list[str]:
    """All pools as lines, none of which is longer than `width`."""
    if not pools:
        whose = f"whose clients match {client!r}" if client else "of this user"
        return [f"no pools {whose} run on this machine"]
    lines = [tables.cut(tables.summary(pools), width).rstrip()]
    for columns, rows in (
        (tables.POOLS, tables.pool_rows(pools)),
        (tables.CLIENTS, tables.client_rows(pools, client)),
        (tables.JOBS, tables.job_rows(pools, client)),
        (tables.FAILURES, tables.failure_rows(pools, client)),
    ):
        if rows:
            lines += ["", *_table(columns, rows, width)]
    return lines


def _table(columns: tuple[tables.Column, ...], rows: list[tables.Row], width: int) -> list[str]:
    fitted = tables.fit(columns, width)
    if width == _UNLIMITED:  # as wide as the longest
        fitted = [
            (n, each, each.width or max(len(row.cells[n]) for row in rows)) for n, each, _ in fitted
        ]
    lines = [[(column.title, column) for _, column, _ in fitted]]
    lines += [[(row.cells[number], column) for number, column, _ in fitted] for row in rows]
    return [
        " ".join(
            tables.cut(text, room, is_right=column.is_right)
            for (text, column), (_, _, room) in zip(line, fitted, strict=True)
        ).rstrip()
        for line in lines
    ]
