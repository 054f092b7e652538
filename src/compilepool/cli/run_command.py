"""`compilepool run`: replaces this process by a program whose torch compiles in a `CompilePool`."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from typing import Any, NoReturn

from compilepool.client.connection.sharing import LINGER, SHARED
from compilepool.client.pool import CompilePool
from compilepool.integrations.torch.settings import ENABLE, OPTIONS, PROGRAM_PID


def run_program(
    command: Sequence[str],
    options: Mapping[str, Any],
    *,
    is_shared: bool = False,
    linger_s: float | None = None,
) -> NoReturn:
    """Replace this process by a program.

    Args:
        command: the program, which is looked up in PATH, and its arguments.
        options: arguments of `compilepool.integrations.torch.install`; None: not given.
        is_shared: whether the pools of the program are shared.
        linger_s: how long what they share lives without clients, in seconds; None: as the
            environment says.

    Raises:
        TypeError, ValueError: an option is wrong.
        ValueError: torch in the program would not find compilepool.
        OSError: the program cannot be run.
    """
    given = {name: value for name, value in options.items() if value is not None}
    _check({**given, **({} if linger_s is None else {"linger": linger_s})})
    if not any(point.name == "compilepool" for point in entry_points(group="torch.backends")):
        raise ValueError(
            "torch would not find compilepool, which is not installed, but only on sys.path;"
            " install it with pip"
        )
    settings = {ENABLE: "1", OPTIONS: json.dumps(given), PROGRAM_PID: str(os.getpid())}
    if is_shared:
        settings[SHARED] = "1"
    if linger_s is not None:
        settings[LINGER] = f"{linger_s:g}"
    env = {**os.environ, **settings}
    if env.get("TORCH_DEVICE_BACKEND_AUTOLOAD", "1") != "1":
        raise ValueError(
            "TORCH_DEVICE_BACKEND_AUTOLOAD=0 keeps torch from finding compilepool; unset it"
        )
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        # Python ignores them, exec keeps ignored signals (execve(2)), and programs expect SIG_DFL.
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), env)
    except OSError as error:
        raise OSError(f"cannot run {command[0]}: {error.strerror}") from None


def _check(options: Mapping[str, Any]) -> None:
    """Check the pool's options in this process: in the program, a wrong one is only a warning.

    The trace is left out, because making a pool would create its file, which is the program's.
    """
    not_the_pools = ("on_crash", "trace")
    CompilePool(**{name: options[name] for name in options if name not in not_the_pools})
