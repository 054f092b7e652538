"""How a program is started."""

from __future__ import annotations

import os

from tests.habits.habit import Launch, launch_habit


@launch_habit(group="output")
def without_streams(launch: Launch) -> None:
    launch.shell.append("exec 0<&- 1>&- 2>&-")


@launch_habit(group="output")
def without_input(launch: Launch) -> None:
    launch.shell.append("exec 0<&-")


@launch_habit(group="output")
def into_a_closed_pipe(launch: Launch) -> None:
    launch.shell.append("exec 1>/dev/full")


@launch_habit()
def with_signals_ignored(launch: Launch) -> None:
    launch.shell.append("trap '' CHLD HUP TERM USR1 USR2 PIPE")


@launch_habit()
def with_few_descriptors(launch: Launch) -> None:
    launch.shell.append("ulimit -n 48")


@launch_habit()
def with_a_small_stack(launch: Launch) -> None:
    launch.shell.append("ulimit -s 1024")


@launch_habit(group="flags")
def in_development_mode(launch: Launch) -> None:
    launch.flags += ["-X", "dev"]


@launch_habit(group="flags")
def isolated(launch: Launch) -> None:
    launch.flags.append("-I")


@launch_habit(group="flags")
def optimised(launch: Launch) -> None:
    launch.flags += ["-OO", "-B"]


@launch_habit(group="flags")
def with_bytes_warnings(launch: Launch) -> None:
    launch.flags += ["-bb", "-W", "error"]


@launch_habit(group="flags")
def unbuffered(launch: Launch) -> None:
    launch.flags.append("-u")


@launch_habit(group="flags")
def with_int_limits(launch: Launch) -> None:
    launch.flags += ["-X", "int_max_str_digits=640", "-X", "utf8=0"]


@launch_habit(group="locale")
def in_ascii(launch: Launch) -> None:
    launch.env.update(
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii:strict"
    )


@launch_habit(group="locale")
def in_an_unknown_locale(launch: Launch) -> None:
    launch.env.update(LC_ALL="xx_YY.KOI8-R", LANG="tlh")


@launch_habit()
def with_python_variables(launch: Launch) -> None:
    launch.env.update(
        PYTHONDONTWRITEBYTECODE="1",
        PYTHONHASHSEED="1",
        PYTHONUNBUFFERED="1",
        PYTHONFAULTHANDLER="1",
        PYTHONMALLOC="debug",
        PYTHONTRACEMALLOC="3",
    )


@launch_habit(says=(".*forking it is unsafe.*",))
def with_startup_module(launch: Launch) -> None:
    """A `usercustomize` or `sitecustomize` that opens things and starts a thread."""
    folder = launch.directory / "custom"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import os, socket, threading\n"
        "pair = [each.detach() for each in socket.socketpair()]\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    path = [launch.env["PYTHONPATH"]] if launch.env.get("PYTHONPATH") else []
    launch.env["PYTHONPATH"] = os.pathsep.join([str(folder), *path])


@launch_habit()
def without_home(launch: Launch) -> None:
    launch.env.pop("HOME", None)
    launch.env.pop("USER", None)


@launch_habit()
def with_odd_variables(launch: Launch) -> None:
    launch.env.update(EMPTY="", **{"WITH\nNEWLINE": "a\nb", "BIG": "x" * 100_000, "é": "\udcff"})


@launch_habit()
def with_an_unusable_tmpdir(launch: Launch) -> None:
    launch.env["TMPDIR"] = "/proc/nowhere"


@launch_habit()
def with_nice(launch: Launch) -> None:
    launch.shell.append("renice -n 5 -p $$ >/dev/null")


@launch_habit()
def in_a_session_without_terminal(launch: Launch) -> None:
    launch.shell.append("umask 077; cd /")
