"""Benchmarks of compilepool.

`python -m benchmarks` compares it with other pools of worker processes. The scripts limits.py,
orphans.py, reports.py, warm.py, where.py and gpt_gpu.py measure single aspects of compilepool in
more detail.
"""
