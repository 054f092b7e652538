"""The command `compilepool` as one piece: its help, its completion, its exit codes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from compilepool.cli.main import app
from tests.processes.replays import compilepool
from tests.sharing import programs, supervisors

PAGE = Path(__file__).parents[2] / "docs/command_line.md"
COMMANDS = [
    str(command.callback.__name__) for command in app.registered_commands if command.callback
]


def test_the_help_fits_a_screen_and_has_every_command_in_a_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = compilepool("--help")
    lines = ended.stdout.splitlines()
    assert ended.returncode == 0
    assert len(lines) < 24  # one is left for the prompt
    assert max(map(len, lines)) <= 80
    assert "..." not in ended.stdout.partition("\n")[2]  # no description is cut
    listed = re.findall(r"^  (\w+)  ", ended.stdout, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)
    assert "Other:" not in ended.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help_and_is_on_the_page(command: str) -> None:
    ended = compilepool(command, "--help")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert f"| `compilepool {command}" in PAGE.read_text()


def complete(words: str) -> list[str]:
    """What bash offers for the last word, which has been begun."""
    env = {
        **os.environ,
        "_COMPILEPOOL_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split(" ")) - 1),
    }
    code = "from compilepool.cli.main import app; app(prog_name='compilepool')"
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return ended.stdout.split()


def test_a_shell_completes_commands_options_pools_and_crashes(runtime: Path, root: Path) -> None:
    assert complete("compilepool cra") == ["crashes"]
    assert "--once" in complete("compilepool top --")
    assert complete("compilepool stop ") == []
    assert complete("compilepool replay ") == []
    with programs(1, "max_workers=1, shared=True") as (program,):
        program.run("pool.submit(jobs.crash).exception()")
        (file,) = (runtime / "compilepool").glob("*.sock")
        assert complete(f"compilepool stop {file.stem[:3]}") == [file.stem]
        (folder,) = root.iterdir()
        assert complete(f"compilepool replay {folder.name[:4]}") == [folder.name]
        assert supervisors()
        program.end()


@pytest.mark.usefixtures("runtime")
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--version"], 0),
        (["nonsense"], 2),
        (["top", "--interval", "0"], 2),
        (["top"], 2),
        (["top", "--json"], 0),
        (["ps"], 0),
        (["ps", "--nonsense"], 2),
        (["stop"], 2),
        (["stop", "--all"], 0),
        (["stop", "--all", "--json"], 0),
        (["stop", "0123"], 2),
        (["crashes"], 0),
        (["replay", "no such folder"], 2),
        (["run", "--", "true"], 0),
        (["run", "--", "sh", "-c", "exit 7"], 7),
        (["run", "--", "no such program"], 2),
        (["run", "--timeout", "-1", "--", "true"], 2),
    ],
)
def test_exit_codes_are_those_of_the_page(arguments: Sequence[str], code: int) -> None:
    ended = compilepool(*arguments)
    assert ended.returncode == code, ended.stderr
    assert (ended.stderr == "") == (code in (0, 7)) or arguments == []
