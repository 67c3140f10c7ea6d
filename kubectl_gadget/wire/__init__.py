"""The frames that client and agent speak: bytes in, frames out, no I/O. See docs/protocol.md."""

from kubectl_gadget.wire.frames import (
    LAST,
    MAGIC,
    MAX_PAYLOAD,
    PART,
    REST,
    VERSION,
    EventsHeader,
    Frame,
    FrameDecoder,
    FrameType,
    encode,
    encode_json,
    header,
    split_events,
)

__all__ = [
    "LAST",
    "MAGIC",
    "MAX_PAYLOAD",
    "PART",
    "REST",
    "VERSION",
    "EventsHeader",
    "Frame",
    "FrameDecoder",
    "FrameType",
    "encode",
    "encode_json",
    "header",
    "split_events",
]
