"""Connections of `multiprocessing` in calls and results.

`pickle` would send the number of a `Connection`'s descriptor. That number means another file in the
receiver, which the receiver would then close. The pickler of `multiprocessing` has the descriptor
itself handed over, once (Lib/multiprocessing/resource_sharer.py).
"""

from __future__ import annotations

import copyreg
import sys

from compilepool.light_typing import Any


def teach_pickle() -> None:
    """Have `pickle` send connections as `multiprocessing` does, if that is imported."""
    connection: Any = sys.modules.get("multiprocessing.connection")
    if connection is None:
        return
    reduce = getattr(connection, "reduce_connection", None)  # None: it is being imported
    if reduce is not None and connection.Connection not in copyreg.dispatch_table:
        copyreg.pickle(connection.Connection, reduce)
