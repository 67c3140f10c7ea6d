"""The identity of a program that a process runs."""

import base64
import struct

from kubectl_gadget.wire.policy_events import ExecId, read_exec_id


def test_the_text_of_an_exec_id_is_what_consumers_know() -> None:
    assert base64.b64decode(ExecId(1234567890123, 42).text("node-1")) == b"node-1:1234567890123:42"


def test_bytes_without_their_last_nuls_are_read() -> None:
    packed = struct.pack("<QII", 5, 0x0100, 0)
    assert read_exec_id(packed.rstrip(b"\0")) == ExecId(5, 256)


def test_an_absent_process_has_no_identity() -> None:
    assert read_exec_id(b"") is None
