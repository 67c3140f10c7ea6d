"""Reads DNS messages with dnspython, and catches every error that hostile bytes may cause.

The trap: a message is small, but its text need not be: names point to each other, and a record may hold 64 KiB. So the
amount that is kept of a response is limited.
"""

import struct
from dataclasses import dataclass, field

import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype

NOANSWER, MALFORMED = -1, -2
_HEAD = struct.Struct(">HHHHHH")
_ADDRESSES = (dns.rdatatype.A, dns.rdatatype.AAAA)
_MOST_RECORDS = 64
_MOST_TEXT = 400


@dataclass(frozen=True)
class DnsMessage:
    """One message. `rcode` is MALFORMED if it cannot be parsed; the fields that could be read are set nevertheless."""

    id: int = 0
    flags: int = 0
    rcode: int = MALFORMED
    name: str | None = None
    type: int = 0
    size: int = 0
    addresses: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    @property
    def is_answer(self) -> bool:
        return bool(self.flags & dns.flags.QR)

    @property
    def question(self) -> tuple[str | None, int]:
        """The name and type in question, for comparison. Case in names is ignored: it is random, or varied for
        security."""
        return (None if self.name is None else self.name.lower()), self.type


def read_message(wire: bytes) -> DnsMessage:
    """Parses a message. Never raises."""
    if len(wire) < _HEAD.size:
        return DnsMessage(size=len(wire))
    number, flags, *_ = _HEAD.unpack_from(wire)
    try:
        parsed = dns.message.from_wire(wire, ignore_trailing=True, question_only=not flags & dns.flags.QR)
        return _read(parsed, number, flags, len(wire))
    except (dns.exception.DNSException, ValueError, LookupError, struct.error, NotImplementedError):
        # The message is someone else's and broken; its row says so.
        return _question_only(wire, number, flags)


def _question_only(wire: bytes, number: int, flags: int) -> DnsMessage:
    broken = DnsMessage(id=number, flags=flags, size=len(wire))
    try:
        parsed = dns.message.from_wire(wire, question_only=True, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, LookupError, struct.error, NotImplementedError):
        return broken
    name, kind = _question(parsed)
    return DnsMessage(id=number, flags=flags, name=name, type=kind, size=len(wire))


def _read(parsed: dns.message.Message, number: int, flags: int, size: int) -> DnsMessage:
    name, kind = _question(parsed)
    addresses: list[str] = []
    answers: list[str] = []
    for rrset in parsed.answer if flags & dns.flags.QR else ():
        for data in rrset:
            if len(answers) == _MOST_RECORDS:
                break
            text = data.to_text()
            if rrset.rdtype in _ADDRESSES:
                addresses.append(text)
            answers.append(f"{dns.rdatatype.to_text(rrset.rdtype)} {text}"[:_MOST_TEXT])
    return DnsMessage(number, flags, int(parsed.rcode()), name, kind, size, addresses, answers)


def _question(parsed: dns.message.Message) -> tuple[str | None, int]:
    if not parsed.question:
        return None, 0
    first = parsed.question[0]
    return first.name.to_text(omit_final_dot=True), int(first.rdtype)
