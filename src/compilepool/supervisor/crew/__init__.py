"""The processes that a pool has: fork servers and workers."""
