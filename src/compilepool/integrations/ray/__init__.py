"""A pool over the nodes of a Ray cluster: `RayCompilePool`.

`pool` is the executor and `session` its life. `dispatcher` is its thread: it brings jobs to nodes
as `router` decides, and their ends to futures by `endings`. `roster` knows the nodes, `link` has
the actor of one. `node/` runs in the actors.
"""

from __future__ import annotations

from compilepool.integrations.ray.pool import RayCompilePool

__all__ = ["RayCompilePool"]
