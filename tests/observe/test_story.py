"""From rows of trace process on several nodes to rows of a story, and what is chosen of them."""

import csv
import io
import re
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from kubectl_gadget.gadgets.load import load_gadget
from kubectl_gadget.observe.happening import ConnectionEvent, FileEvent, Happening
from kubectl_gadget.observe.story import GADGET, Choice, Story, entries_of
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import Batch, decode
from kubectl_gadget.rows.containers import UNKNOWN, Container, Owners
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.rows.views import RowWriter
from kubectl_gadget.wire.policy_events import ExecId, PolicyEvent
from tests.observe.lives import NOON, SECOND, SHELL, XWING

pytestmark = pytest.mark.usefixtures("catalogue_built")
CHILD, PROGRAM = ExecId(2000, 11), ExecId(2001, 11)
STAR = Container("container", "empire", "star", "laser")


def packed(identity: ExecId) -> bytes:
    return struct.pack("<QII", identity.started, identity.pid, 0)


def batch(rows: Sequence[dict[str, Any]], node: str = "n1", container: Container = XWING, start: int = 0) -> Batch:
    """Rows of trace process, a second apart."""
    gadget = load_gadget("trace_process")
    writer = RowWriter(gadget.record)
    for number, row in enumerate(rows):
        writer.add(b"", NOON + (start + number) * SECOND, {"auid": 0xFFFFFFFF, "ns_host": 0, "cwd": b"\0"} | row)
    found = decode(gadget, node, writer.take())
    found.owners = Owners(np.ones(len(rows), np.intp), [UNKNOWN, container])
    return found


def path(text: str) -> bytes:
    """As a gadget_path has it: leaf first."""
    return b"".join(part.encode() + b"\0" for part in reversed(text.strip("/").split("/")))


LIFE: list[dict[str, Any]] = [
    {"operation": b"running", "exec_id": packed(SHELL), "exe": path("/bin/sh"), "args": ["sh"], "code": -1},
    {"operation": b"fork", "exec_id": packed(CHILD), "parent_exec_id": packed(SHELL), "exe": path("/bin/sh")},
    {
        "operation": b"exec",
        "exec_id": packed(PROGRAM),
        "parent_exec_id": packed(SHELL),
        "path": b"/usr/bin/vi",
        "exe": path("/usr/bin/vi"),
        "args": ["vi", "/etc/passwd"],
    },
    {"operation": b"exit", "exec_id": packed(PROGRAM), "parent_exec_id": packed(SHELL), "code": 3},
]


def tell(rows: Rows, **choice: Any) -> list[str]:
    """The types and binaries of the events."""
    told = Story({}, Choice(**choice)).apply(rows).collect(entries_of)
    return [f"{item.happening.operation} {item.process.binary}" for item in told]  # type: ignore[union-attr]


def test_programs_and_ends_are_reported_with_their_process_and_its_parent() -> None:
    told = Story({}).apply(Rows([batch(LIFE)])).collect(entries_of)
    assert [item.happening.operation for item in told] == ["exec", "exit"]  # type: ignore[union-attr]
    assert {item.process.command for item in told} == {"/usr/bin/vi /etc/passwd"}
    assert {item.process.parent.command for item in told if item.process.parent} == {"/bin/sh"}
    assert [item.time - NOON for item in told] == [2 * SECOND, 3 * SECOND]


def test_what_is_reported_of_late_rows_is_late_in_flat_rows_too() -> None:
    found = batch(LIFE)
    found.late = np.array([False, False, True, False])
    rows = Story({}).apply(Rows([found]))
    assert [item.late for item in rows.collect(entries_of)] == [True, False]
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format="csv"), [GADGET], stream)
    sink.write_chunk(rows)
    assert [row["late"] for row in csv.DictReader(io.StringIO(stream.getvalue()))] == ["true", ""]


def test_what_is_reported_is_what_was_known_at_that_time() -> None:
    told = Story({}).apply(Rows([batch(LIFE)])).collect(entries_of)
    assert [(item.references, item.parent_references) for item in told] == [(1, 2), (0, 1)]


