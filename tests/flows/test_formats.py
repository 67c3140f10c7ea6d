"""What is printed of flows: every format, and the map."""

import csv
import io
import json
from typing import Any

import pytest
import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.formats import make_sink
from kubectl_gadget.flows.hubble import compact, hubble
from kubectl_gadget.flows.map import FlowGraph, dot, mermaid, text_map
from kubectl_gadget.flows.records import FLOW, record
from kubectl_gadget.flows.rows import batch_of
from kubectl_gadget.kube.addresses import Addresses, PodFacts
from kubectl_gadget.kube.inventory import Workload
from kubectl_gadget.output.escape import json_line
from kubectl_gadget.output.registry import FLOWS, TEMPLATES, OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.rows import Rows
from tests.flows.rows import SERVER, RowTable, accepted, dns, drop, http, tcp


def made() -> list[FlowEvent]:
    book = AddressBook()
    facts = PodFacts("empire", "deathstar", ("org=empire",), Workload("empire", "Deployment", "deathstar"))
    book.cluster = Addresses(pods={SERVER[0]: facts}, by_name={("empire", "deathstar"): facts})
    table = RowTable(book)
    rows = [
        tcp("syn", 1),
        accepted("accept", 1.1),
        http(1.2, "/attack", 200),
        dns(1.3, "deathstar.empire.", [SERVER[0]]),
        drop(1.4, "NETFILTER_DROP"),
        tcp("close", 2, initiator="this end", end="fin", duration=10, sent=70, received=900),
    ]
    return [event for row in rows for event in table.add(row)]


def test_jsonpb_has_grpc_as_http_2_with_its_status_as_a_header() -> None:
    more: dict[str, Any] = {"protocol": "gRPC", "method": "POST", "grpc_status": "NOT_FOUND", "grpc_status_raw": 5}
    (event,) = RowTable(AddressBook()).add(http(1, "/shop.Carts/Get", 200, **more))
    assert hubble(event)["flow"]["l7"] == {
        "type": "RESPONSE",
        "latency_ns": "2000",
        "http": {
            "code": 200,
            "method": "POST",
            "url": "http://deathstar/shop.Carts/Get",
            "protocol": "HTTP/2",
            "headers": [{"key": "grpc-status", "value": "5"}],
        },
    }


def printed(format: str, color: bool = False, events: list[FlowEvent] | None = None) -> str:
    """Events in a format; those of made() if there are no others."""
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format=format, color="always" if color else "never"), stream, None)
    sink.write(Rows([batch_of(made() if events is None else events)]))
    return stream.getvalue()


def test_the_table_has_both_ends_with_their_processes() -> None:
    header, first, *_, last = printed("table").splitlines()
    assert header.split() == ["TIME", "SOURCE", "DESTINATION", "PROTO", "VERDICT", "SUMMARY"]
    assert first.split() == [
        *("00:00:01.000", "default/xwing", "(curl", "11)", "->", "empire/deathstar:8080", "(httpd", "22)"),
        *("TCP", "FORWARDED", "SYN"),
    ]
    assert last.endswith("FIN, 70B out, 900B in, 10ns")


def test_json_has_one_object_a_line_with_the_members_that_are_promised() -> None:
    rows = [json.loads(line) for line in printed("json").splitlines()]
    assert len(rows) == len(made())
    assert all(row.keys() == FLOW.keys() for row in rows)
    assert rows[0]["destination"]["workload"] == {"kind": "Deployment", "name": "deathstar"}


def test_lines_of_json_are_what_a_record_is() -> None:
    for hostile in ("curl", "\x1b[31m\nx", 'quo"te\\', "naïve \u202e"):
        found = [*made(), *RowTable(AddressBook()).add(tcp("syn", 1, comm=hostile, pod=hostile))]
        found += RowTable(AddressBook()).add(tcp("connect", 1, errno=111, error="ECONNREFUSED", rtt=5, duration=7))
        found += RowTable(AddressBook()).add(tcp("syn", 1, local=("fe80::1", 5), remote=("::1", 6), pod=""))
        for event in found:
            assert printed("json", events=[event]) == json_line(record(event), (",", ":")) + "\n"


def test_jsonpb_has_hubbles_names() -> None:
    lines = [json.loads(line) for line in printed("jsonpb").splitlines()]
    first, request, answer, dropped, last = (line["flow"] for line in lines)
    assert (first["verdict"], first["traffic_direction"], first["is_reply"]) == ("FORWARDED", "EGRESS", False)
    assert first["IP"] == {"source": "10.1.0.2", "destination": SERVER[0], "ipVersion": "IPv4"}
    assert first["l4"]["TCP"] == {"source_port": 40000, "destination_port": 8080, "flags": {"SYN": True}}
    assert first["destination"]["pod_name"] == "deathstar"
    assert first["destination"]["labels"] == ["k8s:io.kubernetes.pod.namespace=empire", "k8s:org=empire"]
    assert first["destination"]["workloads"] == [{"name": "deathstar", "kind": "Deployment"}]
    assert first["extensions"]["value"]["kubectl-gadget"]["source"]["comm"] == "curl"
    assert (request["l7"]["type"], request["l7"]["http"]["code"]) == ("RESPONSE", 200)
    assert request["source"]["pod_name"] == "deathstar"
    assert answer["l7"]["dns"]["query"] == "deathstar.empire."
    assert dropped["drop_reason_desc"] == "POLICY_DENY"
    assert dropped["extensions"]["value"]["kubectl-gadget"]["drop_reason"] == "NETFILTER_DROP"
    assert last["l4"]["TCP"]["flags"] == {"FIN": True}


