"""The live view of `top`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import ClassVar, Literal

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.widgets import DataTable, Footer, Input, Static

from compilepool.cli.top import tables
from compilepool.cli.top.pools import Pools
from compilepool.cli.top.screens import Question, TextScreen
from compilepool.cli.top.sight import PoolSight, what_failed
from compilepool.client.job_dump import dump_of
from compilepool.client.reports.errors import error_of, report_text

_SIDE_BY_SIDE = 140  # columns


class Table(DataTable[Text]):
    """A table whose rows change, and which keeps its cursor on the same row.

    Args:
        columns: its columns.
        id: its name.
    """

    def __init__(self, columns: tuple[tables.Column, ...], id: str) -> None:
        super().__init__(id=id, cursor_type="row", cell_padding=0, zebra_stripes=False)
        self._columns = columns
        self._rows: list[tables.Row] = []
        self._shown: list[tuple[int, tables.Column, int]] = []

    @property
    def chosen(self) -> tables.Row | None:
        """The row under the cursor."""
        return self._rows[self.cursor_row] if 0 <= self.cursor_row < len(self._rows) else None

    def on_resize(self) -> None:
        self.show(self._rows)

    def show(self, rows: list[tables.Row]) -> None:
        """Show other rows."""
        chosen = self.chosen
        at = self.scroll_offset
        shown = tables.fit(self._columns, max(20, self.size.width - 1))
        self.clear(columns=shown != self._shown)
        if shown != self._shown:
            self._shown = shown
            for _, column, width in shown:
                title = tables.cut(column.title, width, is_right=column.is_right)
                self.add_column(Text(title, style="bold"), width=width + 1)
        self._rows = rows
        for row in rows:
            self.add_row(
                *(
                    Text(tables.cut(row.cells[n], width, is_right=column.is_right), row.style)
                    for n, column, width in shown
                )
            )
        keys = [row.key for row in rows]
        if chosen is not None and chosen.key in keys:
            self.move_cursor(row=keys.index(chosen.key), animate=False, scroll=False)
        self.scroll_to(at.x, at.y, animate=False)


class TopApp(App[None]):
    """Shows all pools until the user quits.

    Args:
        pools: the pools.
        interval_s: the time between two looks, in seconds.
        client: the filter to begin with.
    """

    TITLE = "compilepool top"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #summary { height: 1; text-style: bold; }
    #filter { display: none; height: 1; border: none; padding: 0; }
    #filter.open { display: block; }
    #main { layout: vertical; height: 1fr; }
    #left, #right { width: 1fr; height: auto; }
    #left { height: 1fr; min-height: 11; }
    Table { height: auto; scrollbar-size-horizontal: 0; margin-bottom: 1; }
    Table:focus { background: $surface; }
    #pools { max-height: 4; }
    #clients { max-height: 5; }
    #jobs { height: 1fr; min-height: 4; }
    #failures { max-height: 4; }
    .wide #main { layout: horizontal; }
    .wide #pools { max-height: 9; }
    .wide #left { width: 3fr; }
    .wide #right { width: 2fr; height: 1fr; margin-left: 1; }
    .wide #clients { max-height: 50%; }
    .wide #failures { max-height: 50%; }
    TextScreen, Question { align: center middle; }
    .box { width: 96%; height: 90%; border: round $primary; background: $surface; }
    .question { width: auto; height: auto; border: round $error; padding: 1 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q", "quit", "Quit"),
        ("s", "sort", "Sort"),
        ("r", "reverse", "Reverse"),
        ("f", "filter", "Filter"),
        ("d", "dump", "Stacks"),
        ("x", "cancel", "Cancel"),
        ("z", "quiesce", "Quiesce"),
    ]

    def __init__(self, pools: Pools, *, interval_s: float = 1.0, client: str = "") -> None:
        super().__init__()
        self._pools = pools
        self._interval_s = interval_s
        self._wanted = client
        self._sort = "pool"
        self._is_reversed = False
        self._found: list[PoolSight] = []
        self._busy = threading.Lock()

    def compose(self) -> ComposeResult:
        yield Static(id="summary")
        yield Input(self._wanted, "part of a client's PID or name", id="filter", compact=True)
        with Container(id="main"):
            with Vertical(id="left"):
                yield Table(tables.POOLS, "pools")
                yield Table(tables.JOBS, "jobs")
            with Vertical(id="right"):
                yield Table(tables.CLIENTS, "clients")
                yield Table(tables.FAILURES, "failures")
        yield Footer(compact=True)

    def on_mount(self) -> None:
        self.query_one("#jobs", Table).focus()
        self._look()
        self.set_interval(self._interval_s, self._look)

    def on_resize(self) -> None:
        self.screen.set_class(self.size.width >= _SIDE_BY_SIDE, "wide")

    @work(thread=True, group="look")
    def _look(self) -> None:
        # One that waits for a supervisor that does not answer may last longer than the interval.
        if not self._busy.acquire(blocking=False):
            return
        try:
            found = self._pools.look()
        finally:
            self._busy.release()
        self._in_loop(lambda: self._show(found))

    def _in_loop(self, show: Callable[[], object]) -> None:
        """From another thread: have the app show something, unless it is ending.

        Then its widgets go one after the other, so it must not begin to.
        """
        self.call_from_thread(lambda: show() if self.is_running else None)

    def _show(self, found: list[PoolSight] | None = None) -> None:
        if found is not None:
            self._found = found
        wanted = self._wanted
        pools = tables.only(self._found, wanted)
        self._table("pools").show(tables.pool_rows(pools))
        self._table("clients").show(tables.client_rows(pools, wanted))
        rows = tables.job_rows(pools, wanted, self._sort, is_reversed=self._is_reversed)
        self._table("jobs").show(rows)
        self._table("failures").show(tables.failure_rows(pools, wanted))
        self.screen_stack[0].query_one("#summary", Static).update(Text(tables.summary(pools)))
        self._filter_field.set_class(bool(wanted) or self.focused is self._filter_field, "open")

    def _table(self, id: str) -> Table:
        return self.screen_stack[0].query_one(f"#{id}", Table)

    @property
    def _filter_field(self) -> Input:
        return self.screen_stack[0].query_one("#filter", Input)

    def action_sort(self) -> None:
        """Sort by the next column."""
        names = [*tables.SORTS]
        self._sort = names[(names.index(self._sort) + 1) % len(names)]
        self.notify(f"sorted by {self._sort}")
        self._show()

    def action_reverse(self) -> None:
        """Sort the other way round."""
        self._is_reversed = not self._is_reversed
        self._show()

    def action_filter(self) -> None:
        """Ask for a filter."""
        field = self._filter_field
        field.add_class("open")
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._table("jobs").focus()
        self._filter_by(event.value)

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter: show a failure or a job's stacks, or filter by a client."""
        row = event.data_table.chosen if isinstance(event.data_table, Table) else None
        if row is None:
            return
        if row.failed is not None:
            error = error_of(row.failed.failure, row.failed.job)
            self.push_screen(TextScreen(what_failed(row.failed), report_text(error)))
        elif row.client:
            self._filter_by("" if self._wanted == str(row.client) else str(row.client))
        elif row.run:
            self.action_dump()

    def _filter_by(self, text: str) -> None:
        self._wanted = text.strip()
        self._filter_field.value = self._wanted
        self._show()

    def action_dump(self) -> None:
        """Show the stacks of the chosen job."""
        if row := self._chosen_job():
            self._dump(row)

    @work(thread=True, group="ask")
    def _dump(self, row: tables.Row) -> None:
        job = row.cells[5]
        found = self._pools.dump(row.pool, row.run)
        text = found if isinstance(found, str) else str(dump_of(found, job))
        self._in_loop(lambda: self.push_screen(TextScreen(f"job {job}", text)))

    def action_cancel(self) -> None:
        """Cancel the chosen job, for all who wait for it."""
        row = self._chosen_job()
        if row is None:
            return

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._cancel(row)

        question = f"Cancel job {row.cells[5]} of client {row.cells[8]}?"
        self.push_screen(Question(question), answered)

    @work(thread=True, group="ask")
    def _cancel(self, row: tables.Row) -> None:
        self._tell(self._pools.cancel(row.pool, row.run), "cancelled")

    def action_quiesce(self) -> None:
        """Let the pool of the chosen row sleep."""
        table = self.focused
        row = table.chosen if isinstance(table, Table) else None
        if row is None or row.pool.look is None:
            self.notify("choose a pool, or a row of one")
            return
        pool = row.pool

        def answered(is_sure: bool | None) -> None:
            if is_sure:
                self._quiesce(pool)

        self.push_screen(Question(f"Let pool {pool.label} sleep after its jobs?"), answered)

    @work(thread=True, group="ask")
    def _quiesce(self, pool: PoolSight) -> None:
        self._tell(self._pools.quiesce(pool), "the pool sleeps after its jobs")

    def _tell(self, trouble: str, done: str) -> None:
        severity: Literal["error", "information"] = "error" if trouble else "information"
        self._in_loop(lambda: self.notify(trouble or done, severity=severity))

    def _chosen_job(self) -> tables.Row | None:
        row = self._table("jobs").chosen
        if row is None or not row.run:
            self.notify("choose a job")
            return None
        return row