def test_the_same_identity_on_another_node_is_another_process() -> None:
    other = [{**LIFE[2], "path": b"/bin/ls", "exe": path("/bin/ls")}, LIFE[3]]
    rows = Rows([batch(LIFE), batch(other, "n2", STAR, start=10)])
    told = Story({}).apply(rows).collect(entries_of)
    assert [(item.node, item.process.binary, item.container.pod) for item in told] == [
        *[("n1", "/usr/bin/vi", "xwing")] * 2,
        *[("n2", "/bin/ls", "star")] * 2,
    ]


def test_a_story_is_filtered_by_program_pod_and_type_and_still_joined() -> None:
    rows = [batch(LIFE), batch(LIFE, "n2", STAR, start=10)]
    assert tell(Rows(rows), event_types=frozenset({"process_exit"})) == ["exit /usr/bin/vi"] * 2
    assert tell(Rows(rows), process=re.compile("sh$")) == []
    assert tell(Rows(rows), process=re.compile("sh$"), running=True) == ["running /bin/sh"] * 2
    assert tell(Rows(rows), pod=re.compile("^xw")) == ["exec /usr/bin/vi", "exit /usr/bin/vi"]
    assert tell(Rows(rows), policies=frozenset({"p"})) == []


def test_events_of_others_are_joined_by_the_identity_of_the_process() -> None:
    def policies(batch: Batch) -> list[Happening]:
        return [PolicyEvent("kprobe", PROGRAM, function="f", policy="p") for _ in range(len(batch))]

    other = batch(LIFE[:1], start=2)
    other.gadget = GADGET
    told = Story({"observe": policies}).apply(Rows([batch(LIFE[:3]), other])).collect(entries_of)
    assert isinstance(told[-1].happening, PolicyEvent)
    assert told[-1].process.command == "/usr/bin/vi /etc/passwd"


@pytest.mark.parametrize(
    "happening",
    [
        FileEvent("open", ExecId(7, 7), 7, "/x", 1, 2, 3, comm="git"),
        PolicyEvent("kprobe", ExecId(7, 7), comm="git"),
        ConnectionEvent("connect", ExecId(7, 7), 7, "TCP", ("::1", 1), ("::1", 2), "", comm="git"),
    ],
)
def test_a_process_that_was_never_reported_has_its_threads_name(happening: Happening) -> None:
    other = batch(LIFE[:1])
    other.gadget = GADGET
    (told,) = Story({"observe": lambda batch: [happening] * len(batch)}).apply(Rows([other])).collect(entries_of)
    assert (told.process.name, told.process.binary, told.process.parent) == ("(git)", None, None)


def test_what_was_there_before_is_known_to_events_that_come_before_it_was_found() -> None:
    def policies(batch: Batch) -> list[Happening]:
        return [PolicyEvent("kprobe", SHELL, function="f") for _ in range(len(batch))]

    early = batch(LIFE[:1])
    early.gadget = GADGET
    told = Story({"observe": policies}).apply(Rows([early, batch(LIFE[:1], start=2)])).collect(entries_of)
    assert [item.process.binary for item in told] == ["/bin/sh"]


@pytest.mark.parametrize("format", ["table", "wide", "yaml", "csv", "name", "jsonpath={.binary} {.status}"])
def test_all_other_formats_show_flat_columns(format: str) -> None:
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format), [GADGET], stream)
    sink.start()
    sink.write(Story({}).apply(Rows([batch(LIFE)])))
    sink.close()
    assert ("pod/xwing" if format == "name" else "/usr/bin/vi") in stream.getvalue()


def test_flat_columns_hold_the_same_as_lines() -> None:
    stream = io.StringIO()
    template = (
        "{.node} {.pod} {.pid} {.operation} {.binary} {.arguments} {.detail} {.ppid} {.parent} {.timestamp}{'\\n'}"
    )
    sink = make_sink(OutputOptions(f"jsonpath={template}"), [GADGET], stream)
    sink.write(Story({}).apply(Rows([batch(LIFE)])))
    sink.close()
    assert stream.getvalue().splitlines()[-1] == (
        "n1 xwing 11 exit /usr/bin/vi /etc/passwd 3 10 /bin/sh 2023-11-14T22:13:23.000000000Z"
    )
