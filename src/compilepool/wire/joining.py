"""What a client and a shared supervisor tell each other when they meet."""

from __future__ import annotations

import sys

from compilepool.light_typing import Any, NamedTuple
from compilepool.wire.messages import Kind, Message, all_are, check, json_message, parse_json

_LONGEST_NAME = 200  # characters
_CPUS = 1 << 16  # more than any kernel has
_LONGEST_LINGER_S = sys.float_info.max  # JSON has integers beyond it, and infinity


class Joining(NamedTuple):
    """What a client says first.

    Attributes:
        identity: all that makes the jobs of two clients interchangeable, as a digest.
        pid: the client's PID.
        name: the client's name, for people.
        linger_s: the seconds that the supervisor shall live without clients.
        cpus: the CPUs that the client may use; empty if the pool's configuration names some.
        counts_cpus: whether the number of workers follows from the CPUs of all clients.
        log_level: the lowest `Level` of log messages that the client wants.
    """

    identity: str
    pid: int
    name: str
    linger_s: float
    cpus: tuple[int, ...]
    counts_cpus: bool
    log_level: int

    def message(self, pidfd: int) -> Message:
        """The JOIN message, with the client's pidfd, which the caller still owns."""
        fields = {**self._asdict(), "name": self.name[:_LONGEST_NAME]}
        return json_message(Kind.JOIN, fields)._replace(fds=(pidfd,))

    @classmethod
    def of_message(cls, message: Message) -> Joining:
        """What a JOIN message says. Raises `ProtocolError`; the caller still owns descriptors."""
        return parse_json(message.body, cls._of_fields, "a client's JOIN")

    @classmethod
    def _of_fields(cls, fields: dict[str, Any]) -> Joining:
        joining = cls(**{**fields, "cpus": tuple(fields["cpus"])})
        check(
            all_are(str, joining.identity, joining.name)
            and all_are(int, joining.pid, joining.log_level, *joining.cpus)
            and isinstance(joining.counts_cpus, bool)
            and all(0 <= cpu < _CPUS for cpu in joining.cpus)
            and isinstance(joining.linger_s, int | float)
            and 0 <= joining.linger_s <= _LONGEST_LINGER_S
        )
        return joining
