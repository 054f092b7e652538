"""A client of debugpy, as VS Code is one: it follows a program into all its processes.

See https://microsoft.github.io/debug-adapter-protocol/specification. `debugpyAttach` is an event of
debugpy's own, which asks for a session with a new process.
"""

from __future__ import annotations

import json
import queue
import socket
import threading
from pathlib import Path
from typing import Any

from tests.proc import PATIENCE_S, wait_until


def written_port(endpoints: Path) -> int:
    """The port in the file that debugpy writes when it listens."""

    def is_written() -> bool:
        return endpoints.exists() and endpoints.read_text().endswith("}\n")

    assert wait_until(is_written, PATIENCE_S * 3)
    return int(json.loads(endpoints.read_text())["client"]["port"])


class Sessions:
    """Those with a program and its processes.

    Args:
        file: where to stop.
        line: the number of the line there.
        expression: what to evaluate at each stop.
    """

    def __init__(self, file: Path, line: int, expression: str) -> None:
        self.file = str(file)
        self.line = line
        self.expression = expression
        self._stops: queue.Queue[tuple[str, str] | Exception] = queue.Queue()
        self._threads: list[threading.Thread] = []

    def start(self, port: int, arguments: dict[str, Any]) -> None:
        """Attach to a process, in a thread."""
        thread = threading.Thread(target=self._run, args=[port, arguments])
        self._threads.append(thread)
        thread.start()

    def next_stop(self) -> tuple[str, str]:
        """Wait for a process to stop there: its function, and the value of the expression."""
        stop = self._stops.get(timeout=PATIENCE_S * 3)
        if isinstance(stop, Exception):
            raise stop
        return stop

    def join(self) -> None:
        """Wait until all sessions have ended."""
        for thread in self._threads:  # it grows meanwhile
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _run(self, port: int, arguments: dict[str, Any]) -> None:
        try:
            self._follow(port, arguments)
        except Exception as error:  # noqa: BLE001 # the test raises it
            self._stops.put(error)

    def _follow(self, port: int, arguments: dict[str, Any]) -> None:
        with _Connection(port) as connection:
            connection.send("initialize", adapterID="tests", pathFormat="path")
            connection.send("attach", **arguments)
            for message in connection:
                event, body = message.get("event"), message.get("body") or {}
                if event == "initialized":
                    source, lines = {"path": self.file}, [{"line": self.line}]
                    connection.send("setBreakpoints", source=source, breakpoints=lines)
                    connection.send("configurationDone")
                elif event == "debugpyAttach":
                    self.start(body["connect"]["port"], body)
                elif event == "stopped":
                    thread = body["threadId"]
                    top = connection.ask("stackTrace", threadId=thread)["stackFrames"][0]
                    value = connection.ask(
                        "evaluate", expression=self.expression, frameId=top["id"]
                    )["result"]
                    self._stops.put((top["name"], value))
                    connection.send("continue", threadId=thread)
                elif event == "terminated":
                    return


class _Connection:
    """The messages to and from one process; iterate over those that come."""

    def __init__(self, port: int) -> None:
        self._requests = 0

        def connect() -> bool:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S * 3)
            except ConnectionRefusedError:
                return False
            return True

        assert wait_until(connect)
        self._file = self._socket.makefile("rb")

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def send(self, command: str, **arguments: Any) -> None:
        self._requests += 1
        request = {"seq": self._requests, "type": "request", "command": command}
        body = json.dumps(request | {"arguments": arguments}).encode()
        self._socket.sendall(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a request, and wait for the answer. What comes before it is dropped."""
        self.send(command, **arguments)
        answer = next(each for each in self if each.get("request_seq") == self._requests)
        assert answer["success"], answer
        body: dict[str, Any] = answer["body"]
        return body

    def __iter__(self) -> _Connection:
        return self

    def __next__(self) -> dict[str, Any]:
        length = 0
        while header := self._file.readline().strip():
            name, _, value = header.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        if not length:
            raise StopIteration
        message: dict[str, Any] = json.loads(self._file.read(length))
        return message
