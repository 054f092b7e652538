"""Where the shared pools are, for commands that only look."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from compilepool.wire.meeting_place import MeetingPlace, NoMeetingPlace, directory


@contextlib.contextmanager
def meeting_place() -> Iterator[MeetingPlace | None]:
    """The place where this user's pools meet; None if there is none yet. It is not made.

    Raises:
        ValueError: the directory is not safe to meet in.
    """
    if not os.path.lexists(directory()):
        yield None
        return
    try:
        place = MeetingPlace()
    except NoMeetingPlace as error:
        raise ValueError(f"shared pools cannot be found: {error}") from None
    with place:
        yield place
