"""`compilepool crashes`: lists the crash folders."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.text import Text

from compilepool.client.crashes.crash_folder import default_root, folder_names
from compilepool.client.crashes.kept_crash import KeptCrash
from compilepool.text import printable


def list_crashes(*, as_json: bool) -> None:
    """Print the crash folders in the default crash root, the newest first.

    Raises:
        OSError: the crash root cannot be read.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):  # its encoding may lack letters of a job's name
        sys.stdout.reconfigure(errors="replace")
    root = default_root()
    rows = [_row(folder) for folder in _folders(root) if folder.exists()]
    if as_json:
        json.dump(rows, sys.stdout, indent=1)
        print()
    elif rows:
        _show(rows)
    else:
        print(printable(f"no crashes in {root}"))


def names_of_crashes() -> list[str]:
    """The names of the folders in the default crash root. Raises OSError."""
    return [folder.name for folder in _folders(default_root())]


def _folders(root: Path) -> Iterator[Path]:
    try:
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        names = folder_names(root_fd)
    finally:
        os.close(root_fd)
    yield from (root / name for name in names)


def _row(folder: Path) -> dict[str, Any]:
    """What is shown about a folder."""
    try:
        with KeptCrash.open(folder) as crash:
            return {
                "folder": str(folder),
                "time": crash.time.isoformat(),
                "when": crash.local_time,
                "job": crash.job,
                "signal": crash.report.get("signal"),
                "exitcode": crash.report.get("exitcode"),
                "what": crash.ending,
                "where": crash.place,
                "bytes": crash.size,
            }
    except ValueError as error:
        return {"folder": str(folder), "error": str(error)}


def _show(rows: list[dict[str, Any]]) -> None:
    """Print two lines for each: a table with a column of paths would be too wide for a terminal."""
    console = Console(highlight=False)
    for row in rows:
        if "error" in row:
            line = Text(f"cannot be replayed: {printable(row['error'])}", style="yellow")
        else:
            where = f" in {row['where']}" if row["where"] else ""
            line = Text.assemble(
                f"{row['when']}  ",
                (row["what"], "red"),
                "  ",
                (printable(row["job"]), "bold"),
                f"{where}, {decimal(row['bytes'])}",
            )
        console.print(line, soft_wrap=True)
        console.print(Text(f"    {printable(row['folder'])}"), soft_wrap=True)
