"""Names that containers choose, through every format: nothing reaches a terminal raw, and each row stays one row.

Names are those that a kernel or a runtime really hands out: terminal escapes, newlines, bytes that are not UTF-8,
bidirectional overrides, line separators that only some programs know, 4,096 bytes.
"""

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kubectl_gadget.flows import formats as flow_formats
from kubectl_gadget.flows.ends import AddressBook
from kubectl_gadget.flows.flow import FlowEvent
from kubectl_gadget.flows.map import FlowGraph, dot, mermaid, text_map
from kubectl_gadget.flows.rows import batch_of
from kubectl_gadget.observe.formats import Tree
from kubectl_gadget.observe.happening import FileEvent
from kubectl_gadget.observe.lines import line
from kubectl_gadget.observe.messages import message
from kubectl_gadget.observe.run import SHOWN, LineOptions
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import FLOWS, TEMPLATES, OutputOptions
from kubectl_gadget.output.terminal import Terminal
from kubectl_gadget.rows.arrangement import Arrangement
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from kubectl_gadget.run.progress import Progress
from kubectl_gadget.wire.policy_events import EventArgument, ExecId, PolicyEvent, StackEntry
from tests.examples import examples
from tests.flows.rows import XWING, RowTable, accepted, dns, drop, http, tcp
from tests.messages import changes
from tests.observe.lives import XWING as POD
from tests.observe.lives import Life, executed, vi
from tests.output.sampled import PROFILE, batch, profile, stack
from tests.rows.records import OPEN, record, ring

TERMINAL = Terminal(lambda: 100, color=False)
KNOWN = (
    b"\x1b]0;title\x07\x1b[2J",
    b"two\nlines\r\n",
    b"\xff\xfe\x80",
    b"\xc2\x9b31m\xc2\x85next\x7f",
    "\u202egnp.exe\u2028\u2029\ufeff\u200b".encode(),
    b"</script><svg onload=alert(1)>]]>",
    b'","x":{"y":1},"',
    b"%s%n{}[red]=cmd|' /C calc'!A0",
    b"---\n- !!python/object:os.system",
    b"x" * 4096,
    b"\x1b" * 4096,
    b"-",
)
"""What was found to matter, now or by others."""
NAMES = (
    st.sampled_from(KNOWN) | st.binary(max_size=60) | st.text(max_size=20).map(lambda s: s.encode("utf-8", "replace"))
)
few = settings(max_examples=examples(40))


def text_of(name: bytes) -> str:
    """As a decoder gives it: a byte that is not UTF-8 is a lone surrogate."""
    return name.decode("utf-8", "surrogateescape")


def assert_safe(text: str) -> None:
    assert all(part.isprintable() for part in text.split("\n"))
    text.encode()


def opens(name: bytes) -> Rows:
    """Two rows of a pod whose runtime wrote that name into its annotations."""
    path = name.replace(b"\0", b"/")[:4095]
    made = record(cgroup=7, comm=name[:15], parent_comm=name[-15:], path=path, resolved=[path], args=[name, b"", name])
    found = decode(OPEN, text_of(name), ring(made, record(cgroup=7)))
    shown = name.decode("utf-8", "replace")
    identity = Identity("node")
    pod = {"id": "c", "namespace": shown, "pod": shown, "container": shown, "image": shown, "kind": "container"}
    identity.apply(changes({"containers": [pod], "cgroups": {"7": "c"}}), 0.0)
    found.owners = identity.lookup(found.cgroups())
    return Rows([found])


def printed(format: str, name: bytes, terminal: Terminal | None = TERMINAL) -> str:
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format=format), (OPEN,), stream, terminal=terminal)
    sink.start()
    sink.write(opens(name))
    sink.close()
    return stream.getvalue()


@pytest.mark.parametrize(
    ("format", "lines"),
    [
        *(("table", 3), ("wide", 3), ("json", 2), ("csv", 3), ("name", 1)),
        ('jsonpath={.path} {.args} {.pod} {.comm}{"\\n"}', 2),
        ("custom-columns=A:.path,B:.args,C:.pod,D:.node", 3),
    ],
)
@given(NAMES)
@few
def test_no_name_reaches_a_terminal_raw_or_leaves_its_row(format: str, lines: int, name: bytes) -> None:
    text = printed(format, name)
    assert_safe(text)
    assert text.count("\n") == lines


@given(NAMES)
@few
def test_json_and_yaml_are_safe_and_say_the_same(name: bytes) -> None:
    made, documents = printed("json", name, None), printed("yaml", name, None)
    assert_safe(made)
    assert_safe(documents)
    assert list(yaml.safe_load_all(documents)) == [json.loads(one) for one in made.splitlines()]


