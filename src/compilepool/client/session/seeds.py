"""The seed of each job of a pool that has a seed.

Which worker runs a job, and what ran there before, differs from run to run of a program. The order
in which jobs are submitted need not. So a job's seed depends on its number, and on nothing else.
"""

from __future__ import annotations

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def seed_of_job(pool_seed: int, number: int) -> int:
    """The seed of a job: no two jobs of a pool have the same one.

    It is an output of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number
    Generators", 2014), whose steps can each be undone.

    Args:
        pool_seed: the pool's seed, 0 to 2**64-1.
        number: the number of the job among all that were submitted, less than 2**64.
    """
    mixed = (pool_seed + number * _GOLDEN) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
