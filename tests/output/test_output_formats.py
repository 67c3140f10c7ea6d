"""Every output format, and the error when one does not exist."""

import csv
import gc
import io
import json
import weakref
from dataclasses import replace

import numpy as np
import pytest
import yaml

from kubectl_gadget.errors import UsageError
from kubectl_gadget.gadgets.schema import Gadget
from kubectl_gadget.output.output_formats import make_sink
from kubectl_gadget.output.registry import OutputOptions
from kubectl_gadget.rows.batch import decode
from kubectl_gadget.rows.containers import Identity
from kubectl_gadget.rows.rows import Rows
from tests.messages import changes
from tests.rows.records import OPEN, record, ring

HOSTILE = b'/a,"b"\n\x1b[2J\xff: x'


def rows(*records: bytes, gadget: Gadget = OPEN) -> Rows:
    """Rows of node-1, where cgroup 7 is the pod default/xwing."""
    batch = decode(gadget, "node-1", ring(*records))
    identity = Identity("node-1")
    pod = {"id": "c", "namespace": "default", "pod": "xwing", "container": "ship", "kind": "container"}
    identity.apply(changes({"containers": [pod], "cgroups": {"7": "c"}}), 0.0)
    batch.owners = identity.lookup(batch.cgroups())
    return Rows([batch])


def printed(format: str, *batches: Rows, gadgets: tuple[Gadget, ...] = (OPEN,), **options: object) -> str:
    """What a sink prints into a pipe."""
    stream = io.StringIO()
    sink = make_sink(OutputOptions(format=format, **options), gadgets, stream)  # type: ignore[arg-type]
    sink.start()
    for batch in batches:
        sink.write(batch)
    sink.close()
    return stream.getvalue()


def test_json_is_one_object_per_line() -> None:
    lines = printed("json", rows(record(pid=1), record(pid=2)), rows(record(pid=3))).splitlines()
    assert [json.loads(line)["pid"] for line in lines] == [1, 2, 3]


def test_many_rows_are_many_lines() -> None:
    lines = printed("json", rows(*(record(pid=pid) for pid in range(1, 5000)))).splitlines()
    assert [json.loads(line)["pid"] for line in lines] == [*range(1, 5000)]


@pytest.mark.parametrize("format", ["json", "csv"])
def test_rows_that_were_written_are_freed_without_the_garbage_collector(format: str) -> None:
    found = rows(record(pid=1), record(pid=2))
    batch = weakref.ref(found.parts[0])
    gc.disable()
    try:
        printed(format, found)
        del found
        assert batch() is None
    finally:
        gc.enable()


def test_yaml_is_one_document_per_row_with_the_same_content() -> None:
    made = rows(record(path=HOSTILE), record(path=b"no", comm=b"123", args=[b"a: b", b"- c"]))
    documents = list(yaml.safe_load_all(printed("yaml", made)))
    assert documents == [json.loads(line) for line in printed("json", made).splitlines()]
    assert printed("yaml", made).startswith("---\n")


def test_csv_has_every_member_and_is_read_back_exactly() -> None:
    text = printed("csv", rows(record(path=HOSTILE, path_cut=True, args=[b"a", b"b"]), record()))
    found = list(csv.DictReader(io.StringIO(text, newline="")))
    assert found[0]["path"] == HOSTILE.decode("utf-8", "replace")
    assert found[0]["path_cut"] == "true"
    assert json.loads(found[0]["args"]) == ["a", "b"]
    assert (found[1]["path"], found[1]["path_bytes"], found[1]["errno"]) == ("/etc/passwd", "", "0")


def test_csv_marks_late_rows_in_a_last_column() -> None:
    found = rows(record(pid=1), record(pid=2))
    found.parts[0].late = np.array([True, False])
    text = list(csv.DictReader(io.StringIO(printed("csv", found))))
    assert [(row["pid"], row["late"]) for row in text] == [("1", "true"), ("2", "")]


def test_csv_without_rows_is_its_header_and_without_headers_nothing() -> None:
    assert printed("csv", columns=("pid", "fd")) == "pid,fd\n"
    assert printed("csv", columns=("pid", "fd"), no_headers=True) == ""


