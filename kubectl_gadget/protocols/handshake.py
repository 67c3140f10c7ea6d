"""View `tls`: one row for each TLS handshake over TCP, when it is established or has failed (RFC 8446, RFC 5246).

Up to TLS 1.2, all but the last message of each end is in clear, with the server's certificate and the alerts. From
TLS 1.3's ServerHello on, only the length of records tells something: an alert has 2 bytes, and every other message of a
handshake is longer. Every length comes from an untrusted sender and may be false.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.protocols.tcp import FIN, RST, Connections, Packet, Stream, packets
from kubectl_gadget.protocols.tls import BrokenHello, ClientHello, Reader, from_handshake
from kubectl_gadget.rows.batch import Batch
from kubectl_gadget.rows.views import PendingItems, RowWriter, Stage, Value, asks_for_process, has_process

_CHANGE_CIPHER_SPEC, _ALERT, _HANDSHAKE, _APPLICATION_DATA, _HEARTBEAT = range(20, 25)
_CLIENT_HELLO, _SERVER_HELLO, _CERTIFICATE = 1, 2, 11
_RECORD_HEAD = 5
_MOST_RECORD = (1 << 14) + 2048
_MOST_MESSAGE = 1 << 16
_MOST_NAMES = 100
_SUPPORTED_VERSIONS = 43
_TLS_1_3 = 0x0304
_ENCRYPTED_ALERT = 2 + 1 + 16
"""The length of a record of TLS 1.3 with an alert: its two bytes, the type, and the tag, which all its ciphers but one
have."""
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random number of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3)."""
_CLIENT, _SERVER = 1, 2
_ESTABLISHED, _BY_ALERT, _BY_ENCRYPTED_ALERT, _CLOSED, _RESET, _NO_ANSWER = range(1, 7)
_WARNING, _CLOSE_NOTIFY = 1, 0


_ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
    121: "ech_required",
}
"""IANA's registry of TLS alerts."""
_CIPHERS = {
    0x0004: "RSA_WITH_RC4_128_MD5",
    0x0005: "RSA_WITH_RC4_128_SHA",
    0x000A: "RSA_WITH_3DES_EDE_CBC_SHA",
    0x002F: "RSA_WITH_AES_128_CBC_SHA",
    0x0033: "DHE_RSA_WITH_AES_128_CBC_SHA",
    0x0035: "RSA_WITH_AES_256_CBC_SHA",
    0x0039: "DHE_RSA_WITH_AES_256_CBC_SHA",
    0x003C: "RSA_WITH_AES_128_CBC_SHA256",
    0x003D: "RSA_WITH_AES_256_CBC_SHA256",
    0x0067: "DHE_RSA_WITH_AES_128_CBC_SHA256",
    0x006B: "DHE_RSA_WITH_AES_256_CBC_SHA256",
    0x009C: "RSA_WITH_AES_128_GCM_SHA256",
    0x009D: "RSA_WITH_AES_256_GCM_SHA384",
    0x009E: "DHE_RSA_WITH_AES_128_GCM_SHA256",
    0x009F: "DHE_RSA_WITH_AES_256_GCM_SHA384",
    0x00FF: "EMPTY_RENEGOTIATION_INFO_SCSV",
    0x1301: "AES_128_GCM_SHA256",
    0x1302: "AES_256_GCM_SHA384",
    0x1303: "CHACHA20_POLY1305_SHA256",
    0x1304: "AES_128_CCM_SHA256",
    0x1305: "AES_128_CCM_8_SHA256",
    0x5600: "FALLBACK_SCSV",
    0xC009: "ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    0xC00A: "ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    0xC012: "ECDHE_RSA_WITH_3DES_EDE_CBC_SHA",
    0xC013: "ECDHE_RSA_WITH_AES_128_CBC_SHA",
    0xC014: "ECDHE_RSA_WITH_AES_256_CBC_SHA",
    0xC023: "ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    0xC024: "ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    0xC027: "ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    0xC028: "ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    0xC02B: "ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    0xC02C: "ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    0xC02F: "ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    0xC030: "ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xCCA8: "ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCA9: "ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCAA: "DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}
"""IANA's registry of cipher suites: those that today's libraries have."""


def alert_name(number: int) -> str:
    """`unknown_ca (48)`"""
    return f"{_ALERTS.get(number, 'alert')} ({number})"


def cipher_name(number: int) -> str:
    """`TLS_AES_128_GCM_SHA256`; the number in hex if it is not a known one."""
    return f"TLS_{_CIPHERS[number]}" if number in _CIPHERS else f"0x{number:04x}"


class _Broken(ValueError):
    """These bytes are not TLS."""


class _End:
    """The records that one end has sent, and the handshake messages in them."""

    def __init__(self) -> None:
        self._stream = Stream()
        self._bytes = b""
        self._skip = 0
        self._is_lost = False
        self._messages = b""
        self.encrypts = False
        """up to TLS 1.2: it has sent ChangeCipherSpec"""
        self.has_finished = False

    def records(self, packet: Packet) -> Iterator[tuple[int, int, bytes]]:
        """Type, length and content of each record that is complete now; of application data only type and length."""
        for piece in self._stream.feed(packet):
            if self._is_lost:
                continue
            if isinstance(piece, int):
                self._is_lost = bool(self._bytes) or piece > self._skip
                self._skip -= min(piece, self._skip)
                continue
            self._bytes += piece
            yield from self._whole_records()

    def messages(self, content: bytes) -> Iterator[tuple[int, bytes]]:
        """Type and body of each handshake message that is complete with this record."""
        self._messages += content
        while len(self._messages) >= 4:
            end = 4 + int.from_bytes(self._messages[1:4])
            if end > _MOST_MESSAGE:
                raise _Broken(f"a message of {end} bytes")
            if len(self._messages) < end:
                return
            message, self._messages = self._messages[:end], self._messages[end:]
            yield message[0], message[4:]

    def _whole_records(self) -> Iterator[tuple[int, int, bytes]]:
        while True:
            skipped = min(self._skip, len(self._bytes))
            self._skip -= skipped
            self._bytes = self._bytes[skipped:]
            if len(self._bytes) < _RECORD_HEAD:
                return
            kind, length = self._bytes[0], int.from_bytes(self._bytes[3:5])
            if not _CHANGE_CIPHER_SPEC <= kind <= _HEARTBEAT or self._bytes[1] != 3 or length > _MOST_RECORD:
                self._is_lost = True
                return
            if kind == _APPLICATION_DATA:
                self._bytes, self._skip = self._bytes[_RECORD_HEAD:], length
                yield kind, length, b""
                continue
            end = _RECORD_HEAD + length
            if len(self._bytes) < end:
                return
            content, self._bytes = self._bytes[_RECORD_HEAD:end], self._bytes[end:]
            yield kind, length, content


@dataclass
class _Certificate:
    names: list[str] = field(default_factory=list)
    subject: str = ""
    issuer: str = ""
    not_before: str = ""
    not_after: str = ""


def read_certificate(data: bytes) -> _Certificate | None:
    """Return the shown parts of a certificate in DER; None if it cannot be read."""
    from cryptography import x509

    try:
        found = x509.load_der_x509_certificate(data)
        names: list[str] = []
        try:
            content = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            names += content.get_values_for_type(x509.DNSName)
            names += map(str, content.get_values_for_type(x509.IPAddress))
        except x509.ExtensionNotFound:
            names += [str(name.value) for name in found.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)]
        return _Certificate(
            names[:_MOST_NAMES],
            found.subject.rfc4514_string(),
            found.issuer.rfc4514_string(),
            _date(found.not_valid_before_utc),
            _date(found.not_valid_after_utc),
        )
    except Exception:  # whatever the library says of a certificate that somebody has broken on purpose
        return None


