"""compilepool against other pools of worker processes: `python -m benchmarks`.

The scripts beside this, each of them about compilepool alone, tell more of one thing.
"""
