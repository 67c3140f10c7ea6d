"""Connections that are joined in columns give the same output as when each row is joined on its own."""

import io
import json
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from kubectl_gadget.flows import filter, joiner, transform
from kubectl_gadget.flows.addresses import AddressBook, Addresses
from kubectl_gadget.flows.filter import FlowFilter
from kubectl_gadget.flows.flow import FlowEvent, Party, PodFacts
from kubectl_gadget.flows.flow_formats import IN_COLUMNS, output_of
from kubectl_gadget.flows.flow_sink import FlowSink
from kubectl_gadget.flows.joiner import FlowTable
from kubectl_gadget.flows.records import hubble
from kubectl_gadget.flows.transform import FlowTransform
from kubectl_gadget.gadgets import load_gadget
from kubectl_gadget.output.output_options import OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.merge import TimeMerge
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter, Value
from tests.messages import changes

pytestmark = pytest.mark.usefixtures("catalogue_built")

Values = dict[str, Value]
NODES = 3
PODS = 4
"""per node"""
UNKNOWN = (1 << 64) - 1
TERMINAL = Terminal(lambda: 200)
SERVICE = bytes([10, 96, 0, 9])
CONNECT, ACCEPT, CLOSE, SYN, OPEN, REPORT = range(1, 7)


def v4(address: bytes) -> bytes:
    return bytes(10) + b"\xff\xff" + address


def v6(address: bytes) -> bytes:
    return b"\xfd" + bytes(11) + address


