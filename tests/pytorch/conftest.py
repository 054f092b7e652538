"""torch is imported here, once, and first: it has warnings of its own, and opens files."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch._inductor.async_compile  # noqa: F401
