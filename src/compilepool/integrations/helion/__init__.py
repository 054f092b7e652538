"""compilepool for Helion: its autotuner compiles configurations in a `CompilePool`.

    from compilepool.integrations.helion import install

    install()

Helion's setting `autotune_precompile` must be "fork", as it is by default. Every other step of the
autotuner stays Helion's own.
"""

from __future__ import annotations

from compilepool.integrations.helion.installation import current_pool, install, uninstall

__all__ = ["current_pool", "install", "uninstall"]
