"""What JSON lines and syslog messages say of rows, and how they are framed."""

import json
import re
import socket
from pathlib import Path

import pytest

from kubectl_gadget.export.lines import JsonLines, SyslogMessages
from kubectl_gadget.export.run import Export, Sent
from kubectl_gadget.export.targets import ExportOptions, Tls, target
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.rows.rows import Rows
from tests.export.receivers import Certificates, Receiver, receiver, unix_receiver, unused_port
from tests.page.made import HOSTILE, batch, opened, process
from tests.waiting import wait_until

pytestmark = [pytest.mark.compiled, pytest.mark.usefixtures("catalogue_built")]

RFC_5424 = re.compile(
    r"<(?P<priority>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}Z) (?P<host>[!-~]{1,255}) "
    r"(?P<app>[!-~]{1,48}) (?P<process>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r'\[origin software="kubectl-gadget" swVersion="[^"\]\\]*"\] (?P<text>.*)',
)


def opens(number: int = 3, path: str = "/data/file", errno: int = 0) -> Rows:
    return Rows([batch("trace_open", [opened(10, 1 + each, f"{path}{each}", errno) for each in range(number)])])


def exported(text: str, rows: Rows, tls: Tls | None = None) -> Export:
    """Export rows, and return the export after its end."""
    made = Export(ExportOptions((target(text),), tls or Tls()), [load_gadget("trace_open")])
    made.begin(print)
    made.write(rows)
    made.gap("node-1", 1.5, 3_000_000_000)
    made.close()
    return made


def counted(data: bytes) -> list[str]:
    """Return the messages of a stream in which each begins with its length (RFC 6587)."""
    found = []
    while data:
        length, _, rest = data.partition(b" ")
        assert len(rest) >= int(length)
        found.append(rest[: int(length)].decode())
        data = rest[int(length) :]
    return found


def parsed(message: str) -> dict[str, str]:
    found = RFC_5424.fullmatch(message)
    assert found, message
    return found.groupdict()


