"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import _socket as socket  # `socket` wraps this module in classes and enums, which takes long
import struct

_CREDENTIALS = struct.Struct("3i")  # struct ucred, unix(7)


def peer_uid(sock: socket.socket) -> int:
    """The user who has connected a socket, or who listens at its other end.

    See SO_PEERCRED in unix(7). Between two users' namespaces, it may be the overflow user.
    """
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(credentials)
    return int(uid)
