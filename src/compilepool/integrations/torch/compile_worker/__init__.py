"""The modules of `torch._inductor.compile_worker`, under their names, on a `CompilePool`.

`utils`, `timer`, `tracked_process_pool` and `watchdog` do not import torch.
"""
