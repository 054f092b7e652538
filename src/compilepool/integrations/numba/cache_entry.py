"""`CacheEntry`: where Numba keeps a function on the disk. Program and worker must agree on it.

It reads attributes of Numba's that are not public: `Dispatcher._cache`, `Cache._cache_file` and
`Cache._index_key` (numba/core/caching.py).
"""

from __future__ import annotations

from compilepool.light_typing import Any, NamedTuple


class CacheEntry(NamedTuple):
    """What Numba looks a function up by. A program misses the cache if one of these differs."""

    index_file: str
    source_stamp: object
    processor: object
    code: str
    closure: str

    @staticmethod
    def of(dispatcher: Any) -> CacheEntry:
        """The entry of a function that has a cache."""
        cache = dispatcher._cache
        _, processor, (code, closure) = cache._index_key((), dispatcher.targetctx.codegen())
        file = cache._cache_file
        return CacheEntry(file._index_path, file._source_stamp, processor, code, closure)

    def check(self, here: CacheEntry) -> None:
        """Check that this process uses the same entry as the program.

        Args:
            here: this process's entry.

        Raises:
            RuntimeError: it does not, so the program would not find what this process compiles.
        """
        for field, theirs, ours in zip(self._fields, self, here, strict=True):
            if theirs != ours:
                raise RuntimeError(
                    f"the program would not find this function in the cache: {_CAUSES[field]}"
                    f" (in the program {theirs!r}, in the worker {ours!r})"
                )


_CAUSES = {
    "index_file": "it looks in another file; set NUMBA_CACHE_DIR in the environment, before the"
    " pool starts",
    "source_stamp": "the source file has changed since the program imported it; start the program"
    " again",
    "processor": "Numba compiles for another processor there",
    "code": "the function has other code; start the program again",
    "closure": "its closure pickles differently in each process, as jitted functions do; make them"
    " globals of the module",
}
