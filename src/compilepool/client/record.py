"""What is known of a job besides its result."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class JobRecord:
    """What is known of a job; it is complete when the job's future is done.

    Attributes:
        log: the end of what the job and its children have written to their output and error
            output, if it is captured.
    """

    log: str = ""
