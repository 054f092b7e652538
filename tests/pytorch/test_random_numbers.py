"""Random numbers of numpy and torch in jobs: different in each worker, or reproducible."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest

from compilepool import CompilePool
from tests.proc import PATIENCE_S, wait_until

SEEDED = """
import numpy, torch
numpy.random.seed(3)
torch.manual_seed(3)
"""

OTHER_GENERATOR = """
import numpy
numpy.random.set_bit_generator(numpy.random.PCG64(3))
"""


def draw(peers: list[Path], own: int) -> tuple[float, float]:
    """What this worker draws. Returns when all others are in it, too."""
    import numpy as np
    import torch

    peers[own].touch()
    assert wait_until(lambda: all(path.exists() for path in peers))
    return float(np.random.random()), float(torch.rand(()))


def draw_numpy(peers: list[Path], own: int) -> Any:
    import numpy as np

    peers[own].touch()
    assert wait_until(lambda: all(path.exists() for path in peers))
    return float(np.random.random())


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_workers_differ(
    start_method: Literal["fork", "spawn"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "seeded.py").write_text(SEEDED)
    monkeypatch.syspath_prepend(tmp_path)
    peers = [tmp_path / "0", tmp_path / "1"]
    with CompilePool(2, preload=["seeded"], start_method=start_method) as pool:
        futures = [pool.submit(draw, peers, own) for own in range(2)]
        (numpy, torch), (numpy_there, torch_there) = [each.result(PATIENCE_S) for each in futures]
    assert numpy != numpy_there
    assert torch != torch_there


def test_another_bit_generator_starts_anew_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other_generator.py").write_text(OTHER_GENERATOR)
    monkeypatch.syspath_prepend(tmp_path)
    peers = [tmp_path / "0", tmp_path / "1"]
    with CompilePool(2, preload=["other_generator"]) as pool:
        futures = [pool.submit(draw_numpy, peers, own) for own in range(2)]
        first, second = [each.result(PATIENCE_S) for each in futures]
    assert first != second


def draw_alone(_number: int) -> tuple[float, float]:
    import numpy as np
    import torch

    return float(np.random.random()), float(torch.rand(()))


def test_with_a_seed_the_numbers_are_the_same_again_loaded_early_or_late() -> None:
    with CompilePool(1, seed=7) as pool:  # the first job imports them
        drawn = list(pool.map(draw_alone, range(4)))
    with CompilePool(2, seed=7, preload=["numpy", "torch"]) as pool:
        assert list(pool.map(draw_alone, range(4))) == drawn
    assert len({number for pair in drawn for number in pair}) == 8
