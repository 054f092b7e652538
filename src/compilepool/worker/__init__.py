"""A worker process: runs jobs, one at a time. Standard library, `wire` and cloudpickle only."""
