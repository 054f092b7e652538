"""What `compilepool top` sees of the pools below one runtime directory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from compilepool.cli.top.pools import Pools
from compilepool.cli.top.sight import PoolSight
from compilepool.wire.visiting import PoolLook
from tests.proc import wait_until


class Seen(Pools):
    """All pools below a directory. Others of this user run on the machine, too."""

    def __init__(self, runtime: Path) -> None:
        super().__init__()
        self._runtime = str(runtime)

    def look(self) -> list[PoolSight]:
        self._find_at = 0.0
        return [pool for pool in super().look() if pool.place.startswith(self._runtime)]

    def wait_for(self, condition: Callable[[list[PoolLook]], bool]) -> list[PoolSight]:
        """Wait until all pools have answered and a condition holds for them. Returns the pools."""
        found: list[PoolSight] = []

        def holds() -> bool:
            found[:] = self.look()
            looks = [pool.look for pool in found if pool.look is not None]
            return len(looks) == len(found) and condition(looks)

        assert wait_until(holds), found
        return found

    def wait_for_pools(self, count: int = 1) -> list[PoolSight]:
        """Wait until there are so many pools."""
        return self.wait_for(lambda looks: len(looks) == count)
