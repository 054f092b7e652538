"""Entry of every process of ours, run by path: `python .../wire/entry.py MODULE ARGUMENT...`.

Runs the `main` of the module. The package is loaded from where this file is: by the time that the
client's `sys.path` is known here, another version of it might have been found.
"""

import importlib.util
import os
import sys

package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
spec = importlib.util.spec_from_file_location(
    "compilepool", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
)
assert spec is not None
assert spec.loader is not None
sys.modules["compilepool"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["compilepool"])

# In a worker that was forked, the fork server's `main` returns what to go on with: its stack is
# gone by then, and no traceback of a job shows it.
go_on = importlib.import_module(sys.argv.pop(1)).main()
if go_on is not None:
    go_on()
