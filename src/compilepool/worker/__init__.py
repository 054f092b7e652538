"""The worker process. It runs jobs, one at a time.

It imports only the standard library, `any_process`, `linux` and `wire`, and cloudpickle on demand.
"""