def test_a_file_gets_a_line_for_each_row_and_keeps_what_it_had(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    made = exported(f"jsonl={path}", opens())
    first, *rows, gap = [json.loads(line) for line in path.read_text().splitlines()]
    assert first == {}
    assert next((row["event"], row["path"], row["pod"]) for row in rows) == (
        "open",
        "/data/file0",
        "cart-7d4b9c6f5-x2x7k",
    )
    assert gap == {"timestamp": "1970-01-01T00:00:03.000000000Z", "node": "node-1", "gap_seconds": 1.5}
    assert list(made.summary()) == [f"export jsonl={path}: 3 rows delivered"]
    assert made.lost == 0
    assert not list(made.losses())


def test_lines_go_to_sockets(tmp_path: Path) -> None:
    with receiver() as tcp, unix_receiver(tmp_path / "socket") as unix:
        exported(f"jsonl=tcp://127.0.0.1:{tcp.port}", opens())
        exported(f"jsonl=unix://{tmp_path}/socket", opens())
        for one in (tcp, unix):
            wait_until(lambda one=one: one.data.count(b"\n") == 4)
            assert [json.loads(line).get("pid") for line in one.data.splitlines()] == [10, 10, 10, None]


def test_syslog_messages_are_those_of_the_standard() -> None:
    rows = Rows([*opens(2).parts, *opens(1, errno=13).parts])
    with receiver() as tcp:
        exported(f"syslog=tcp://127.0.0.1:{tcp.port}", rows)
        wait_until(lambda: tcp.data.count(b">1 ") == 4)
    found = list(map(parsed, counted(tcp.data)))
    assert {(one["host"], one["app"]) for one in found} == {("node-1", "kubectl-gadget")}
    assert [(one["process"], one["id"]) for one in found] == [("10", "open")] * 3 + [("-", "gap")]
    assert [int(one["priority"]) for one in found] == [16 * 8 + 6] * 2 + [16 * 8 + 4] * 2
    assert json.loads(found[2]["text"])["error"] == "EACCES"
    assert found[0]["time"] == "1970-01-01T00:00:01.000000Z"


def test_datagrams_are_messages_and_long_ones_are_cut() -> None:
    long = Rows([batch("trace_process", [process("exec", 10, 1, 1, "/bin/cart", "ä" * 5000)])])
    with receiver(kind=socket.SOCK_DGRAM) as udp:
        exported(f"syslog=udp://127.0.0.1:{udp.port}", Rows([*opens(2).parts, *long.parts]))
        wait_until(lambda: len(udp.datagrams) == 4)
    assert [len(one) for one in udp.datagrams][2] in (8191, 8192)
    assert [parsed(one.decode())["id"] for one in udp.datagrams] == ["open", "open", "process", "gap"]


def test_hostile_texts_end_no_line_and_imitate_no_message() -> None:
    rows = Rows([batch("trace_open", [opened(10, 1, f"{HOSTILE}\n<1>1 - evil - - - -\r\n\x00{{")])])
    gadgets = [load_gadget("trace_open")]
    (lines,) = JsonLines(gadgets).encode(rows)
    assert lines.count(b"\n") == 1
    assert json.loads(lines)["path"].startswith("<img")
    for part in rows.parts:
        part.node = "no de\n<1>1 evil \x1b[31mé"
    (message,) = SyslogMessages(gadgets, is_counted=False).encode(rows)
    found = parsed(message.decode())
    assert found["host"] == "no?de?<1>1?evil??[31m?"
    assert message.isascii() or message.decode().isprintable()


def test_flows_have_their_objects_once() -> None:
    from kubectl_gadget.flows.rows import GADGET

    members = JsonLines([GADGET])._members.columns
    assert {"source", "destination"} <= set(members)
    assert not any("." in name for name in members)


@pytest.fixture(scope="module", name="certificates")
def made_certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_checks_the_server_and_shows_a_certificate(certificates: Certificates) -> None:
    with receiver(context=certificates.context(asks=True)) as tls:
        files = Tls(certificates.ca, certificates.cert, certificates.key)
        assert exported(f"syslog=tls://127.0.0.1:{tls.port}", opens(), files).lost == 0
        wait_until(lambda: tls.data.count(b">1 ") == 4)


def test_nothing_goes_to_a_server_with_a_wrong_certificate(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubectl_gadget.export.delivery.CLOSE_SECONDS", 0.1)
    said: list[str] = []
    with receiver(context=certificates.context()) as tls:
        made = Export(ExportOptions((target(f"syslog=tls://127.0.0.1:{tls.port}"),)), [load_gadget("trace_open")])
        made.begin(said.append)
        made.write(opens())
        wait_until(lambda: said)
        made.close()
    assert made.lost == 3
    assert "certificate" in said[0]
    assert tls.data == b""


def test_rows_wait_for_a_receiver_that_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.export.delivery.FIRST_PAUSE", 0.01)
    said: list[str] = []
    port = unused_port()
    made = Export(ExportOptions((target(f"jsonl=tcp://127.0.0.1:{port}"),)), [load_gadget("trace_open")])
    made.begin(said.append)
    with receiver(port) as first:
        made.write(opens(1))
        wait_until(lambda: first.data)
    made.write(opens(2))
    wait_until(lambda: said)
    with receiver(port) as second:
        wait_until(lambda: second.data.count(b"\n") == 2)
        made.close()
    assert made.lost == 0
    assert [text.rpartition(": ")[2] for text in said][1:] == ["it takes rows again"]


def test_a_receiver_that_reads_nothing_neither_holds_up_nor_fills_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.export.delivery.CLOSE_SECONDS", 0.1)
    monkeypatch.setattr("kubectl_gadget.export.delivery.MOST_BYTES", 1 << 20)
    with receiver() as tcp:
        tcp.reads.clear()
        made = Export(ExportOptions((target(f"jsonl=tcp://127.0.0.1:{tcp.port}"),)), [load_gadget("trace_open")])
        made.begin(print)
        rows = opens(1000)
        for _ in range(20):
            made.write(rows)
        (sent,) = made.targets
        assert isinstance(sent, Sent)
        delivery = sent.delivery
        assert delivery._bytes <= 1 << 20
        made.close()
        counts = delivery.counts()
    assert counts.lost["the queue was full"] >= 10_000
    assert counts.delivered + counts.total_lost == 20_000
    assert counts.waiting == 0


def test_a_receiver_that_closes_gets_no_rows_that_count_as_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_gadget.export.delivery.CLOSE_SECONDS", 0.1)
    with receiver() as tcp:
        made = Export(ExportOptions((target(f"jsonl=tcp://127.0.0.1:{tcp.port}"),)), [load_gadget("trace_open")])
        made.begin(print)
        made.write(opens(1))
        wait_until(lambda: tcp.data)
        _end(tcp)
    made.write(opens(5))
    made.close()
    assert made.lost == 5


def _end(tcp: Receiver) -> None:
    for one in tcp._open:
        one.shutdown(socket.SHUT_RDWR)
