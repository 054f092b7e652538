"""The terms of a job: what its own options and its pool's say of how it is treated, and its seed.

Apart from `options`, which is imported on other platforms as well.
"""

from __future__ import annotations

from compilepool.client.options import AS_THE_POOL, JobOptions, PoolOptions
from compilepool.text import bytes_of, size_text
from compilepool.wire.submission import DEFAULT_TERMS, ENV_LIMIT, JobTerms, env_as_json


def terms_of(pool: PoolOptions, job: JobOptions) -> JobTerms:
    """The terms of jobs with these options.

    Raises:
        ValueError: they have too large an environment.
    """
    timeout = pool.timeout if job.timeout is AS_THE_POOL else job.timeout
    limit = pool.memory_limit if job.memory_limit is AS_THE_POOL else job.memory_limit
    expected = job.expected_memory
    terms = JobTerms(
        timeout,
        None if limit is None else bytes_of(limit),
        None if expected is None else bytes_of(expected),
        job.retries,
        job.priority,
        job.key or "",
        tuple(job.env.items()),
    )
    if len(env_as_json(terms.env)) > ENV_LIMIT:
        raise ValueError(
            f"env of a job must have {ENV_LIMIT // 1024} KiB at most; give what all jobs need to"
            " the pool's env"
        )
    return DEFAULT_TERMS if terms == DEFAULT_TERMS else terms


def check_memory_limit(name: str, terms: JobTerms, idle_memory: int) -> None:
    """Check that a job with these terms can run.

    Args:
        name: the job's.
        terms: its terms.
        idle_memory: bytes that a worker takes that has no job; 0 if that is unknown.

    Raises:
        ValueError: its memory limit is less than that.
    """
    if terms.memory_limit is not None and terms.memory_limit < idle_memory:
        raise ValueError(
            f"the memory_limit of job {name!r}, {size_text(terms.memory_limit)}, is less than what"
            f" an idle worker of this pool takes, {size_text(idle_memory)}; raise it"
        )


_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def seed_of_job(pool_seed: int, number: int) -> int:
    """The seed of a job: no two jobs of a pool have the same one.

    Which worker runs a job, and what ran there before, differs from run to run of a program. The
    order in which jobs are submitted need not. So the seed depends on the job's number, and on
    nothing else. It is an output of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom
    Number Generators", 2014), whose steps can each be undone.

    Args:
        pool_seed: the pool's seed, 0 to 2**64-1.
        number: the number of the job among all that were submitted, less than 2**64.
    """
    mixed = (pool_seed + number * _GOLDEN) & _MASK
    mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
    return mixed ^ (mixed >> 31)
