"""The environment variables that name one process, and not what it compiles.

Two ranks of a node differ in them and share a pool all the same. So they are no part of a pool's
identity, and the pool's own processes do not have them. Each job of a shared pool has those of its
client.
"""

from __future__ import annotations

from collections.abc import Mapping

RANKS = (
    # https://docs.pytorch.org/docs/stable/elastic/run.html
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    # Launchers of MPI.
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_NODE_RANK",
    "PMI_RANK",
    "PMI_LOCAL_RANK",
    "PMIX_RANK",
    "MPI_LOCALRANKID",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_LOCAL_RANK",
    # https://slurm.schedmd.com/srun.html#SECTION_OUTPUT-ENVIRONMENT-VARIABLES
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "SLURM_TASK_PID",
)
"""Which of the processes of one program this is."""

MEETINGS = (
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_RESTART_COUNT",
    "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_USE_AGENT_STORE",
    "PMI_FD",
    "PMIX_ID",
    "PMIX_NAMESPACE",
    "PMIX_SERVER_TMPDIR",
)
"""Where the processes of one run meet. Each run has other addresses, and may find a warm pool."""

DEVICES = (
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "ASCEND_RT_VISIBLE_DEVICES",
    "SLURM_STEP_GPUS",
)
"""Which devices a process has. No process of a pool opens one."""

RAY = ("RAY_JOB_ID", "RAY_RAYLET_PID", "RAY_WORKER_ID")
"""Ray's names of the program and of the node, in the processes that it starts
(python/ray/_private/services.py)."""

TERMINALS = (
    "_",
    "COLUMNS",
    "DISPLAY",
    "GPG_TTY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "OLDPWD",
    "SHLVL",
    "SSH_AUTH_SOCK",
    "SSH_CLIENT",
    "SSH_CONNECTION",
    "SSH_TTY",
    "STY",
    "TERM_SESSION_ID",
    "TMUX",
    "TMUX_PANE",
    "WINDOWID",
    "XDG_SESSION_ID",
)
"""From where a process was started. The pool's processes have neither terminal nor display."""

FOLDERS = ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
"""Where a process keeps files; each run, or each rank, may have others. A result may name them, so
jobs share a run only if these are equal, see `flights.with_folders`."""

TESTS = ("PYTEST_CURRENT_TEST", "PYTEST_XDIST_WORKER")
"""Which test runs just now; pytest sets them anew for each."""

OWN = (
    "COMPILEPOOL_LINGER",
    "COMPILEPOOL_SHARED",
    "COMPILEPOOL_TORCH",
    "COMPILEPOOL_TORCH_OPTIONS",
    "COMPILEPOOL_TORCH_PID",
)
"""How a program gets its pool, and how long that stays; the last one differs with each run. What
the options mean for the pool's processes is in its configuration."""

NAMES = frozenset({*RANKS, *MEETINGS, *DEVICES, *RAY, *TERMINALS, *FOLDERS, *TESTS, *OWN})


def without_process_variables(env: Mapping[str, str]) -> dict[str, str]:
    """The environment without the variables that name one process."""
    return {name: value for name, value in env.items() if name not in NAMES}


def process_variables(env: Mapping[str, str]) -> dict[str, str | None]:
    """The variables in an environment that name one process.

    None stands for a folder that is not set: a job of another process may have made its worker set
    it, as torch/_inductor/runtime/cache_dir_utils.py does.
    """
    named = {name: value for name, value in env.items() if name in NAMES}
    return {**dict.fromkeys(FOLDERS), **named}
