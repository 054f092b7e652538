"""What this process is to `multiprocessing`, while another thread is importing that."""

from __future__ import annotations

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from compilepool.client.connection.own_process import own_authkey, own_name, own_start_method


@pytest.mark.parametrize("name", ["multiprocessing.process", "multiprocessing.context"])
def test_a_module_that_is_only_partly_imported_tells_nothing_wrong(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    statements = ast.parse(Path(spec.origin).read_text()).body
    known = own_authkey(), own_name()
    keys = set()
    for count in range(len(statements) + 1):
        partly = ModuleType(name)
        partly.__package__ = "multiprocessing"
        code = compile(ast.Module(statements[:count], []), spec.origin, "exec")
        exec(code, partly.__dict__)
        monkeypatch.setitem(sys.modules, name, partly)
        keys.add(own_authkey())
        assert own_name() == known[1]
        assert own_start_method() == ""
    assert "" in keys or name != "multiprocessing.process"
