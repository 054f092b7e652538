"""Entry of the fork server process, run by path; its forked workers return to it.

Arguments: the supervisor's pid, the soft limit of open files. Descriptors: the supervisor's
socket, the pidfds of supervisor and client, the crash file.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from compilepool.forkserver.server import main

# In a forked worker, `main` returns what to go on with: the stack of the fork server is gone by
# then, and no traceback of a job shows it.
go_on_as_worker = main()
if go_on_as_worker is not None:
    go_on_as_worker()
