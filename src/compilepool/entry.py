"""Entry of every process of ours, run by its path: `python .../entry.py MODULE ARGUMENT...`.

It runs the `main` function of the module. It loads the package from its own folder: the client's
`sys.path`, which is known only later, may have another version of the package.
"""

import gc
import os
import sys

# `importlib.util` has these functions, too, but takes long to import.
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import spec_from_file_location

package = os.path.dirname(os.path.abspath(__file__))
spec = spec_from_file_location(
    "compilepool", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
)
assert spec is not None
assert spec.loader is not None
loaded = sys.modules.get("compilepool")
if loaded is None or loaded.__file__ != spec.origin:
    # A `.pth` file or sitecustomize may have imported another copy already.
    for name in [name for name in sys.modules if name.partition(".")[0] == "compilepool"]:
        del sys.modules[name]
    sys.modules["compilepool"] = module_from_spec(spec)
    spec.loader.exec_module(sys.modules["compilepool"])

# Collecting the garbage of the imports is not worth the time.
gc.disable()
module = sys.argv.pop(1)
__import__(module)
gc.freeze()
gc.enable()

# In a forked worker, the fork server's `main` returns what to run next. Its own calls are then no
# longer on the stack, and no traceback of a job shows them.
continuation = sys.modules[module].main()
if continuation is not None:
    continuation()
