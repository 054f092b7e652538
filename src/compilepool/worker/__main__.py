"""Entry of a worker that was exec'ed (`start_method="spawn"`), run by path.

Arguments: the fork server's pid, how many descriptors. Descriptors: the supervisor's socket, the
crash file, the configuration, and maybe the startup payload.
"""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from compilepool.worker.spawned import main

main()