def _date(value: datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Handshake:
    """The present handshake of one TCP connection. It may have several, as with STARTTLS."""

    def __init__(self) -> None:
        self.is_over = True
        self._ends: dict[bool, _End] = {}

    def begin(self, packet: Packet) -> None:
        self.is_over = False
        self.began = self.last = packet
        self.client = bool(packet.outgoing)
        """True if the client sends what this socket sends"""
        self._ends = {True: _End(), False: _End()}
        self.hello: ClientHello | None = None
        self.version = 0
        """the one that the server chose; 0: none yet"""
        self.cipher = 0
        self.certificate: _Certificate | None = None
        self.result = self.by = 0
        self.alert: tuple[int, int] | None = None

    def feed(self, packet: Packet) -> None:
        """Takes a packet; sets `result` when it ends the handshake."""
        if has_process(packet.head) or not has_process(self.last.head):
            self.last = packet
        is_client = bool(packet.outgoing) == self.client
        end = self._ends[is_client]
        try:
            for record in end.records(packet):
                if not self.result:
                    self._record(end, is_client, *record)
        except (_Broken, BrokenHello):
            self.is_over = True
        if not self.result and packet.flags & (FIN | RST):
            self.give_up(_RESET if packet.flags & RST else _CLOSED, is_client)

    def give_up(self, result: int, is_client: bool | None = None) -> None:
        """Sets `result` if nothing more comes: a server of TLS 1.3 need not say that it accepts the client."""
        if self.version == _TLS_1_3 and self._ends[True].has_finished:
            result, is_client = _ESTABLISHED, None
        self._end(result, is_client)

    def _end(self, result: int, is_client: bool | None = None) -> None:
        self.result = result
        self.by = 0 if is_client is None else _CLIENT if is_client else _SERVER

    def _record(self, end: _End, is_client: bool, kind: int, length: int, content: bytes) -> None:
        if kind == _ALERT:
            if length == 2:
                level, number = content
                # Only close_notify and warnings such as unrecognized_name let it go on.
                if level != _WARNING or number == _CLOSE_NOTIFY:
                    self.alert = level, number
                    self._end(_BY_ALERT, is_client)
            elif end.encrypts:
                self._end(_BY_ENCRYPTED_ALERT, is_client)
        elif kind == _CHANGE_CIPHER_SPEC:
            # TLS 1.3 sends it for the sake of middleboxes only.
            end.encrypts = self.version not in (0, _TLS_1_3)
        elif kind == _HANDSHAKE and end.encrypts:
            end.has_finished = True
            if all(each.has_finished for each in self._ends.values()):
                self._end(_ESTABLISHED)
        elif kind == _HANDSHAKE:
            for number, body in end.messages(content):
                self._message(is_client, number, body)
        elif kind == _APPLICATION_DATA and self.version == _TLS_1_3:
            self._encrypted(end, is_client, length)

    def _encrypted(self, end: _End, is_client: bool, length: int) -> None:
        client = self._ends[True]
        if length == _ENCRYPTED_ALERT and not (is_client and client.has_finished):
            self._end(_BY_ENCRYPTED_ALERT, is_client)
        elif is_client:
            client.has_finished = True
        elif client.has_finished:
            # A session ticket or data: the server accepts what the client has finished with.
            self._end(_ESTABLISHED)

    def _message(self, is_client: bool, number: int, body: bytes) -> None:
        if number == _CLIENT_HELLO and is_client:
            self.hello = from_handshake(bytes([number]) + len(body).to_bytes(3) + body) or self.hello
        elif number == _SERVER_HELLO and not is_client:
            self._server_hello(Reader(body))
        elif number == _CERTIFICATE and not is_client and self.certificate is None:
            certificates = Reader(body).block(3)
            self.certificate = read_certificate(certificates.rest(3)) if certificates else None

    def _server_hello(self, hello: Reader) -> None:
        version = hello.number(2)
        is_retry = hello.take(32) == _RETRY
        hello.rest(1)
        cipher = hello.number(2)
        hello.take(1)
        extensions = hello.block(2) if hello else Reader(b"")
        while extensions:
            kind, content = extensions.number(2), extensions.block(2)
            if kind == _SUPPORTED_VERSIONS:
                version = content.number(2)
        self.cipher = cipher
        self.version = 0 if is_retry else version


class Tls(Stage):
    """The view's stage (stage.py). The parameter `wait` is the longest time that a handshake may take."""

    def __init__(self, gadget: Gadget, parameters: Mapping[str, Any]) -> None:
        self._writer = RowWriter(gadget.record, asks_for_process(parameters))
        self._wait_ns = int(parameters["wait"]) * 1_000_000_000
        self._only_failed = bool(parameters.get("failed"))
        self._connections = Connections(_Handshake, most=16384)
        self._waiting: PendingItems[_Handshake] = PendingItems(16384)

    def rows(self, sent: Batch, complete_until: int) -> bytes:
        for packet in packets(sent):
            self._take(packet)
        for handshake in self._waiting.expired(complete_until - self._wait_ns):
            self._give_up(handshake, handshake.began.time + self._wait_ns)
        return self._writer.take()

    def rest(self) -> bytes:
        return self._writer.take()

    def _take(self, packet: Packet) -> None:
        handshake = self._connections.of(packet)
        if handshake.is_over:
            if not _is_hello(packet.payload):
                return
            handshake.begin(packet)
            self._waiting.add(handshake, packet.time)
        handshake.feed(packet)
        if handshake.result or handshake.is_over:
            self._finish(handshake, packet.time)

    def _give_up(self, handshake: _Handshake, time: int) -> None:
        if not handshake.is_over:
            handshake.give_up(_NO_ANSWER)
            self._finish(handshake, time)

    def _finish(self, handshake: _Handshake, time: int) -> None:
        """Writes the row, unless the packets were no handshake."""
        self._waiting.done(handshake)
        handshake.is_over = True
        hello = handshake.hello
        if hello is None or not handshake.result or (self._only_failed and handshake.result == _ESTABLISHED):
            return
        packet, certificate = handshake.last, handshake.certificate or _Certificate()
        values: dict[str, Value] = {
            "exec_id": packet.exec_id,
            "duration": max(0, time - handshake.began.time),
            "local": packet.local,
            "local_port": packet.local_port,
            "remote": packet.remote,
            "remote_port": packet.remote_port,
            "version": handshake.version or hello.version,
            "role": _CLIENT if handshake.client else _SERVER,
            "result": handshake.result,
            "ended_by": handshake.by,
            "name": hello.name,
            "alert": alert_name(handshake.alert[1]) if handshake.alert else None,
            "cipher": cipher_name(handshake.cipher) if handshake.cipher else None,
            "ciphers": [cipher_name(number) for number in hello.ciphers],
            "alpn": [protocol.decode("utf-8", "surrogateescape") for protocol in hello.alpn],
            "certificate": certificate.names,
            "subject": certificate.subject or None,
            "issuer": certificate.issuer or None,
            "not_before": certificate.not_before or None,
            "not_after": certificate.not_after or None,
        }
        self._writer.add(packet.head, time, values)


def _is_hello(payload: bytes) -> bool:
    return len(payload) > _RECORD_HEAD and payload[0] == _HANDSHAKE and payload[_RECORD_HEAD] == _CLIENT_HELLO