def pod_address(pod: int) -> bytes:
    return bytes([10, 0, pod // PODS, pod % PODS + 1])


class Traffic:
    """Random rows of connections, with all that may happen to them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.address = v6 if seed % 7 == 4 else v4
        self.calm = seed % 2 == 1
        """hardly any rows but those of connections"""
        self.now = 1_000_000_000
        self.rows: list[tuple[int, int, str, Values]] = []
        """time, node, gadget, values"""
        self.ports = 40000
        self.earlier: list[tuple[int, int, str, int]] = []
        """client, server, kind and port of connections"""

    def owner(self, pod: int) -> Values:
        """A process of a pod; sometimes one whose name terminals must not see, or none."""
        chance = self.random.random()
        name = b"curl" if chance < 0.9 else b"a\x1b[31m\xff" if chance < 0.95 else "naïve".encode()
        pid = 0 if self.random.random() < 0.03 else 100 + pod
        exec_id = bytes([pod + 1]) + bytes(7) + bytes([pod + 1, 0, 0, 0]) + bytes(4)
        return {"cgroup": pod % PODS, "pid": pid, "comm": name, "exec_id": exec_id}

    def connection(self) -> None:  # noqa: PLR0915 - one list of what may happen
        """One connection: seen from both ends or one; direct, by a service, with a translated address, to the outside,
        or within a pod; its rows may be lost or late, and it may fail, stay open, or use the port of an earlier one."""
        pick = self.random
        self.now += pick.randrange(1, 3_000_000)
        client, server = pick.randrange(NODES * PODS), pick.randrange(NODES * PODS)
        kind = pick.choices(("direct", "service", "translated", "outside", "loopback", "udp"), (8, 2, 2, 3, 1, 1))[0]
        self.ports += pick.random() < 0.9
        port = self.ports if pick.random() < 0.9 else pick.randrange(40000, self.ports + 1)
        if self.calm and kind in ("udp", "loopback", "translated"):
            kind = "direct"
        if self.earlier and pick.random() < 0.25:
            client, server, kind, port = pick.choice(self.earlier[-30:])
        self.earlier.append((client, server, kind, port))
        local, to = pod_address(client), (pod_address(server), 8080)
        asked = {"service": (SERVICE, 80), "outside": (bytes([93, 184, pick.randrange(3), 7]), 443)}.get(kind, to)
        if kind == "loopback":
            local, asked, server = bytes([127, 0, 0, 1]), (bytes([127, 0, 0, 1]), 8080), client
        seen_local = bytes([172, 16, 0, client // PODS + 1]) if kind == "translated" else local
        sequence = pick.randrange(1, 1 << 32) if pick.random() < 0.8 else 0
        if kind == "udp":
            self.datagrams(client, local, port, asked)
            return
        mine, theirs = self.owner(client), self.owner(server)
        begins, lasts = self.now, pick.choice((10_000, 1_000_000, 40_000_000, 90_000_000))
        sent, received = pick.choice((80, 0, 3000, 5_000_000)), pick.choice((1200, 0))
        forth: Values = {
            "local": self.address(local),
            "local_port": port,
            "remote": self.address(asked[0]),
            "remote_port": asked[1],
            "initiator": 1,
        }
        at = asked if kind in ("direct", "loopback") else to
        back: Values = {
            "local": self.address(at[0]),
            "local_port": at[1],
            "remote": self.address(seen_local),
            "remote_port": port,
            "initiator": 2,
        }
        if pick.random() < 0.05:
            forth["initiator"] = 0
        counts: Values = {
            "sent": sent,
            "received": received,
            "sent_segments": 15,
            "received_segments": 10,
            "retransmits": 1,
        }
        swapped: Values = {
            "sent": received,
            "received": sent,
            "sent_segments": 2,
            "received_segments": 4,
            "retransmits": 2,
        }
        node, other = client // PODS, server // PODS
        if pick.random() < 0.1:
            self.failure(node, mine, forth, other, theirs)
            return
        end: Values = {"end": pick.randrange(1, 5), "errno": pick.choice((0, 0, 104))}
        lifetime: Values = {"duration": pick.choice((lasts, UNKNOWN))}
        traced = pick.choices(("both", "client", "server"), (4, 4, 2))[0]
        if traced != "server":
            first = pick.choice((SYN, SYN, SYN, OPEN))
            self.tcp(begins, node, mine, forth, first)
            self.tcp(begins + 1000, node, mine, forth, CONNECT, rtt=90_000, initial_sequence=sequence, duration=1000)
        if traced != "client" and kind != "outside":
            late = pick.choice((1500, 2000, lasts + 5_000))
            self.tcp(begins + late, other, theirs, back, ACCEPT, initial_sequence=sequence, duration=500)
        for number in range(pick.choice((0, 0, 0, 1, 3))):
            part: Values = {name: value * (number + 1) // 5 for name, value in counts.items() if isinstance(value, int)}
            self.tcp(begins + 3000 + number * lasts // 4, node, mine, forth, REPORT, **part)
        if pick.random() < 0.1:
            self.drop(begins + 2500, other, theirs, forth, pick.choice(("TCP_INVALID_SEQUENCE", "SKB_CONSUMED")))
        if pick.random() < 0.9:
            if traced != "server":
                self.tcp(begins + lasts, node, mine, forth, CLOSE, **counts, **end, **lifetime)
            if traced != "client" and kind != "outside":
                after = pick.choice((-10, 100, 20_000))
                self.tcp(begins + lasts + after, other, theirs, back, CLOSE, **swapped, **end, **lifetime)
        if kind == "outside" and pick.random() < 0.3:
            self.answer(begins - 100, client, asked[0])

    def failure(self, node: int, who: Values, ends: Values, other: int, refuses: Values) -> None:
        """A connect that fails, with or without the packet that says why; sometimes the SYN is sent again."""
        failed: Values = {"errno": self.random.choice((111, 110, 1)), "duration": 5000}
        self.tcp(self.now, node, who, ends, SYN)
        if self.random.random() < 0.3:
            self.tcp(self.now + 4, node, who, ends, REPORT, sent=0, received=0, sent_segments=2)
        if self.random.random() < 0.5:
            self.drop(self.now + 5, other, refuses, ends, "NO_SOCKET")
        self.tcp(self.now + 10, node, who, ends, CONNECT, **failed)

    def tcp(self, time: int, node: int, who: Values, ends: Values, operation: int, **more: Value) -> None:
        if self.random.random() < 0.03:
            return  # lost
        unknown: Values = dict.fromkeys(("sent", "received", "rtt", "duration"), UNKNOWN)
        self.rows.append(
            (time, node, "trace_tcp", {"operation": operation, "family": 2, **who, **ends, **unknown, **more})
        )

    def drop(self, time: int, node: int, who: Values, ends: Values, reason: str) -> None:
        if self.calm and self.random.random() < 0.95:
            return
        values: Values = {"source": ends["local"], "source_port": ends["local_port"], "reason": reason, "protocol": 6}
        values |= {"destination": ends["remote"], "destination_port": ends["remote_port"], "flags": 2}
        self.rows.append((time, node, "trace_tcpdrop", values | {"cgroup": who["cgroup"], "pid": who["pid"]}))

    def answer(self, time: int, client: int, address: bytes) -> None:
        """A DNS answer with this address."""
        if self.calm and self.random.random() < 0.95:
            return
        text = ".".join(map(str, address))
        values: Values = {"name": f"host{address[2]}.example.", "addresses": [text], "type": 1, "role": 1}
        values |= {
            "client": self.address(pod_address(client)),
            "client_port": 5353,
            "server": self.address(bytes([10, 96, 0, 10])),
        }
        values |= {"server_port": 53, "protocol": 17, "latency": 1000, **self.owner(client)}
        self.rows.append((time, client // PODS, "trace_dns", values))

    def datagrams(self, client: int, local: bytes, port: int, to: tuple[bytes, int]) -> None:
        who = {name: value for name, value in self.owner(client).items() if name != "exec_id"}
        ends: Values = {
            "local": self.address(local),
            "local_port": port,
            "remote": self.address(to[0]),
            "remote_port": to[1],
            "protocol": 17,
        }
        for operation in (1, 2, 3):
            values: Values = {"operation": operation, "sent": 10, "sent_packets": 1, "duration": 7, **who, **ends}
            self.rows.append((self.now + operation * 50_000, client // PODS, "trace_udp", values))

    def chunks(self) -> Iterator[tuple[int, list[Batch]]]:
        """The batches of each 30 ms, as nodes send them: most rows in time, some later."""
        identities = [identity_of(node) for node in range(NODES)]
        size = 30_000_000
        arrivals: dict[int, dict[tuple[int, str], list[tuple[int, Values]]]] = {}
        for time, node, gadget, values in self.rows:
            step = time // size
            arrivals.setdefault(step, {}).setdefault((node, gadget), []).append((time, values))
        for step, of_step in sorted(arrivals.items()):
            batches = []
            for (node, gadget), rows in of_step.items():
                kind = load_gadget(gadget)
                writer = RowWriter(kind.record)
                for time, values in rows:
                    writer.add(b"", time, values)
                batch = decode(kind, f"node-{node}", writer.take())
                batch.name_owners(identities[node].lookup)
                batches.append(batch)
            yield (step + 1) * size, batches


def identity_of(node: int) -> Identity:
    identity = Identity(f"node-{node}")
    containers = [
        {"id": f"c{pod}", "namespace": "default", "pod": f"p{node}-{pod}", "pod_uid": "", "container": "main"}
        | {"kind": "container"}
        for pod in range(PODS)
    ]
    identity.apply(changes({"containers": containers, "cgroups": {str(pod): f"c{pod}" for pod in range(PODS)}}), 0.0)
    return identity


def cluster() -> Addresses:
    """Some pods are known to the cluster, and a service leads to some of them."""
    pods = [PodFacts("default", f"p{pod // PODS}-{pod % PODS}", ("app=x",)) for pod in range(0, NODES * PODS, 2)]
    texts = [".".join(map(str, pod_address(pod))) for pod in range(0, NODES * PODS, 2)]
    service = ".".join(map(str, SERVICE))
    return Addresses(
        pods=dict(zip(texts, pods, strict=True)),
        by_name={(pod.namespace, pod.name): pod for pod in pods},
        services={service: "default/shop"},
        services_of_backend={text: ((service, 80),) for text in texts[::2]},
        nodes={"172.16.0.1": "node-0"},
    )


def output(
    traffic: Traffic, least: int, most: int, most_ended: int, tests: Sequence[filter.Test] = ()
) -> tuple[str, int, int]:
    """What all formats that read columns print, and the events as objects; flows that were forgotten, and events that
    were hidden. `least`: transform.LEAST_ROWS."""
    book, stream, chosen = AddressBook(), io.StringIO(), FlowFilter(tests, internal=False)
    table = FlowTable(book, most=most, most_ended=most_ended)
    formats = [(format, terminal) for format in sorted(IN_COLUMNS) for terminal in (None, TERMINAL)]
    writers = [output_of(OutputOptions(format=format), stream, terminal)[1] for format, terminal in formats]

    def write(events: Sequence[FlowEvent]) -> None:
        for writer in writers:
            assert writer is not None
            writer(events)
        if traffic.calm:
            return  # objects of events would take their connections out of the columns
        stream.writelines(f"{json.dumps(hubble(event))}\n" for event in events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transform, "LEAST_ROWS", least)
        patch.setattr(joiner, "_MOST", 30)
        sink = FlowSink(FlowTransform(table, chosen, in_columns=True), write, stream)
        merge = TimeMerge(0)
        for number, (now, batches) in enumerate(traffic.chunks()):
            if number % 3 == 2:
                book.cluster = Addresses() if number % 2 else cluster()
            for batch in batches:
                merge.add(batch, now)
            sink.write(merge.flush())
        sink.close()
    return stream.getvalue(), table.forgotten, chosen.hidden


@pytest.mark.parametrize(
    ("seed", "most", "most_ended"),
    [(0, 200_000, 50_000), (1, 200_000, 90), (2, 300, 90), (3, 200_000, 120), (11, 200_000, 50_000), (159, 200_000, 5)],
)
def test_columns_and_single_rows_print_the_same(seed: int, most: int, most_ended: int) -> None:
    traffic = Traffic(seed)
    for _ in range(200):
        traffic.connection()
    expected = output(traffic, 1 << 30, most, most_ended)
    found = output(traffic, 1, most, most_ended)
    assert found[0].splitlines() == expected[0].splitlines()
    assert found == expected


def test_conditions_select_the_same_in_columns() -> None:
    traffic = Traffic(9)
    for _ in range(150):
        traffic.connection()
    conditions: tuple[list[filter.Test], ...] = (
        [filter.OfEnds("from", filter.pod(["p0-*"])), filter.OfEnds("to", filter.ports(["8080"]))],
        [filter.OfEnds("", filter.names(["host1.*"]))],
        [filter.OfEnds("", filter.addresses(["10.0.1.0/24"])), filter.traffic_direction(["egress"])],
        [filter.protocol(["tcp"]), filter.verdict(["forwarded"]), filter.OfEnds("", _has_labels)],
        [filter.traffic_direction(["ingress"])],
        [filter.protocol(["sctp", "dns"])],
        [filter.http_status(["200"])],
    )
    assert not any(FlowFilter(tests).looks_at_events for tests in conditions)
    lengths = set()
    for tests in conditions:
        expected = output(traffic, 1 << 30, 200_000, 50_000, tests)
        assert output(traffic, 1, 200_000, 50_000, tests) == expected
        lengths.add(len(expected[0]))
    assert len(lengths) >= 5  # and some show nothing


EXPRESSIONS = (
    'source.pod == "p0-2" || destination.port in [443, 80]',
    'source.namespace == "default" && sent > 1000 && kind == "close"',
    'destination.pod == null || !(destination.pod.startsWith("p1"))',
    '!(destination.name.startsWith("93.")) && "app=x" in destination.labels',
    'source.comm.contains("l") && source.pid > 103 && source.ip.endsWith(".2")',
    'source.comm == "naïve" || source.comm.contains("\ufffd")',
    'error != "" || duration > 50000000 || rtt == null',
    'l7 == null && drop_reason == null && !(is_reply) && "server" in seen_by',
    '!(l7.type == "dns") || verdict != "FORWARDED" || protocol == "UDP"',
    'backend.pod == "p0-1" || denied_by == null && summary.matches("in$|^SYN")',
    'timestamp > "1970-01-01T00:00:01.2Z" && flow_began < "1970-01-01T00:00:01.25Z"',
    'flow_id.endsWith("=") && node != "node-1" && direction == "EGRESS" && source.node == node',
    "source.user_pid == null && size(destination.names) == 0 && received_packets + retransmits > 2",
    'destination.service != null || destination.exec_id == null || destination.entity == "world"',
)


def test_expressions_select_the_same_in_columns() -> None:
    traffic = Traffic(9)
    for _ in range(60):
        traffic.connection()
    decided = 0
    for text in EXPRESSIONS:
        one, other = filter.Expression(text), filter.expression(text)
        expected = output(traffic, 1 << 30, 200_000, 50_000, [one])
        assert output(traffic, 1, 200_000, 50_000, [other]) == expected
        assert one.undecided == other.undecided
        decided += not FlowFilter([other]).looks_at_events
    assert decided >= len(EXPRESSIONS) - 1


def test_an_expression_that_is_an_error_for_all_events_says_the_same_in_columns() -> None:
    traffic = Traffic(9)
    for _ in range(60):
        traffic.connection()
    for text in ("l7.status == 200", "drop_reason.size() > 3", "sent / 0 == 1"):
        one, other = filter.Expression(text), filter.expression(text)
        assert isinstance(other, filter.ColumnExpression)
        assert output(traffic, 1, 200_000, 50_000, [other]) == output(traffic, 1 << 30, 200_000, 50_000, [one])
        assert one.undecided == other.undecided


def _has_labels(party: Party) -> bool:
    return party.who.pod is not None and bool(party.who.pod.labels)


def test_connections_are_joined_in_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic(9)
    for _ in range(150):
        traffic.connection()
    sums = np.zeros(2, np.int64)
    choose = FlowTable.choose

    def counted(self: FlowTable, batch: Batch, *rest: object) -> object:
        chosen = choose(self, batch, *rest)  # type: ignore[arg-type]
        sums[:] += 0 if chosen is None else int(chosen.rows.sum()), len(batch)
        return chosen

    monkeypatch.setattr(FlowTable, "choose", counted)
    output(traffic, 1, 200_000, 50_000)
    assert sums[0] > sums[1] / 10


def test_slots_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transform, "LEAST_ROWS", 1)
    monkeypatch.setattr(joiner, "_MOST", 5)
    table = FlowTable(AddressBook(), most_ended=50)
    make = FlowTransform(table, FlowFilter(), in_columns=True)
    kind, identity, writer = load_gadget("trace_tcp"), identity_of(0), RowWriter(load_gadget("trace_tcp").record)
    for second in range(60):
        for number in range(200):
            ends: Values = {"local": v4(bytes([10, 0, 0, 1])), "local_port": 1024 + second * 200 + number}
            ends |= {"remote": v4(bytes([10, 9, 9, 9])), "remote_port": 80, "initiator": 1, "pid": 7, "cgroup": 1}
            for operation in (SYN, CONNECT, CLOSE):
                more = {"operation": operation, "initial_sequence": second * 200 + number + 1}
                writer.add(b"", second * 1_000_000_000 + number * 100 + operation, {**ends, **more})
        batch = decode(kind, "node-0", writer.take())
        batch.name_owners(identity.lookup)
        assert len(make.apply(Rows([batch]))) == 400
    assert table.plain.size <= 4096
