"""What `install` has put into this process."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from compilepool.client.pool import CompilePool
    from compilepool.integrations.torch.takeover.inductor import Takeover
    from compilepool.integrations.torch.takeover.installation import Installation


class _Installed:
    """The installation of this process, if there is one. Any thread may call its methods."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._installation: Installation | None = None
        self._takeover: Takeover | None = None

    @property
    def pool(self) -> CompilePool | None:
        """The pool that Inductor compiles in; None if there is none now."""
        installation = self._installation
        return None if installation is None else installation.pool

    def install(
        self,
        on_crash: str,
        shared: bool | None,
        worker_mode: str | None,
        pool_options: dict[str, Any],
        *,
        is_early: bool,
    ) -> None:
        """Have Inductor use a pool of ours, in place of its own or an earlier one of ours.

        Args:
            on_crash: as `compilepool.integrations.torch.install` has it.
            shared: as `install` has it.
            worker_mode: as `install` has it.
            pool_options: the options of `CompilePool`.
            is_early: whether the pool starts now, rather than when Inductor asks for it.

        Raises:
            As `compilepool.integrations.torch.install`.
        """
        from compilepool.integrations.torch.takeover.inductor import Takeover
        from compilepool.integrations.torch.takeover.installation import Installation

        new = Installation(on_crash, shared, worker_mode, pool_options, is_early=is_early)
        with self._lock:
            try:
                if self._takeover is None:
                    self._takeover = Takeover(new)
                self._takeover.source = new
            except BaseException:
                new.end()
                raise
            old, self._installation = self._installation, new
        if old is not None:
            old.end()

    def uninstall(self) -> None:
        """Have Inductor use its own pool again. Waits for the jobs of ours, and ends it."""
        with self._lock:
            installation, self._installation = self._installation, None
            takeover, self._takeover = self._takeover, None
            if takeover is not None:
                takeover.undo()
        if installation is not None:
            installation.end()

    def after_fork(self) -> None:
        """In a forked child: the thread that held a lock may not be in this process."""
        self._lock = threading.RLock()
        if self._installation is not None:
            self._installation.after_fork()


installed = _Installed()
os.register_at_fork(after_in_child=installed.after_fork)
