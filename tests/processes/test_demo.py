"""The command `compilepool`, and its demo as users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import compilepool
from compilepool import WorkerCrashed
from compilepool.cli.demo import command as demo
from compilepool.cli.demo.compilation import PRELOAD, CompiledVariant
from compilepool.cli.demo.faults import FAULTS, segfault
from compilepool.cli.demo.jobs import DemoJob, outcome_of
from compilepool.cli.demo.variants import VARIANTS
from compilepool.cli.main import app
from tests.proc import PATIENCE_S, pool_processes, wait_until

NAMES = {variant.name for variant in VARIANTS}


def need_triton() -> None:
    pytest.importorskip("triton", reason="the demo needs Triton: pip install 'compilepool[triton]'")


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)


def test_every_kernel_is_compiled_the_bad_jobs_fail_alone_and_can_be_replayed(
    tmp_path: Path,
) -> None:
    need_triton()
    output = tmp_path / "new" / "cubins"
    ended = run("-m", "compilepool.cli.main", "demo", "--output", str(output), "-j", "2")
    # A pool that cannot fork after the preload says so on stderr.
    assert (ended.returncode, ended.stderr) == (0, "")
    assert {path.stem for path in output.iterdir()} == NAMES
    assert all(path.read_bytes().startswith(b"\x7fELF") for path in output.iterdir())
    lines = [line.rstrip() for line in ended.stdout.splitlines()]
    for fault in FAULTS:
        assert any(re.fullmatch(rf"{fault.name} +{fault.outcome}", line) for line in lines)
    for variant in VARIANTS:
        size = (output / f"{variant.name}.cubin").stat().st_size
        row = rf"{variant.name} +\d+\.\d\d +{size} +cubin"
        assert any(re.fullmatch(row, line) for line in lines)
    (report,) = re.findall(r"\nbad_job_aborts_in_llvm:\n(.*?)\n\n", ended.stdout, re.DOTALL)
    for text in ("SIGABRT", "llvm::report_fatal_error", "LLVM ERROR: Cannot select", "replay   "):
        assert text in report
    count = len(VARIANTS)
    summary = (
        rf"{count} of {count} kernels compiled in \d+\.\d s wall \(\d+\.\d s of compiling\)"
        r" on 2 workers; 4 bad jobs failed alone"
    )
    assert re.fullmatch(summary, lines[-2])
    assert lines[-1] == f"cubins: {output}"

    (folder,) = Path(os.environ["COMPILEPOOL_CRASH_DIR"]).glob("*bad_job_segfaults*")
    ended = run("-m", "compilepool.cli.main", "replay", str(folder))
    assert ended.returncode == 0, ended.stderr
    assert "SIGSEGV" in ended.stdout
    assert "string_at" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("reproduced: ")


def test_the_kernels_are_many_and_differ() -> None:
    assert len(NAMES) == len(VARIANTS) >= 24
    assert len({fault.outcome for fault in FAULTS}) == len(FAULTS) == 4


def test_a_kernel_that_fails_is_shown_and_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_triton()

    def reject() -> CompiledVariant:
        raise RuntimeError("no such tile\nsecond line")

    jobs = [
        DemoJob("good", lambda: CompiledVariant(b"\x7fELF...", 0.5)),
        DemoJob("rejected", reject),
        DemoJob("crashing", segfault),
        DemoJob("empty", lambda: CompiledVariant(b"", 0.5)),
        DemoJob("good_bad_job", segfault, "exited with code 3"),
    ]
    monkeypatch.setattr(demo, "all_jobs", lambda: jobs)
    (tmp_path / "rejected.cubin").write_text("of an earlier run")
    before = dict(os.environ)
    ended = CliRunner().invoke(app, ["demo", "-o", str(tmp_path), "-j", "1"])
    assert ended.exit_code == 1
    assert dict(os.environ) == before
    assert [path.name for path in tmp_path.iterdir()] == ["good.cubin"]
    assert "raised RuntimeError: no such tile" in ended.output
    assert "second line" in ended.output
    assert "not an ELF file" in ended.output
    assert "in segfault" in ended.output
    assert "1 of 4 kernels compiled" in ended.output
    assert "on 1 worker; 0 of 1 bad jobs failed as they should" in ended.output


def test_a_preload_that_fails_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_triton()
    broken = tmp_path / "broken_preload.py"
    broken.write_text("raise ImportError('of another version')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("compilepool.cli.demo.jobs.PRELOAD", ("broken_preload",))
    ended = CliRunner().invoke(app, ["demo", "-o", str(tmp_path / "cubins")])
    assert ended.exit_code == 1
    assert ended.output.count("preload module 'broken_preload' could not be imported") == 1


def test_an_unnamed_signal_has_an_outcome() -> None:
    error = WorkerCrashed("killed", job="x", signal=signal.SIGRTMIN + 2)
    assert outcome_of(error) == f"crashed: signal {signal.SIGRTMIN + 2}"


def test_without_triton_one_line_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['triton'] = None;"
        "from compilepool.cli.main import app; app(['demo', '-o', sys.argv[1]])"
    )
    ended = run("-c", code, str(tmp_path / "cubins"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "the demo needs Triton: pip install 'compilepool[triton]'\n"
    assert not (tmp_path / "cubins").exists()


def test_an_output_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    need_triton()
    (tmp_path / "file").touch()
    ended = run("-m", "compilepool.cli.main", "demo", "-o", str(tmp_path / "file" / "cubins"))
    assert (ended.returncode, ended.stdout) == (2, "")
    assert re.fullmatch(r"cannot write: .*file.*\n", ended.stderr)


@pytest.mark.parametrize("moment", ["at the start", "with workers at work"])
def test_ctrl_c_ends_it_with_one_line_and_leaves_nothing(tmp_path: Path, moment: str) -> None:
    need_triton()
    code = (
        # It tries the directory with a file, which a signal at that moment would leave.
        "import tempfile; tempfile.gettempdir();from compilepool.cli.main import app; app()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "demo", "-o", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert "Triton kernels" in process.stdout.readline()
        if moment == "with workers at work":
            assert wait_until(lambda: bool(pool_processes("worker", process.pid)))
        # As the terminal does: to all in the foreground. A second one changes nothing.
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, stdout, stderr) == (130, "", "interrupted\n")
    # That no process and no temporary file is left is for the fixture around every test to see.


def test_after_the_preload_there_is_one_thread() -> None:
    need_triton()
    code = f"import os, {', '.join(PRELOAD)}; print(len(os.listdir('/proc/self/task')))"
    assert run("-c", code).stdout == "1\n"


def test_the_command_does_not_import_triton() -> None:
    ended = run("-c", "import sys, compilepool.cli.main; print('triton' in sys.modules)")
    assert ended.stdout == "False\n"


def test_version_and_help() -> None:
    assert CliRunner().invoke(app, ["--version"]).output == (
        f"compilepool {compilepool.__version__}\n"
    )
    assert "demo" in CliRunner().invoke(app, []).output
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0
