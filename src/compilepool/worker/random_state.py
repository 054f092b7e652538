"""Where the random number generators of a worker start from.

Forked workers would share the state of every generator that the preload has loaded: `random` starts
anew in a forked child by itself, numpy and torch do not. Nothing is imported here for that.

Only the generators that a module has for all its users are known: those of `random`,
`numpy.random` and `torch`, the last for CPUs. Objects like `numpy.random.default_rng()` belong to
whoever has made them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from compilepool.any_process.when_imported import WhenImported
from compilepool.light_typing import Any

_seed: int | None = None
_awaited: set[str] = set()
"""The modules that are seeded when they are imported."""


def start_anew(seed: int | None) -> None:
    """Seed all generators, those of modules that are imported later as well.

    Args:
        seed: the seed, 0 to 2**64-1; None: one from the system for each generator that is there
            now. What is imported later starts from the system anyway.
    """
    global _seed  # noqa: PLW0603 - a fact about the process as a whole
    _seed = seed
    for name, start in _STARTS.items():
        module = sys.modules.get(name)
        if module is not None and not getattr(module.__spec__, "_initializing", False):
            start(module, seed)
        elif module is None and seed is not None and name not in _awaited:
            _awaited.add(name)
            WhenImported(name, _imported)


def _imported(module: Any) -> None:
    _awaited.discard(module.__name__)
    if _seed is not None:
        _STARTS[module.__name__](module, _seed)


def _start_random(random: Any, seed: int | None) -> None:
    random.seed(seed)


def _start_numpy(random: Any, seed: int | None) -> None:
    words = None if seed is None else [seed & 0xFFFFFFFF, seed >> 32]
    try:
        random.seed(words)
    except TypeError:
        # Somebody has set another bit generator than MT19937, which alone can be seeded again
        # (numpy/random/mtrand.pyx).
        random.set_bit_generator(type(random.get_bit_generator())(words))


def _start_torch(torch: Any, seed: int | None) -> None:
    # `torch.manual_seed` would also seed the generators of GPUs, and so may start their drivers.
    generator = torch.default_generator
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)


_STARTS: dict[str, Callable[[Any, int | None], None]] = {
    "random": _start_random,
    "numpy.random": _start_numpy,
    "torch": _start_torch,
}
"""How the generators of a module start anew, by the module's name."""
