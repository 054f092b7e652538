"""Commands as users run them, and crashed jobs that are replayed."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def compilepool(
    *arguments: str | Path, stdin: str = "", path: str | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **({} if path is None else {"PATH": path})}
    command = [sys.executable, "-m", "compilepool.cli.main", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, env=env, capture_output=True, text=True, check=False, cwd=cwd
    )


def listed() -> list[dict[str, Any]]:
    """What `compilepool ps --json` tells."""
    ended = compilepool("ps", "--json")
    assert (ended.returncode, ended.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(ended.stdout)
    return rows


def crash(*_arguments: object) -> None:
    ctypes.string_at(0)


def reject() -> None:
    raise ValueError("no such tile")


def state() -> tuple[object, ...]:
    """What a job sees of its process."""
    return (
        dict(os.environ),
        sys.argv,
        sys.path,
        os.getcwd(),
        [name for name in ("json.tool", "preloaded") if name in sys.modules],
        getattr(sys, "initialized_with", None),
    )


def initialize(value: str) -> None:
    sys.initialized_with = value  # type: ignore[attr-defined]


def exit_if_state_is(expected: tuple[object, ...]) -> None:
    if state() == expected:
        os._exit(9)
    raise AssertionError(f"{state()}, not {expected}")


class Reverser:
    """A serializer that pickle and cloudpickle cannot read."""

    def dumps(self, obj: object, /) -> bytes:
        import pickle

        return pickle.dumps(obj)[::-1]

    def loads(self, data: bytes, /) -> Any:
        import pickle

        return pickle.loads(data[::-1])
