"""The modules of `torch._inductor.compile_worker`, with their names, on a compilepool.

`utils`, `timer`, `tracked_process_pool` and `watchdog` need no torch.
"""
