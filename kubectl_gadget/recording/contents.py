"""Converts the contents of a backlog to frames of a recording and back.

What agents send keeps the type of its frame (docs/protocol.md). What the client adds has a negative type, which no
agent can send. The trap: a recording may come from anybody, so it is read as carefully as frames from a node.
"""

from collections.abc import Callable, Mapping
from typing import Any

from kubectl_gadget.errors import FrameError
from kubectl_gadget.output.escape import escape
from kubectl_gadget.recording.layout import DETACHED, GAP, ROUND_TRIP, SELECTED, STEP_MARK, to_json
from kubectl_gadget.run.nodes.backlog import Content, Detached, Events, RoundTrip, Selected, StepMark
from kubectl_gadget.run.nodes.coverage import Gap
from kubectl_gadget.wire.agent_messages import ContainerChanges, Hello, StackNames, Started, Stats, from_agent
from kubectl_gadget.wire.client_messages import FilterSpec
from kubectl_gadget.wire.frames import Frame, FrameType
from kubectl_gadget.wire.message import parse

_LARGEST = 1 << 62
_LONGEST_NAME = 512
"""of a step"""
_LONGEST_SECONDS = 1e9
"""of a missing span. Thirty years"""
_TYPES = {
    Hello: FrameType.HELLO,
    Started: FrameType.STARTED,
    ContainerChanges: FrameType.CONTAINERS,
    Stats: FrameType.STATS,
    StackNames: FrameType.STACKS,
}


def to_frame(content: Content) -> Frame:
    """Converts an item to a recording's frame."""
    match content:
        case Events(payload):
            return Frame(FrameType.EVENTS, payload)
        case Detached():
            return Frame(DETACHED, b"{}")
        case Gap():
            return Frame(GAP, to_json({"seconds": content.seconds, "until_ns": content.until_ns}))
        case Selected(selection):
            return Frame(SELECTED, selection.to_bytes())
        case RoundTrip():
            return Frame(ROUND_TRIP, to_json(content._asdict()))
        case StepMark():
            return Frame(STEP_MARK, to_json(content._asdict()))
    return Frame(_TYPES[type(content)], content.to_bytes())


def from_frame(frame: Frame) -> Content | None:
    """Converts a frame back; None for a type that is unknown here. Raises FrameError."""
    if frame.type == FrameType.EVENTS:
        return Events(frame.payload)
    if frame.type in _OWN:
        try:
            return _OWN[frame.type](parse(frame.payload))
        except FrameError as error:
            raise FrameError(f"type {frame.type}: {error}") from None
        except (LookupError, OverflowError, TypeError, ValueError) as error:
            raise FrameError(f"type {frame.type}: {error!r}") from None
    message = from_agent(frame)
    return message if isinstance(message, Hello | Started | ContainerChanges | Stats | StackNames) else None


_OWN: Mapping[int, Callable[[Mapping[str, Any]], Content]] = {
    DETACHED: lambda _: Detached(),
    GAP: lambda value: Gap(_seconds(value["seconds"]), _time(value["until_ns"])),
    SELECTED: lambda value: Selected(FilterSpec.from_json(value)),
    ROUND_TRIP: lambda value: RoundTrip(*(_time(value[name]) for name in RoundTrip._fields)),
    STEP_MARK: lambda value: StepMark(escape(str(value["name"]))[:_LONGEST_NAME], _time(value["wall_ns"])),
}


def number(value: object) -> float | None:
    """Returns a number of a recording's JSON; None when it is not one, or is too large to count with."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LARGEST <= value <= _LARGEST:
        return None
    return float(value)


def _seconds(value: object) -> float:
    """Raises ValueError."""
    found = number(value)
    if found is None or not 0 <= found <= _LONGEST_SECONDS:
        raise ValueError(f"{value!r} is not a number of seconds")
    return found


def _time(value: object) -> int:
    """Raises ValueError."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
        raise ValueError(f"{value!r} is not a time")
    return value
