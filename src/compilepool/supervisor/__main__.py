"""Entry of the supervisor process: `python -I -S .../supervisor/__main__.py`, run by path."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from compilepool.supervisor.supervisor import main

main()
