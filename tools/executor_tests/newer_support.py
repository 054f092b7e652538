"""What CPython 3.13's tests want of `test.support`, and that of Python 3.11 and 3.12 lacks.

The fetched tests import this wherever they run, also in workers.
"""

from __future__ import annotations

from typing import Any

from test import support

_NEWER: dict[str, Any] = {
    "Py_GIL_DISABLED": False,
    "requires_gil_enabled": lambda _reason: lambda test: test,
}

for _name, _value in _NEWER.items():
    if not hasattr(support, _name):
        setattr(support, _name, _value)
if "thread" not in (support.check_sanitizer.__kwdefaults__ or {}):
    # Nobody runs our tests under ThreadSanitizer.
    support.check_sanitizer = lambda **_: False
    support.skip_if_sanitizer = lambda *_, **__: lambda test: test