def test_names_are_kubectls_and_come_once() -> None:
    assert printed("name", rows(record(cgroup=7), record(cgroup=7)), rows(record(cgroup=7), record())) == (
        "pod/xwing\nnode/node-1\n"
    )


def test_jsonpath_is_kubectls_template() -> None:
    made = rows(record(cgroup=7, args=[b"ls", b"-l"]), record(path=None, args=[]))
    assert printed('jsonpath={.pod} {.pid}:{.path}{"\\n"}', made) == "xwing 1:/etc/passwd\n 1:\n"
    assert printed('jsonpath={range .args[*]}<{@}>{end}{"\\t"}{.args[0]};', made) == "<ls><-l>\tls;\n\t;\n"
    assert printed("jsonpath={.args}", made) == '["ls", "-l"]\n[]\n'


def test_jsonpath_escapes_values_but_not_the_template() -> None:
    assert printed("jsonpath={.path}{'\\n'}", rows(record(path=b"/a\nb\x1b"))) == "/a\\nb\\x1b\n"


def test_custom_columns_have_their_own_titles() -> None:
    text = printed(
        "custom-columns=WHO:.pod,FILE:.path,FIRST:.args[0]", rows(record(cgroup=7, args=[b"ls"]), record(path=None))
    )
    assert text == "WHO     FILE         FIRST\nxwing   /etc/passwd  ls\n<none>  <none>       <none>\n"


def test_several_gadgets_say_which_event_a_row_is() -> None:
    other = replace(OPEN, name="trace_exec", command=("trace", "exec"), columns=OPEN.columns[:5])
    both = (OPEN, other)
    made = [rows(record()), rows(record(), gadget=other)]
    assert printed("table", *made, gadgets=both).splitlines()[0].split()[0] == "EVENT"
    assert [line.split()[0] for line in printed("table", *made, gadgets=both).splitlines()[1:]] == [
        "open", "exec",
    ]  # fmt: skip
    assert [json.loads(line)["event"] for line in printed("json", *made, gadgets=both).splitlines()] == [
        "open", "exec",
    ]  # fmt: skip
    assert printed("csv", *made, gadgets=both).startswith("event,timestamp,")


@pytest.mark.parametrize(
    ("format", "why", "remedy"),
    [
        ("jsn", "unknown output format 'jsn'", "json or jsonpath?"),
        ("", "unknown output format ''", "one of"),
        ("jsonpath", "-o jsonpath needs a template", "-o jsonpath="),
        ("jsonpath=", "-o jsonpath needs a template", "-o jsonpath="),
        ("json=x", "-o json takes no template", "-o jsonpath="),
        ("jsonpath={.pdo}", "rows have no 'pdo'", "pod"),
        ("jsonpath={.pod", "unbalanced brace", ""),
        ("jsonpath={range .args[*]}{@}", "{range} without {end}", ""),
        ("jsonpath={.pod}{end}", "{end} without {range}", ""),
        ("jsonpath={.args[}", "is not a JSONPath expression", ""),
        ("custom-columns=PID", "is not HEADER:.column", "custom-columns="),
        ("custom-columns=PID:.pit", "rows have no 'pit'", "pid"),
    ],
)
def test_a_wrong_format_is_an_error_that_helps(format: str, why: str, remedy: str) -> None:
    with pytest.raises(UsageError) as caught:
        printed(format)
    assert why in str(caught.value)
    assert remedy in (caught.value.remedy or "")


def test_a_column_that_does_not_exist_is_an_error_in_every_format() -> None:
    for format in ("table", "json", "yaml", "csv"):
        with pytest.raises(UsageError, match="no column 'pth'"):
            printed(format, columns=("pth",))


class ClosedPipe(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.parametrize("format", ["table", "json", "yaml", "csv", "name", "jsonpath={.pod}", "custom-columns=A:.pid"])
def test_a_closed_pipe_comes_out_of_every_sink(format: str) -> None:
    sink = make_sink(OutputOptions(format=format), [OPEN], ClosedPipe())
    with pytest.raises(BrokenPipeError):
        sink.write(rows(record(cgroup=7)))