def test_compact_lines_have_hubbles_shape() -> None:
    found = list(map(compact, made()))
    assert found[0] == (
        "01-01 00:00:01.000: default/xwing:40000 (pod) -> empire/deathstar:8080 (pod) to-network FORWARDED (SYN)"
    )
    assert "<- empire/deathstar:8080 (pod) http-response FORWARDED" in found[1]
    assert "<> empire/deathstar:8080 (pod) NETFILTER_DROP DROPPED" in found[3]


def test_yaml_and_csv_have_what_json_has() -> None:
    plain = [json.loads(line) for line in printed("json").splitlines()]
    assert list(yaml.safe_load_all(printed("yaml"))) == plain
    rows = list(csv.DictReader(io.StringIO(printed("csv"))))
    assert [row["destination.pod"] for row in rows[:1]] == ["deathstar"]
    assert len(rows) == len(plain)


def test_templates_and_names() -> None:
    assert printed("jsonpath={.source.pod} {.verdict}{'\\n'}").splitlines()[0] == "xwing FORWARDED"
    assert printed("custom-columns=FROM:.source.name").splitlines()[:2] == ["FROM", "default/xwing"]
    assert printed("name").split() == ["pod/xwing", "pod/deathstar"]


def test_every_format_can_be_asked_for_and_others_are_refused() -> None:
    for name in FLOWS.names:
        text = TEMPLATES.get(name, name).replace("'", "").replace(".pod", ".summary").replace(".path", ".summary")
        make_sink(OutputOptions(format=text), io.StringIO(), None)
    for wrong in ("jsonx", "json=x", "jsonpath"):
        with pytest.raises(UsageError, match=r"template|unknown output format"):
            make_sink(OutputOptions(format=wrong), io.StringIO(), None)


def test_hostile_names_reach_no_terminal() -> None:
    book = AddressBook()
    (event,) = RowTable(book).add(tcp("syn", 1, comm="\x1b[31m\nx"))
    shown = [printed("table", events=[event]), compact(event), text_map(of([event]))]
    assert not any("\x1b" in text for text in shown)
    assert len(shown[0].splitlines()) == 2
    assert json.loads(json.dumps(record(event)))["source"]["comm"] == "\x1b[31m\nx"
    assert hubble(event)["flow"]["extensions"]["value"]["kubectl-gadget"]["source"]["comm"] == "\x1b[31m\nx"


def of(found: list[FlowEvent]) -> FlowGraph:
    result = FlowGraph()
    for event in found:
        result.add(event)
    return result


def test_the_map_adds_flows_up_by_workload() -> None:
    found = of(made())
    client, server = next(iter(found.edges))
    assert (client.name, client.kind) == ("xwing", "Pod")
    assert (server.group, server.name, server.kind) == ("empire", "deathstar", "Deployment")
    edge = found.edges[client, server]
    assert (edge.flows, edge.requests, edge.dropped, edge.sent, edge.received) == (1, 1, 1, 70, 900)
    assert text_map(found).splitlines()[0] == "default/xwing"


def test_an_edge_is_red_only_when_each_of_its_ports_had_trouble() -> None:
    table, found = RowTable(AddressBook()), FlowGraph()
    for row in (tcp("syn", 1), drop(1.2, "NETFILTER_DROP")):
        found.add_all(table.add(row))
    (edge,) = found.edges.values()
    assert edge.trouble == "all"
    assert "color=red" in dot(found)
    assert "stroke:red" in mermaid(found)
    found.add_all(table.add(tcp("syn", 2, local=("10.1.0.2", 42000), remote=(SERVER[0], 9090))))
    assert edge.trouble == "some"
    assert "color=orange" in dot(found)
    assert "stroke:orange" in mermaid(found)
    assert "8080/TCP (1 dropped), 9090/TCP" in text_map(found)
    assert "\x1b[33m" in text_map(found, color=True)


