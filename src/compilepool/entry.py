"""Entry of every process of ours, run by path: `python .../entry.py MODULE ARGUMENT...`.

Runs the `main` of the module. The package is loaded from where this file is: by the time that the
client's `sys.path` is known here, another version of it might have been found.
"""

import gc
import os
import sys

# As `importlib.util` has them, which takes long to import.
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import spec_from_file_location

package = os.path.dirname(os.path.abspath(__file__))
spec = spec_from_file_location(
    "compilepool", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
)
assert spec is not None
assert spec.loader is not None
sys.modules["compilepool"] = module_from_spec(spec)
spec.loader.exec_module(sys.modules["compilepool"])

# What is garbage after the imports is not worth the time that it takes to look for it.
gc.disable()
module = sys.argv.pop(1)
__import__(module)
gc.freeze()
gc.enable()

# In a worker that was forked, the fork server's `main` returns what to go on with: its stack is
# gone by then, and no traceback of a job shows it.
continuation = sys.modules[module].main()
if continuation is not None:
    continuation()
