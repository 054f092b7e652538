"""Ends the futures of jobs that have ended on a node."""

from __future__ import annotations

from compilepool.client.reports.layout import labelled
from compilepool.client.session import outcomes
from compilepool.client.session.calls import Call
from compilepool.errors import CompilePoolError
from compilepool.integrations.ray.link import NodeLink
from compilepool.integrations.ray.messages import EndedJob
from compilepool.light_typing import Any, Literal
from compilepool.observe.record import note_usage
from compilepool.text import describe
from compilepool.wire.serializers import Serializer
from compilepool.wire.usage import Usage, phases_of_text, phases_text

_SHARED: dict[str, Literal["", "joined", "reused"]] = {"joined": "joined", "reused": "reused"}


class Endings:
    """See the module.

    Args:
        serializer: the user's, or None.
    """

    def __init__(self, serializer: Serializer | None) -> None:
        self._serializer = serializer

    def seconds_of(self, ended: EndedJob) -> float | None:
        """How long a job ran; None if it did not run itself."""
        usage = Usage(*ended.usage)
        return usage.ended - usage.started if usage.started and not ended.shared else None

    def end(self, call: Call, ended: EndedJob, link: NodeLink) -> None:
        """End a call that is not in the table any more."""
        record = call.future.record
        record.node = link.node.name
        record.log = ended.log
        record.shared = _SHARED.get(ended.shared, "")
        note_usage(record, shifted(Usage(*ended.usage), link.offset_s))
        error: BaseException | None = ended.error
        result: Any = None
        if ended.error is not None:
            tell_node(ended.error, link.node.name)
        else:
            try:
                assert ended.result is not None
                payload = ended.result.payload
                result, error = outcomes.resolve(
                    ended.outcome, payload, call.name, self._serializer, ended.log
                )
            except Exception as reason:  # noqa: BLE001 - whatever it is, the call must end
                what = f"job {call.name!r} has ended, but its outcome could not be read here"
                error = CompilePoolError(f"{what}: {describe(reason)}")
        if error is None:
            call.end_with_result(result)
        else:
            call.end_with_error(error)


def shifted(usage: Usage, offset_s: float) -> Usage:
    """A usage by the clock of this process, not by that of a node.

    Args:
        usage: the usage.
        offset_s: what to add to a time of the node's.
    """
    if not usage.started:
        return usage
    phases = [(name, since + offset_s) for name, since in phases_of_text(usage.phases)]
    return usage._replace(
        started=usage.started + offset_s,
        ended=usage.ended + offset_s,
        phases=phases_text(phases),
    )


def tell_node(error: CompilePoolError, node: str) -> None:
    """Have an error of a node's pool say which node that is: its folder and PIDs are there."""
    error.node = node  # type: ignore[attr-defined] # of these errors only
    message, *rest = error.args
    error.args = ("\n".join([str(message), *labelled("node", [node])]), *rest)