def flow_events(raw: bytes) -> list[FlowEvent]:
    """Flows are made of JSON rows, in which U+FFFD stands for what is not UTF-8."""
    name = raw.decode("utf-8", "replace")
    table = RowTable(AddressBook())
    who = XWING | dict.fromkeys(("node", "namespace", "pod", "container", "comm"), name)
    rows = [
        tcp("syn", 1, who),
        accepted("accept", 1.1),
        http(1.2, name, 200, host=name, method=name, **who),
        dns(1.3, name, ["10.2.0.3"], **who),
        drop(1.4, name),
        tcp("close", 2, who, initiator="this end", end="fin", duration=10, sent=70, received=900),
    ]
    return [event for row in rows for event in table.add(row)]


@pytest.mark.parametrize(
    "format",
    [
        *(sorted(set(FLOWS.names) - {"dot", "mermaid", *TEMPLATES})),
        "jsonpath={.summary} {.source.pod}",
        "custom-columns=A:.summary",
    ],
)
@given(NAMES)
@few
def test_no_name_reaches_a_terminal_raw_through_flows(format: str, name: bytes) -> None:
    stream = io.StringIO()
    sink = flow_formats.make_sink(OutputOptions(format=format, color="never"), stream, TERMINAL)
    sink.write(Rows([batch_of(flow_events(name))]))
    assert_safe(stream.getvalue())


@pytest.mark.parametrize("draw", [text_map, dot, mermaid])
@given(NAMES)
@few
def test_no_name_reaches_a_terminal_raw_through_a_map(draw: Callable[[FlowGraph], str], name: bytes) -> None:
    drawn = FlowGraph()
    for event in flow_events(name):
        drawn.add(event)
    assert_safe(draw(drawn))


def told(name: str) -> list[Any]:
    life = Life()
    pod = replace(POD, namespace=name, pod=name, container=name, image=name)
    identity = vi(life)
    arguments = (EventArgument("string", {"value": name}), EventArgument("file", {"path": name}))
    stacks = (StackEntry(1, name, 1, name),)
    happened = [
        executed(ExecId(9001, 12), name, name, "", parent=identity, cwd=name, comm=name),
        FileEvent("write", identity, 11, name, 1, 2, 3, bytes=5),
        PolicyEvent("kprobe", identity, function=name, args=arguments, policy=name, kernel_stack=stacks),
    ]
    return [life.told(one, container=pod) for one in happened]


@given(NAMES)
@few
def test_no_name_reaches_a_terminal_raw_through_observe(name: bytes) -> None:
    tree = Tree()
    for one in told(text_of(name)):
        shown = line(one, LineOptions(timestamps=True, shown=frozenset(SHOWN), stacks=False))
        assert_safe(shown)
        assert "\n" not in shown
        assert_safe(line(one, LineOptions(stacks=True)))
        made = message(one, ancestors=True)
        assert_safe(made)
        json.loads(made)
        tree.add(one)
    for drawn in tree.lines():
        assert_safe(drawn)
        assert "\n" not in drawn


@pytest.mark.parametrize("format", ["folded", "speedscope", "table", "json"])
@given(NAMES)
@few
def test_no_name_reaches_a_terminal_raw_through_a_profile(format: str, name: bytes) -> None:
    text = text_of(name)
    rows = profile(batch(text, text, ("work", stack(text, "main", module=text), stack(text), 7)))
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format=format, once=True), (PROFILE,), stream)
    sink.start()
    sink.write_block(rows)
    sink.close()
    assert_safe(stream.getvalue())


@given(NAMES)
@example(b"</script><script>alert(1)</script>")
@few
def test_a_flame_graph_holds_names_as_data_only(tmp_path_factory: pytest.TempPathFactory, name: bytes) -> None:
    file = tmp_path_factory.mktemp("flame") / "graph.html"
    text = text_of(name)
    sink = make_sink(
        OutputOptions(once=True, arrangement=Arrangement(flame_graph=str(file))), (PROFILE,), io.StringIO()
    )
    sink.start()
    sink.write_block(profile(batch("node", text, ("work", stack(text), stack(text), 7))))
    sink.close()
    page = Path(file).read_text(encoding="utf-8")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)["root"][2] > 0
    assert page.count("<script") == 2
    assert not set("<>&\x1b") & set(data)


@given(NAMES)
@few
def test_what_a_node_says_of_itself_reaches_no_terminal_raw(name: bytes) -> None:
    stream = io.StringIO()
    progress = Progress(stream)
    progress.node(text_of(name), text_of(name))
    assert_safe(stream.getvalue())
