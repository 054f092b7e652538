"""Fill JAX's compilation cache in parallel, ahead of time. JAX has no integration of its own.

Each worker lowers and compiles. What it leaves in the cache, this program loads.

Run: python examples/compilers/jax_cache.py FOLDER    (needs jax)
"""

import functools
import os
import sys

os.environ["JAX_COMPILATION_CACHE_DIR"] = sys.argv[1]
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import jax
import jax.numpy as jnp

from compilepool import CompilePool


def model(depth, x, weights):
    for _ in range(depth):
        x = jnp.tanh(x @ weights) + jnp.sort(x, axis=0)
    return jnp.linalg.svd(x)[1]


def compile_model(depth, width):
    """The job: the program will make the same call, so it will look for the same entry."""
    shape = jax.ShapeDtypeStruct((width, width), "float32")
    jax.jit(functools.partial(model, depth)).lower(shape, shape).compile()


hits = []
jax.monitoring.register_event_listener(
    lambda event, **_: hits.append(event) if event.endswith("/cache_hits") else None
)
depths = range(1, 9)
# JAX may be preloaded: it starts threads, and opens a GPU, only when it first compiles.
with CompilePool(max_workers=2, preload=["jax", "jax.numpy"], timeout=300) as pool:
    list(pool.map(compile_model, depths, [32] * len(depths)))

x = jax.device_put(jnp.ones((32, 32), "float32"))
hits.clear()
for depth in depths:
    jax.jit(functools.partial(model, depth))(x, x).block_until_ready()
print(f"{len(hits)} of {len(depths)} loaded from the cache")
