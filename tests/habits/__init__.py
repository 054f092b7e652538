"""Programs at random: odd habits around a pool, composed from a seed, run as real processes.

`habit.py` says what a habit is, and each file of habits beside it has those of one subject.
`plan.py` chooses, `program.py` is the program, `trial.py` runs it and judges, `shrinking.py` drops
what a fault does not need. `python -m tests.habits` goes on for as long as one likes.
"""
