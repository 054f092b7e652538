"""Puts our modules in the place of those of torch's compile workers, once torch imports these.

`sitecustomize.py`, beside PyTorch's tests, imports this in every process that they start. Workers
need both, ours and theirs.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

from compilepool.any_process.when_imported import WhenImported
from compilepool.linux.spawn import is_pool_process

THEIRS = "torch._inductor.compile_worker"
OURS = "compilepool.integrations.torch.compile_worker"


def stand_in(theirs: ModuleType) -> None:
    """Have later imports of a module of theirs get ours of the same name.

    What ours has not, it takes from theirs.
    """
    name = theirs.__name__
    sys.modules[name] = importlib.import_module(f"{OURS}{name.removeprefix(THEIRS)}")


if not is_pool_process():
    for each in ("subproc_pool", "timer"):
        WhenImported(f"{THEIRS}.{each}", stand_in)