def test_answers_of_servers_that_fail_and_names_that_do_not_exist_are_trouble() -> None:
    def failed(*rows: dict[str, Any]) -> list[int]:
        table, found = RowTable(AddressBook()), FlowGraph()
        for row in rows:
            found.add_all(table.add(row))
        found.settle()
        return [edge.failed for edge in found.edges.values()]

    assert failed(http(1, "/", 503)) == [1]
    assert failed(http(1, "/", 404)) == [0]
    assert failed(http(1, "/x.Y/Z", 200, protocol="gRPC", grpc_status="UNAVAILABLE", grpc_status_raw=14)) == [1]
    assert failed(dns(1, "redis.shop.", [], "NXDOMAIN")) == [1]
    assert failed(dns(1, "redis.shop.", [], "SERVFAIL")) == [1]
    attempts = [f"redis.shop.{domain}" for domain in ("default.svc.cluster.local.", "example.internal.")]
    tried = [dns(1, name, [], "NXDOMAIN") for name in attempts]
    assert failed(*tried, dns(2, "redis.shop.", ["10.2.0.3"])) == [0]
    assert failed(*tried, dns(2, "redis.shop.", [], "NXDOMAIN")) == [1]


def test_a_live_map_waits_for_the_end_of_a_search_for_a_name() -> None:
    table, found = RowTable(AddressBook()), FlowGraph()
    found.add_all(table.add(dns(1, "redis.svc.cluster.local.", [], "NXDOMAIN")))
    (edge,) = found.edges.values()

    assert [found.settle(is_over=False), edge.failed] == [[], 0]
    assert [len(found.settle(is_over=False)), edge.failed] == [1, 1]


def test_dot_and_mermaid_quote_what_they_are_given() -> None:
    (event,) = RowTable(AddressBook()).add(tcp("syn", 1, pod='x"]; evil', namespace="n<b>|"))
    found = of([event])
    assert 'label="x\\"]; evil"' in dot(found)
    drawn = mermaid(found)
    assert "evil" in drawn
    assert '"]; ' not in drawn.replace('"]\n', "")
    assert "<b>" not in drawn


def test_the_map_knows_a_server_that_its_own_node_names_after_the_last_event() -> None:
    table, found = RowTable(AddressBook()), FlowGraph()
    for row in (tcp("syn", 1), accepted("accept", 1.1, initiator="other end")):
        found.add_all(table.add(row))
    assert [(server.kind, server.name) for _, server in found.edges] == [("World", SERVER[0])]
    found.settle()
    assert [(server.group, server.name) for _, server in found.edges] == [("empire", "deathstar")]
    assert [edge.flows for edge in found.edges.values()] == [1]
    assert found.settle() == []


def test_a_narrow_terminal_has_a_table_without_processes_and_with_the_verdicts_that_say_something() -> None:
    stream = io.StringIO()
    sink = make_sink(OutputOptions(color="never"), stream, Terminal(lambda: 80))
    sink.write(Rows([batch_of(made())]))
    header, first, *_ = lines = stream.getvalue().splitlines()
    assert header.split() == ["TIME", "SOURCE", "DESTINATION", "RESULT"]
    assert first.split() == ["00:00:01", "default/xwing", "->", "empire/deathstar:8080", "TCP", "SYN"]
    assert any("  DROPPED NETFILTER_" in line for line in lines)
    assert all(len(line) <= 80 for line in lines)


def test_csv_has_a_column_for_each_member_of_each_end() -> None:
    row = next(csv.DictReader(io.StringIO(printed("csv"))))
    wanted = {"source.pod": "xwing", "destination.port": str(SERVER[1]), "backend.pod": "", "denied_by.rule": ""}
    assert {name: row[name] for name in wanted} == wanted


def test_a_late_row_is_marked_in_every_format_of_ours() -> None:
    events = [event._replace(late=number == 1) for number, event in enumerate(made())]
    json_rows = [json.loads(text) for text in printed("json", events=events).splitlines()]
    assert [row.get("late") for row in json_rows[:3]] == [None, True, None]
    assert [record(event).get("late") for event in events[:3]] == [None, True, None]
    csv_rows = list(csv.DictReader(io.StringIO(printed("csv", events=events))))
    assert [row["late"] for row in csv_rows[:3]] == ["", "true", ""]
    table = printed("table", events=events).splitlines()
    assert [text.split()[0].endswith("*") for text in table[1:4]] == [False, True, False]
    assert '"late"' not in json.dumps(hubble(events[1]))


def chosen(format: str, *columns: str) -> list[str]:
    """The lines of the first event, with these columns."""
    stream = io.StringIO()
    make_sink(OutputOptions(format=format, columns=columns), stream, None).write(Rows([batch_of(made()[:1])]))
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()]


def test_columns_choose_members_in_every_format() -> None:
    assert chosen("table", "source.pod", "PROTO", "rtt") == ["SOURCE.POD PROTO RTT", "xwing TCP -"]
    assert chosen("json", "source.pod", "rtt") == ['{"source.pod":"xwing","rtt":null}']
    assert chosen("csv", "time", "source.port")[1] == "2026-01-01T00:00:01.000000000Z,40000"
    for format in ("table", "json", "csv"):
        with pytest.raises(UsageError, match="flows have no column 'sorce'"):
            chosen(format, "sorce")
